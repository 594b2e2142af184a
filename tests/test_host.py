import errno
import os
import time

import pytest
from entrypoint.node.host import Host, StepError
from entrypoint.node.plan import decide
from entrypoint.node.values import Copy, Memory, Remove, Rename, Write

from entrypoint.cni.document import Master, Multus, NoFile, Unread, Unusable, examine
from entrypoint.disk import files, programs
from entrypoint.disk.looks import MAX_BYTES, Absent, File, read
from tests.node import FLANNEL, scratch, settings_for


@pytest.fixture
def root(tmp_path):
    return scratch(tmp_path)


def put(root, name, content=FLANNEL):
    (root / "net.d" / name).write_bytes(content)


def names(root, *flags):
    return [each.name for each in Host(settings_for(root, *flags)).observe().candidates]


def snapshot(root):
    """Everything below a directory that a write or a touch would change."""
    found = {}
    for directory, _, entries in os.walk(root):
        for path in [directory, *(os.path.join(directory, entry) for entry in entries)]:
            status = os.lstat(path)
            found[path] = (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


def test_candidates_come_in_byte_order_and_what_we_write_is_none(root):
    for name in ("b.conf", "B.conf", "é.conf", "00-multus.conf", "00-multus.conflist", "a.json", "10.conflist"):
        put(root, name)
    os.rename(root / "net.d/10.conflist", os.fsencode(root / "net.d") + b"/\xff\n.conf")
    assert names(root) == ["B.conf", "b.conf", "é.conf", "\udcff\n.conf"]


def test_only_regular_files_and_links_to_them_are_candidates(root):
    put(root, "target")
    (root / "net.d/a-link.conf").symlink_to("target")
    (root / "net.d/b-dangling.conf").symlink_to("missing")
    (root / "net.d/c-loop.conf").symlink_to("c-loop.conf")
    (root / "net.d/d-directory.conf").mkdir()
    os.mkfifo(root / "net.d/e-fifo.conf")
    link, *others = Host(settings_for(root)).observe().candidates
    assert isinstance(link.verdict, Master)
    assert {other.name: other.verdict for other in others} == {
        "b-dangling.conf": NoFile("is a link to what does not exist", link=True),
        "c-loop.conf": NoFile("is a link to what cannot be read: Too many levels of symbolic links", link=True),
        "d-directory.conf": NoFile("is not a regular file"),
        "e-fifo.conf": NoFile("is not a regular file"),
    }


def test_a_named_master_is_the_only_candidate(root):
    put(root, "05-a.conf")
    put(root, "10-b.conf")
    assert names(root, "--multus-master-cni-file-name=10-b.conf") == ["10-b.conf"]
    assert names(root, "--multus-master-cni-file-name=20-c.conf") == []


def test_renamed_masters_are_seen_only_with_the_flag(root):
    put(root, "10-b.conf.old")
    put(root, "notes.old")
    put(root, "00-multus.conf.old")
    assert Host(settings_for(root)).observe().retired == ()
    (found,) = Host(settings_for(root, "--rename-conf-file")).observe().retired
    assert found.name == "10-b.conf"


def test_a_candidate_keeps_its_age_until_its_content_changes(root):
    put(root, "a.conf", b"{")
    host = Host(settings_for(root))
    first = host.observe().candidates[0]
    assert host.observe().candidates[0].since == first.since
    os.utime(root / "net.d/a.conf")
    assert host.observe().candidates[0].since == first.since
    put(root, "a.conf", b'{"')
    assert host.observe().candidates[0].since > first.since


def test_an_unchanged_candidate_is_not_read_again(root, monkeypatch):
    put(root, "a.conf")
    os.utime(root / "net.d/a.conf")
    monkeypatch.setattr("time.time_ns", lambda now=time.time_ns: now() + 10**9)  # long after the file was written
    host = Host(settings_for(root))
    examined = []
    real = examine
    monkeypatch.setattr(
        "entrypoint.node.candidates.examine",
        lambda content, *more, **said: examined.append(content) or real(content, *more, **said),
    )
    for _ in range(3):
        host.observe()
    assert len(examined) == 1


def test_a_change_within_one_tick_of_the_clock_is_seen(root, monkeypatch):
    put(root, "a.conf", b'{"name": "one", "type": "t"}')
    host = Host(settings_for(root))
    monkeypatch.setattr("entrypoint.node.candidates.signature", lambda status: (1,))  # as if no timestamp had changed
    assert host.observe().candidates[0].verdict.name == "one"
    put(root, "a.conf", b'{"name": "two", "type": "t"}')
    assert host.observe().candidates[0].verdict.name == "two"


def test_touching_a_file_makes_it_no_newer(root):
    put(root, "a.conf")
    host = Host(settings_for(root))
    first = host.observe().candidates[0]
    os.utime(root / "net.d/a.conf")
    assert host.observe().candidates[0] == first


def test_a_directory_under_an_outputs_name_is_as_good_as_nothing(root):
    (root / "net.d/00-multus.conflist").mkdir()
    assert Host(settings_for(root)).observe().outputs["00-multus.conflist"] == Absent("is a directory")


def test_verdicts(root):
    put(root, "a.conf", b'{"type": "multus"}')
    put(root, "b.conf", b" " * (MAX_BYTES + 1))
    put(root, "c.conf")
    kinds = [each.verdict for each in Host(settings_for(root)).observe().candidates]
    assert isinstance(kinds[0], Multus)
    assert kinds[1] == Unusable("is larger than 1048576 bytes")
    assert isinstance(kinds[2], Master)


def test_an_autoconfig_directory_that_is_missing_is_told_of(root):
    seen = Host(settings_for(root, f"--multus-autoconfig-dir={root}/later")).observe()
    assert seen.beside is None
    assert seen.unlisted is None
    assert seen.missing_dirs == ()


def test_directories_that_must_exist(root):
    settings = settings_for(root, f"--ready-file={root}/nowhere/ready")
    (root / "bin").rmdir()
    (root / "net.d").rmdir()
    assert [flag for flag, _ in Host(settings).observe().missing_dirs] == [
        "--cni-conf-dir",
        "--cni-bin-dir",
        "--ready-file",
    ]
    skipping = settings_for(root, "--skip-multus-binary-copy")
    assert [flag for flag, _ in Host(skipping).observe().missing_dirs] == ["--cni-conf-dir"]


@pytest.mark.parametrize(
    "flags", [(), ("--multus-conf-file=/x/70-multus.conf",), ("--multus-autoconfig-dir=/nowhere",)]
)
def test_all_but_directories_of_the_configuration_directory_may_be_read_by_a_runtime(root, flags):
    for name in ("00-a.conf", "00-b.json", "00-c.txt"):
        put(root, name)
    (root / "net.d/dir.conf").mkdir()
    (root / "net.d/dangling.conf").symlink_to("nowhere")
    names = Host(settings_for(root, *flags)).observe().names
    assert sorted(names) == ["00-a.conf", "00-b.json", "00-c.txt", "dangling.conf"]


class TestLooksThatFail:
    def failing(self, monkeypatch, *names):
        """Let opening files of these names fail once the table of open files is full."""
        real = os.open

        def opened(path, *args, **options):
            if os.path.basename(os.fspath(path)) in names:
                raise OSError(errno.ENFILE, "Too many open files in system", path)
            return real(path, *args, **options)

        monkeypatch.setattr(os, "open", opened)

    def test_a_candidate_that_could_not_be_read_is_read_again(self, root, monkeypatch):
        put(root, "05-a.conf")
        host = Host(settings_for(root))
        with monkeypatch.context() as failing:
            self.failing(failing, "05-a.conf")
            (candidate,) = host.observe().candidates
            assert isinstance(candidate.verdict, Unread)
        (candidate,) = host.observe().candidates
        assert isinstance(candidate.verdict, Master)

    def test_an_output_that_could_not_be_read_is_not_gone(self, root, monkeypatch):
        settings = settings_for(root)
        files.write(root / "net.d/00-multus.conf", b"{}", 0o600)
        self.failing(monkeypatch, "00-multus.conf", "multus.kubeconfig")
        seen = Host(settings).observe()
        assert (seen.outputs["00-multus.conf"].missing, seen.outputs["00-multus.conf"].failed) == (False, True)
        assert seen.kubeconfig.failed

    def test_a_directory_that_could_not_be_listed_is_told_of(self, root, monkeypatch):
        put(root, "05-a.conf")

        def scandir(path):
            raise OSError(errno.EIO, "Input/output error", path)

        monkeypatch.setattr(os, "scandir", scandir)
        seen = Host(settings_for(root)).observe()
        assert seen.unlisted == "cannot be read: Input/output error"
        assert seen.failed == f"the directory {root}/net.d cannot be read: Input/output error"


class TestBinary:
    def test_it_is_installed_when_content_and_mode_are_the_sources(self, root):
        settings = settings_for(root)
        host = Host(settings)
        assert not host.observe().binary.installed
        host.apply(Copy(settings.binary_file, settings.multus_bin_file))
        assert host.observe().binary.installed
        assert Host(settings).observe().binary.installed
        settings.binary_file.chmod(0o700)
        assert not host.observe().binary.installed
        settings.binary_file.chmod(0o755)
        assert host.observe().binary.installed
        settings.binary_file.write_bytes(b"\x7fELF mu1tus")
        assert not host.observe().binary.installed

    def test_a_link_is_no_installed_binary(self, root):
        settings = settings_for(root)
        settings.binary_file.symlink_to(settings.multus_bin_file)
        assert not Host(settings).observe().binary.installed

    def test_it_is_compared_once_for_each_state(self, root, monkeypatch):
        settings = settings_for(root)
        Host(settings).apply(Copy(settings.binary_file, settings.multus_bin_file))
        host = Host(settings)
        compared = []
        real = programs.same_content
        monkeypatch.setattr(programs, "same_content", lambda *args: compared.append(args) or real(*args))
        for _ in range(3):
            assert host.observe().binary.installed
        assert len(compared) == 1

    def test_changed_bytes_are_seen_at_the_first_look_whatever_the_time_says(self, root):
        settings = settings_for(root)
        Host(settings).apply(Copy(settings.binary_file, settings.multus_bin_file))
        settings.binary_file.write_bytes(b"\x7fELF mu1tus")
        times = settings.multus_bin_file.stat()
        os.utime(settings.binary_file, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert not Host(settings).observe().binary.installed

    @pytest.mark.parametrize("make", [lambda path: path.mkdir(), os.mkfifo])
    def test_a_source_that_is_no_file_is_a_problem(self, root, make):
        settings = settings_for(root)
        settings.multus_bin_file.unlink()
        make(settings.multus_bin_file)
        assert Host(settings).observe().binary.source == Absent("is not a regular file")


class TestRead:
    def test_a_file_is_its_content_mode_and_identity(self, tmp_path):
        (tmp_path / "a").write_bytes(b"x")
        (tmp_path / "a").chmod(0o640)
        status = (tmp_path / "a").stat()
        assert read(tmp_path / "a") == File(b"x", 0o640, (status.st_dev, status.st_ino, status.st_mtime_ns))

    def test_what_is_not_there_is_missing(self, tmp_path):
        assert read(tmp_path / "a") == Absent("does not exist")
        (tmp_path / "f").touch()
        assert read(tmp_path / "f/a").missing

    def test_a_dangling_link_is_there(self, tmp_path):
        (tmp_path / "a").symlink_to("missing")
        assert read(tmp_path / "a") == Absent("does not exist", missing=False)

    def test_a_fifo_and_a_directory_are_there_and_do_not_block(self, tmp_path):
        os.mkfifo(tmp_path / "a")
        assert read(tmp_path / "a") == Absent("is not a regular file", missing=False)
        assert not read(tmp_path).missing

    def test_a_huge_file_is_not_read_whole(self, tmp_path):
        with open(tmp_path / "a", "wb") as sparse:
            sparse.truncate(1 << 40)
        assert "larger than" in read(tmp_path / "a").why


def test_a_plan_makes_the_node_what_was_decided_and_a_second_look_changes_nothing(root):
    put(root, "10-a.conflist")
    settings = settings_for(root, "--rename-conf-file")
    host = Host(settings)
    plan = decide(settings, host.observe(), Memory(started=0.0))
    for step in plan.steps:
        host.apply(step)
    before = snapshot(root)
    assert decide(settings, host.observe(), plan.memory).steps == ()
    assert decide(settings, Host(settings).observe(), Memory(started=0.0)).steps == ()
    assert snapshot(root) == before
    assert sorted(os.listdir(root / "net.d")) == ["00-multus.conf", "10-a.conflist.old", "multus.d"]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda root: Write(root / "gone/x", b"", 0o600), "cannot write .*/gone/x: No such file .* hostPath volume"),
        (lambda root: Copy(root / "gone/x", root / "src/multus"), "cannot install .*/gone/x"),
        (lambda root: Remove(root / "bin", ""), "cannot remove .*/bin"),
        (lambda root: Rename(root / "gone", root / "x"), "cannot rename .*/gone"),
    ],
)
def test_a_step_that_fails_says_what_where_and_why(root, step, message):
    with pytest.raises(StepError, match=message):
        Host(settings_for(root)).apply(step(root))


def test_an_output_is_dated_from_when_its_content_was_first_seen(tmp_path):
    settings = settings_for(scratch(tmp_path))
    host, path = Host(settings), tmp_path / "net.d/00-multus.conflist"
    gone = host.observe()
    assert set(gone.since.values()) == {gone.now}
    path.write_text("1")
    first = host.observe()
    path.touch()
    path.chmod(0o600)
    touched = host.observe()
    path.write_text("2")
    changed = host.observe()
    dates = [each.since["00-multus.conflist"] for each in (gone, first, touched, changed)]
    assert dates == [gone.now, first.now, first.now, changed.now]
    assert changed.since["00-multus.conf"] == gone.now


def test_the_first_file_of_the_runtime_is_read_when_its_name_is_none_of_ours(tmp_path):
    settings = settings_for(scratch(tmp_path))
    (tmp_path / "net.d/00-multus.conf").write_text("ours")
    (tmp_path / "net.d/10-later.conf").write_text("later")
    assert Host(settings).observe().first is None
    (tmp_path / "net.d/00-istio.conflist").write_text("first")
    name, look = Host(settings).observe().first
    assert (name, look.content) == ("00-istio.conflist", b"first")


def test_the_plugins_in_directories_are_listed_as_libcni_reads_them(tmp_path):
    directory = scratch(tmp_path) / "net.d/cbr0"
    (tmp_path / "net.d/multus.d").mkdir()
    directory.mkdir()
    for name in ("20-b.conf", "10-a.conf", "c.conflist", "d.json"):
        (directory / name).write_text("{}")
    assert Host(settings_for(tmp_path)).observe().directories == {"cbr0": ("10-a.conf", "20-b.conf")}


def test_an_output_that_is_gone_again_before_it_was_seen_is_dated_anew(tmp_path):
    """Otherwise it would be taken for one that has been gone since before it was written."""
    settings = settings_for(scratch(tmp_path))
    host, path = Host(settings), tmp_path / "net.d/00-multus.conf"
    host.observe()
    host.apply(Write(path, b"1", 0o600))
    path.unlink()
    gone = host.observe()
    assert gone.since["00-multus.conf"] == gone.now
