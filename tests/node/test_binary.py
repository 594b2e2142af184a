import os

import pytest

from entrypoint.disk import programs
from entrypoint.node.steps import Compare, Copy
from tests.node import Node


def wish(node):
    return node.decide().wishes[1]


def finish(node):
    """Do what this part wishes, until it wishes nothing."""
    for _ in range(4):
        found = wish(node)
        steps = found.steps or found.afterwards
        node.do(steps)
        if not steps:
            return found
    raise AssertionError("it does not come to rest")


def program(path, content=b"\x7fELF other", mode=0o755):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


@pytest.fixture
def installed(node):
    assert wish(node).steps == (Copy(node.settings.binary_file, node.settings.multus_bin_file),)
    finish(node)
    return node.settings.binary_file


def test_it_is_installed_when_bytes_and_mode_are_the_sources(node, installed):
    assert not wish(node).afterwards
    assert wish(node).stands == (installed,)
    for damage in (
        lambda: installed.chmod(0o700),
        lambda: installed.write_bytes(b"short"),
        installed.unlink,
        lambda: (installed.unlink(), installed.symlink_to(node.settings.multus_bin_file)),
    ):
        damage()
        assert [type(step) for step in wish(node).steps] == [Copy]
        finish(node)
        assert installed.read_bytes() == b"\x7fELF multus" and not installed.is_symlink()


def test_what_looks_the_same_is_compared_afterwards_and_once_for_each_state(node, installed, monkeypatch):
    """A configuration need not wait for the reading of 50 MB."""
    installed.write_bytes(b"\x7fELF mu1tus")
    times = node.settings.multus_bin_file.stat()
    os.utime(installed, ns=(times.st_atime_ns, times.st_mtime_ns))
    node.start()
    compared, real = [], programs.compared
    monkeypatch.setattr(programs, "compared", lambda *args: compared.append(args) or real(*args))
    found = wish(node)
    assert (found.steps, [type(step) for step in found.afterwards], found.in_use) == ((), [Compare], True)
    node.do(found.afterwards)
    assert [type(step) for step in wish(node).steps] == [Copy]
    finish(node)
    assert len(compared) == 2  # the other one, and ours
    wish(node)
    assert len(compared) == 2


def test_a_comparison_that_somebody_overtook_says_nothing(node, installed):
    node.start()
    (compare,) = wish(node).afterwards
    installed.write_bytes(b"\x7fELF mu1tus")
    compare.tell(True, "x")
    assert [type(step) for step in wish(node).afterwards] == [Compare]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is not a regular file"),
        (os.mkfifo, "is not a regular file"),
        (lambda path: program(path, b""), "is empty"),
        (lambda path: program(path, mode=0o644), "is not executable"),
    ],
)
def test_a_source_that_is_no_program_is_refused_by_name_and_what_is_installed_stays(node, installed, make, why):
    source = node.settings.multus_bin_file
    source.unlink()
    make(source)
    found = wish(node)
    assert (found.steps, found.in_use) == ((), True)
    (fault,) = found.faults
    assert fault.at_start and f"--multus-bin-file={source} {why}" in fault.found
    node.start("--skip-multus-binary-copy")
    assert wish(node).faults == ()
    assert wish(node).stands == (installed,)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: program(path, mode=0o644), "is not executable"),
        (lambda path: path.symlink_to("/bin/sh"), "is a link to /bin/sh"),
    ],
)
def test_with_the_copy_skipped_a_configuration_has_to_wait_for_whoever_installs_it(tmp_path, make, why):
    node = Node(tmp_path, "--skip-multus-binary-copy")
    make(node.settings.binary_file)
    found = wish(node)
    assert (found.steps, found.in_use, found.stands) == ((), False, ())
    assert f"waiting for an executable file {node.settings.binary_file}" in found.awaited
    assert why in found.awaited and "--skip-multus-binary-copy is set" in found.awaited


def test_a_directory_that_is_missing_is_named_with_its_flag_where_something_is_to_be_put_there(tmp_path):
    for flags, missing in (
        ((), ["--cni-bin-dir"]),
        (("--skip-multus-binary-copy",), []),
        (("--plugin-bin-dir=/nowhere", "--skip-multus-binary-copy"), ["--cni-bin-dir", "--plugin-bin-dir"]),
    ):
        node = Node(tmp_path, *flags)
        if node.settings.cni_bin_dir.exists():
            node.settings.cni_bin_dir.rmdir()
        faults = wish(node).faults
        assert [fault.found.partition(":")[0] for fault in faults] == missing
        assert all(fault.at_start and "volume mounted" in fault.todo for fault in faults)


# ---- --plugin-bin-dir ----


@pytest.fixture
def plugins(tmp_path):
    for name in ("macvlan", "ipvlan", "multus"):
        program(tmp_path / "plugins" / name, name.encode())
    program(tmp_path / "plugins/README", mode=0o644)
    (tmp_path / "plugins/directory").mkdir()
    return Node(tmp_path, f"--plugin-bin-dir={tmp_path}/plugins")


def test_the_executable_files_of_a_directory_are_installed_beside_it_and_multus_is_not_among_them(plugins):
    finish(plugins)
    bin_dir = plugins.settings.cni_bin_dir
    assert sorted(os.listdir(bin_dir)) == ["ipvlan", "macvlan", "multus"]
    assert (bin_dir / "multus").read_bytes() == b"\x7fELF multus"
    program(plugins.root / "plugins/macvlan", b"newer")
    finish(plugins)
    assert (bin_dir / "macvlan").read_bytes() == b"newer"
    plugins.start()
    before = {path: path.stat() for path in bin_dir.iterdir()}
    finish(plugins)
    assert {path: path.stat() for path in bin_dir.iterdir()} == before


def test_what_is_on_the_host_and_not_ours_by_the_ledger_is_left_alone_with_one_line(plugins):
    bin_dir = plugins.settings.cni_bin_dir
    program(bin_dir / "ipvlan", b"the host's")
    program(bin_dir / "macvlan", b"macvlan")  # the same bytes: nobody knows whose
    found = finish(plugins)
    assert found.warnings == (f"ipvlan in {bin_dir}: not ours, and another than in --plugin-bin-dir; left alone",)
    program(plugins.root / "plugins/macvlan", b"newer")
    assert "ipvlan, macvlan" in finish(plugins).warnings[0]
    assert plugins.ledger.says.programs.keys() == {"multus"}
    assert plugins.uninstall() == ["multus"]


def test_one_that_somebody_changed_is_theirs_from_then_on(plugins):
    finish(plugins)
    bin_dir = plugins.settings.cni_bin_dir
    program(bin_dir / "macvlan", b"the host's")
    assert "macvlan" in finish(plugins).warnings[0]
    assert sorted(plugins.uninstall()) == ["ipvlan", "multus"]


@pytest.mark.parametrize("there", [False, True])
def test_killed_just_before_or_after_it_is_there_it_is_still_ours_later(plugins, there):
    """Told afterwards, a run that was killed in between would leave a program that is nobody's."""
    real = programs.copy

    def killed(*arguments):
        if there:
            real(*arguments)
        raise KeyboardInterrupt

    step = next(step for step in wish(plugins).steps if step.path.name == "macvlan")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(programs, "copy", killed)
        plugins.do([step])
    plugins.start()
    finish(plugins)
    assert "macvlan" in plugins.uninstall()


def test_killed_in_the_midst_of_an_upgrade_the_old_one_is_still_ours(plugins):
    finish(plugins)
    program(plugins.root / "plugins/macvlan", b"newer")

    def killed(source, path, cancelled):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(programs, "copy", killed)
        finish(plugins)
    plugins.start()
    assert finish(plugins).warnings == ()
    assert (plugins.settings.cni_bin_dir / "macvlan").read_bytes() == b"newer"
    assert "macvlan" in plugins.uninstall()


# ---- at the end ----


def test_at_the_end_it_stays_unless_a_hook_had_removed_it(node, installed):
    assert node.leave() == []
    assert node.leave(hooked={installed}) == ["multus"]


@pytest.mark.parametrize("flags", [(), ("--skip-multus-binary-copy",)])
def test_when_all_goes_only_what_we_installed_and_nobody_changed_goes(node, installed, flags):
    node.start(*flags)
    node.settle()
    assert ("multus" in node.uninstall()) is not bool(flags)
    program(installed, b"\x7fELF mu1tus")
    node.start(*flags)
    node.do(wish(node).afterwards)
    assert "multus" not in node.uninstall()
