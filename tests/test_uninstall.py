"""`uninstall` and `install`, by starting the real program on a scratch host."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from entrypoint.uninstall import doing as uninstaller
from entrypoint.uninstall import waiting as waiter
from tests.opshost import FLANNEL, ScratchHost
from tests.waiting import until

pytestmark = pytest.mark.process

BRIDGE = {"name": "mine", "type": "bridge", "cniVersion": "0.3.1"}
MULTUS = {"name": "multus-cni-network", "type": "multus", "delegates": [FLANNEL]}


@pytest.fixture
def host(tmp_path):
    made = ScratchHost(tmp_path)
    made.master()
    made.plugins()
    return made


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(uninstaller, "_WATCHED", 0.0)


def uninstall(host, *arguments, flags=None, force=False, wait=False):
    """Uninstall in this process; return the exit code and what was said."""
    said = []
    wanted = host.settings(*arguments, flags=flags)
    succeeded = uninstaller.run(wanted, host.data_dir, force=force, wait=wait, say=said.append)
    return (0 if succeeded else 1), "\n".join(said)


def runtime_files(host):
    return sorted(path.name for path in host.conf_dir.iterdir() if path.is_file())


# ---- what is taken away ----


def test_a_node_is_as_it_was_before_we_came(host):
    before = {path: path.read_bytes() for path in host.root.glob("host/**/*") if path.is_file()}
    host.configure()
    ran = host.run("uninstall", f"--multus-data-dir={host.data_dir}")
    assert ran.returncode == 0, ran.stdout
    assert {path: path.read_bytes() for path in host.root.glob("host/**/*") if path.is_file()} == before
    assert not host.kubeconfig.parent.exists()
    assert [line.split("/")[-1] for line in ran.stdout.splitlines() if line.startswith("removed")] == [
        "00-multus.conf",
        "multus.kubeconfig",
        "multus.d",
        "multus",
    ]


def test_uninstalling_twice_is_the_same_as_once(host):
    host.configure()
    assert uninstall(host)[0] == 0
    before = host.snapshot()
    code, said = uninstall(host)
    assert code == 0
    assert "nothing to do" in said
    assert host.snapshot() == before


def test_a_node_on_which_nothing_was_ever_installed_is_left_alone(tmp_path):
    host = ScratchHost(tmp_path)
    host.bin_dir.rmdir()
    before = host.snapshot()
    assert uninstall(host)[0] == 0
    assert host.snapshot() == before


def test_a_directory_that_is_not_mounted_is_no_clean_node(tmp_path):
    host = ScratchHost(tmp_path)
    host.conf_dir.rmdir()
    code, said = uninstall(host)
    assert code == 1
    assert f"{host.conf_dir} is not there: is the volume mounted" in said


def test_both_generated_names_and_our_temporary_files_go(host):
    host.configure()
    (host.conf_dir / "00-multus.conflist").write_text(json.dumps({"name": "x", "plugins": [MULTUS]}))
    (host.conf_dir / ".multus-entrypoint-00.tmp").write_text("half")
    assert uninstall(host)[0] == 0
    assert runtime_files(host) == ["10-flannel.conflist"]


def test_a_generated_file_that_another_installer_left_cut_off_goes(host):
    host.generated.write_text(json.dumps(MULTUS) + "}]}")
    assert uninstall(host)[0] == 0
    assert not host.generated.exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (json.dumps(BRIDGE), "does not run Multus"),
        (json.dumps({"name": "n", "type": "multus-shim"}), "thick"),
        (json.dumps({"name": "n", "plugins": [{"type": "multus-shim"}]}), "thick"),
    ],
)
def test_a_file_under_our_name_that_is_not_ours_stays(host, content, why):
    host.generated.write_text(content)
    code, said = uninstall(host)
    assert code == 0
    assert host.generated.read_text() == content
    assert why in said


def test_a_multus_configuration_under_another_name_stays_and_is_named(host):
    host.configure()
    other = host.conf_dir / "70-multus.conf"
    other.write_text(json.dumps(MULTUS))
    _, announced = uninstall(host, "--dry-run")
    assert f"would keep {host.kubeconfig}: the configuration that needs it is still there" in announced
    assert host.kubeconfig.exists()
    code, said = uninstall(host)
    assert code == 1
    assert f"kept {other}: it runs Multus too" in said
    assert host.kubeconfig.exists()  # which that configuration needs, as it does the binary
    assert host.binary.exists()
    assert not host.generated.exists()
    other.unlink()
    assert uninstall(host)[0] == 0
    assert not host.kubeconfig.exists()


# ---- static configuration ----


@pytest.fixture
def static(host):
    source = host.image / "05-multus.conf"
    source.write_text(json.dumps(MULTUS))
    host.flags = [f"--multus-conf-file={source}"]
    return source


def test_the_copy_of_a_static_configuration_goes(host, static):
    host.configure()
    assert (host.conf_dir / "05-multus.conf").exists()
    assert uninstall(host)[0] == 0
    assert runtime_files(host) == ["10-flannel.conflist"]
    assert static.exists()


def test_the_copy_of_a_static_configuration_that_is_no_multus_goes_too(host, static):
    static.write_text(json.dumps(BRIDGE))
    with host.running():
        until((host.conf_dir / "05-multus.conf").exists)
    assert uninstall(host)[0] == 0
    assert not (host.conf_dir / "05-multus.conf").exists()


@pytest.mark.parametrize("source", ["changed", "gone"])
def test_a_copy_whose_source_is_not_the_same_any_more_goes_if_it_runs_multus(host, static, source):
    host.configure()
    if source == "gone":
        static.unlink()
    else:
        static.write_text(json.dumps(BRIDGE))
    assert uninstall(host)[0] == 0
    assert not (host.conf_dir / "05-multus.conf").exists()


def test_a_file_under_the_static_name_that_is_not_ours_stays(host, static):
    mine = host.conf_dir / "05-multus.conf"
    mine.write_text(json.dumps(BRIDGE))
    code, said = uninstall(host)
    assert code == 0
    assert mine.exists()
    assert "does not run Multus" in said


def test_a_source_that_stands_in_the_configuration_directory_itself_stays(host):
    source = host.conf_dir / "05-multus.conf"
    source.write_text(json.dumps(MULTUS))
    code, said = uninstall(host, flags=[f"--multus-conf-file={source}"])
    assert code == 1
    assert source.exists()
    assert "not a copy of it" in said


def test_static_flags_also_take_away_what_an_earlier_auto_run_left(host, static):
    host.generated.write_text(json.dumps(MULTUS))
    assert uninstall(host)[0] == 0
    assert not host.generated.exists()


# ---- the master's name ----


def renamed(host, flags=("--multus-conf-file=auto", "--rename-conf-file")):
    host.flags = list(flags)
    host.configure()
    assert runtime_files(host) == ["00-multus.conf", "10-flannel.conflist.old"]


def test_a_renamed_master_gets_its_name_back(host):
    renamed(host)
    assert uninstall(host)[0] == 0
    assert runtime_files(host) == ["10-flannel.conflist"]


def test_a_renamed_master_gets_its_name_back_without_the_flag_too(host):
    renamed(host)
    assert uninstall(host, flags=["--multus-conf-file=auto"])[0] == 0
    assert runtime_files(host) == ["10-flannel.conflist"]


def test_a_master_whose_version_was_forced_gets_its_name_back(host):
    renamed(host, ["--multus-conf-file=auto", "--rename-conf-file", "--cni-version=0.4.0", "--force-cni-version"])
    assert uninstall(host, flags=["--multus-conf-file=auto"])[0] == 0
    assert runtime_files(host) == ["10-flannel.conflist"]


def test_an_uninstall_that_was_cut_off_before_the_rename_is_finished_by_the_next(host):
    renamed(host)
    host.generated.unlink()
    assert uninstall(host)[0] == 0
    assert runtime_files(host) == ["10-flannel.conflist"]


@pytest.mark.parametrize("flags", [["--multus-conf-file=auto"], ["--multus-conf-file=auto", "--rename-conf-file"]])
def test_an_uninstall_that_was_cut_off_within_the_rename_is_finished_by_the_next(host, flags):
    """A name is given back by a hard link, so as not to overwrite anybody's file: both names are the same file then."""
    renamed(host)
    host.generated.unlink()
    os.link(host.conf_dir / "10-flannel.conflist.old", host.conf_dir / "10-flannel.conflist")
    assert uninstall(host, flags=flags)[0] == 0
    assert runtime_files(host) == ["10-flannel.conflist"]


def test_a_live_file_that_took_the_masters_name_is_not_overwritten(host):
    renamed(host)
    live = host.master(document=BRIDGE)
    code, said = uninstall(host)
    assert code == 0
    assert json.loads(live.read_text()) == BRIDGE
    assert (host.conf_dir / "10-flannel.conflist.old").exists()
    assert "there is a 10-flannel.conflist again" in said


def test_every_master_that_was_renamed_gets_its_name_back_and_the_record_goes(host):
    renamed(host)
    host.master("20-other.conflist", BRIDGE)
    host.configure()
    assert uninstall(host, flags=["--multus-conf-file=auto"])[0] == 0
    assert runtime_files(host) == ["10-flannel.conflist", "20-other.conflist"]
    assert not host.kubeconfig.parent.exists()


def test_an_uninstall_that_was_cut_off_before_the_rename_is_finished_without_the_flag_too(host):
    renamed(host)
    host.generated.unlink()
    assert uninstall(host, flags=["--multus-conf-file=auto"])[0] == 0
    assert runtime_files(host) == ["10-flannel.conflist"]


def test_a_name_that_cannot_be_given_back_is_not_forgotten(host, monkeypatch):
    renamed(host)
    record = host.kubeconfig.parent / "renamed-masters"

    def fails(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("entrypoint.disk.moving.rename_unless_taken", fails)
    code, said = uninstall(host)
    assert code == 1
    assert record.exists()
    assert f"kept {record}: it says which master has yet to get its name back" in said
    monkeypatch.undo()
    assert uninstall(host, flags=["--multus-conf-file=auto"])[0] == 0
    assert runtime_files(host) == ["10-flannel.conflist"]


def test_an_operators_own_old_copies_are_not_touched(host):
    own = host.master("05-mine.conf.old", BRIDGE)
    host.configure()
    assert uninstall(host, flags=["--multus-conf-file=auto", "--rename-conf-file"])[0] == 0
    assert runtime_files(host) == [own.name, "10-flannel.conflist"]


# ---- kubeconfig and binary ----


def test_a_link_in_the_place_of_our_directory_stays_and_is_no_failure(host):
    (host.root / "elsewhere").mkdir()
    host.kubeconfig.parent.symlink_to(host.root / "elsewhere")
    host.configure()
    code, said = uninstall(host)
    assert code == 0, said
    assert host.kubeconfig.parent.is_symlink()
    assert list((host.root / "elsewhere").iterdir()) == []
    assert "nothing to do" in uninstall(host)[1]


def test_a_directory_with_other_files_in_it_stays(host):
    host.configure()
    (host.kubeconfig.parent / "notes").write_text("mine")
    code, said = uninstall(host)
    assert code == 0
    assert not host.kubeconfig.exists()
    assert "it holds other files" in said


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda host: host.binary.write_bytes(b"another"), "not the one of this image"),
        (lambda host: host.multus.unlink(), "nothing to compare it with"),
        (lambda host: (host.binary.unlink(), host.binary.symlink_to(host.multus)), "not the one of this image"),
    ],
)
def test_a_binary_that_is_not_the_one_we_installed_stays(host, change, why):
    host.configure()
    change(host)
    code, said = uninstall(host)
    assert code == 0
    assert os.path.lexists(host.binary)
    assert why in said


def test_a_binary_that_is_its_own_source_stays(host):
    """`--multus-bin-file` may name the installed binary itself, which somebody else has put there."""
    host.binary.write_bytes(b"the operator's")
    host.binary.chmod(0o755)
    host.multus = host.binary
    host.configure()
    code, said = uninstall(host)
    assert code == 0
    assert "that very file" in said
    assert host.binary.read_bytes() == b"the operator's"


def test_a_binary_that_others_install_stays(host):
    host.configure()
    code, said = uninstall(host, flags=["--multus-conf-file=auto", "--skip-multus-binary-copy"])
    assert code == 0
    assert host.binary.exists()
    assert "--skip-multus-binary-copy is set" in said


def test_passthru_goes_with_multus_if_it_is_the_images(host):
    host.program(host.image / "passthru", b"passthru")
    assert host.run("install", f"--dest-dir={host.bin_dir}", flags=[]).returncode == 2  # it does not take all flags
    install(host)
    assert (host.bin_dir / "passthru").exists()
    assert uninstall(host)[0] == 0
    assert not (host.bin_dir / "passthru").exists()
    assert (host.bin_dir / "flannel").exists()


# ---- pods that are still there ----


def test_pods_with_further_networks_are_a_refusal_that_names_them_and_says_what_to_do(host):
    host.configure()
    host.attach("default/web-0", "default/lan", "infra/san")
    host.attach("shop/db", "shop/lan")
    host.attach("default/plain")
    before = host.snapshot()
    ran = host.run("uninstall", f"--multus-data-dir={host.data_dir}")
    assert ran.returncode == 1
    assert ran.stdout.startswith("refused: 2 pods of this node have networks beside their default network: ")
    assert "default/web-0 (default/lan, infra/san)" in ran.stdout
    assert "shop/db (shop/lan)" in ran.stdout
    assert "delete these pods, or drain the node; with --force" in ran.stdout
    assert host.snapshot() == before


def test_pods_with_their_default_network_alone_are_in_nobodys_way(host):
    host.configure()
    for number in range(3):
        host.attach(f"default/plain-{number}")
    code, said = uninstall(host)
    assert code == 0
    assert not host.generated.exists()
    assert "refused" not in said


def test_a_default_network_that_a_pod_has_chosen_counts_too(host):
    """Nobody else frees what `v1.multus-cni.io/default-network` took: the node's own default network is another."""
    host.configure()
    host.attach("default/chose", default="kube-system/other-default")
    code, said = uninstall(host)
    assert code == 1
    assert "default/chose (kube-system/other-default)" in said


def test_with_force_it_goes_on_names_the_pods_and_leaves_the_records(host):
    host.configure()
    paths = host.attach("default/web-0", "default/lan")
    ran = host.run("uninstall", f"--multus-data-dir={host.data_dir}", "--force")
    assert ran.returncode == 0
    assert "the addresses of these pods' networks stay reserved: default/web-0 (default/lan)" in ran.stdout
    assert not host.generated.exists()
    assert all(path.exists() for path in paths)


def test_of_many_pods_some_are_named(host):
    host.configure()
    for number in range(23):
        host.attach(f"default/web-{number}", "default/lan")
    code, said = uninstall(host)
    assert code == 1
    assert "refused: 23 pods" in said
    assert " and 3 more. Once" in said


@pytest.mark.parametrize("missing", ["runtime's", "Multus's", "both"])
def test_a_pod_is_named_by_whichever_cache_knows_it_or_else_by_its_sandbox(host, missing):
    host.configure()
    record, of_the_runtime, of_multus = host.attach("default/web-0", "default/lan")
    if missing != "Multus's":
        of_the_runtime.unlink()
    if missing != "runtime's":
        of_multus.write_text("{")
    code, said = uninstall(host)
    assert code == 1
    name = f"the pod of sandbox {record.name[:12]}" if missing == "both" else "default/web-0"
    assert f"{name} (default/lan)" in said


@pytest.mark.parametrize(
    "damage",
    [{"kind": "another"}, {"containerId": "b" * 64}, {"cniArgs": [["K8S_POD_NAME"], 5, [1, 2]]}, {"cniArgs": "x"}],
)
def test_an_entry_of_the_cache_that_is_not_of_this_pod_names_nobody(host, damage):
    host.configure()
    record, *entries = host.attach("default/web-0", "default/lan")
    for path in entries:
        path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    assert f"the pod of sandbox {record.name[:12]} (default/lan)" in uninstall(host)[1]


@pytest.mark.parametrize("content", ["", "{}", "[{", "null"])
def test_a_record_that_cannot_be_read_counts(host, content):
    host.configure()
    record, *_ = host.attach("default/web-0", "default/lan")
    record.write_text(content)
    code, said = uninstall(host)
    assert code == 1
    assert "default/web-0 (its record cannot be read)" in said


def test_only_files_named_by_64_hexadecimal_digits_are_records(host):
    host.configure()
    (host.data_dir / "results").mkdir(parents=True)
    for name in ("a" * 63, "a" * 65, "g" * 64, "A" * 64, "f" * 64 + "-net1"):
        (host.data_dir / name).write_text("{}")
    (host.data_dir / ("b" * 64)).mkdir()
    assert uninstall(host)[0] == 0


# ---- records that are left over ----


@pytest.fixture
def namespaces(host):
    """The host's directory of network namespaces, as the uninstaller's container has it mounted."""
    directory = host.root / "host/run/netns"
    directory.mkdir(parents=True)
    return directory


@pytest.mark.parametrize("netns", ["/var/run/netns/cni-1", "/run/netns/cni-1"])
def test_a_record_whose_network_namespace_is_gone_is_left_over_and_does_not_block(host, namespaces, netns):
    host.configure()
    host.attach("default/gone", "default/lan", netns=netns)
    code, said = uninstall(host)
    assert code == 0
    assert f"passed over in {host.data_dir}, left over from pods that are no more: 1 record" in said
    host.configure()
    (namespaces / "cni-1").touch()
    assert uninstall(host)[0] == 1


@pytest.mark.parametrize("netns", [None, "/proc/4711/ns/net", "/run/other/cni-1", "/run/netns/../../gone", "", "x"])
def test_where_it_cannot_be_seen_whether_a_pod_is_gone_its_record_counts(host, namespaces, netns):
    host.configure()
    host.attach("default/web-0", "default/lan", netns=netns)
    assert uninstall(host)[0] == 1


def test_where_the_directory_of_namespaces_is_not_mounted_records_count(host):
    host.configure()
    host.attach("default/web-0", "default/lan")
    assert uninstall(host)[0] == 1


# ---- waiting ----


class Waiting:
    """The uninstaller, waiting in another process."""

    def __init__(self, host, *arguments):
        self._log = host.root / "uninstall.log"
        command = host.command("uninstall", "--wait", f"--multus-data-dir={host.data_dir}", *arguments)
        with self._log.open("w") as stream:
            self.process = subprocess.Popen(command, env=host.environ(), stdout=stream, stderr=subprocess.STDOUT)

    def log(self):
        return self._log.read_text()


@pytest.fixture
def waiting(host):
    made = []

    def start(*arguments):
        made.append(Waiting(host, *arguments))
        return made[-1]

    yield start
    for each in made:
        each.process.kill()
        each.process.wait()


def test_it_waits_for_pods_to_go_and_goes_on_by_itself_at_once(host, waiting):
    host.configure()
    first, *_ = host.attach("default/web-0", "default/lan")
    second, *_ = host.attach("default/web-1", "default/lan")
    uninstaller = waiting()
    until(lambda: "waiting: 2 pods of this node" in uninstaller.log())
    first.unlink()
    time.sleep(0.5)
    assert uninstaller.process.poll() is None
    assert host.generated.exists()
    second.unlink()
    assert uninstaller.process.wait(10) == 0
    assert not host.generated.exists()
    assert uninstaller.log().count("waiting:") == 1


def test_a_network_namespace_that_goes_ends_the_wait_too(host, namespaces, waiting):
    host.configure()
    host.attach("default/web-0", "default/lan", netns="/var/run/netns/cni-1")
    (namespaces / "cni-1").touch()
    uninstaller = waiting()
    until(lambda: "waiting: 1 pod of this node has networks beside its default network" in uninstaller.log())
    (namespaces / "cni-1").unlink()
    assert uninstaller.process.wait(10) == 0


def test_a_pod_that_comes_while_it_waits_is_waited_for_as_well(host, waiting):
    host.configure()
    first, *_ = host.attach("default/web-0", "default/lan")
    uninstaller = waiting()
    until(lambda: "waiting:" in uninstaller.log())
    second, *_ = host.attach("default/web-1", "default/lan")
    first.unlink()
    time.sleep(0.5)
    assert uninstaller.process.poll() is None
    second.unlink()
    assert uninstaller.process.wait(10) == 0


def holds_token(host, token):
    return f"token: {token}\n" in host.kubeconfig.read_text().replace('"', "")


def test_new_pods_have_a_valid_token_while_it_waits(host, waiting):
    """The installer's ended with its pod: Multus would be refused, and no pod could start."""
    host.configure()
    record, *_ = host.attach("default/web-0", "default/lan")
    host.rotate("of-the-uninstaller")
    uninstaller = waiting()
    until(lambda: holds_token(host, "of-the-uninstaller"))
    assert host.kubeconfig.stat().st_mode & 0o777 == 0o600
    host.rotate("renewed")
    until(lambda: holds_token(host, "renewed"))
    record.unlink()
    assert uninstaller.process.wait(10) == 0
    assert not host.kubeconfig.parent.exists()
    assert uninstaller.log().count("meanwhile") == 1


def test_the_token_is_the_installers_as_long_as_that_runs(host, waiting):
    with host.running() as installer:
        until(host.ready.exists)
        host.attach("default/web-0", "default/lan")
        token, authority = host.token, (host.account / "ca.crt").read_text()
        host.account = host.root / "other"
        host.account.mkdir()
        (host.account / "token").write_text("of-the-uninstaller")
        (host.account / "ca.crt").write_text(authority)
        uninstaller = waiting()
        until(lambda: "waiting:" in uninstaller.log())
        time.sleep(0.5)
        assert holds_token(host, token)
        installer.kill()
        until(lambda: holds_token(host, "of-the-uninstaller"))


def test_without_a_service_account_it_says_that_no_pod_can_start(host, waiting):
    host.configure()
    host.attach("default/web-0", "default/lan")
    before = host.kubeconfig.read_bytes()
    host.account = host.root / "none"
    uninstaller = waiting()
    until(lambda: "no new pod can start" in uninstaller.log())
    assert host.kubeconfig.read_bytes() == before


def test_a_kubeconfig_that_is_not_there_is_not_made_by_the_uninstaller(host, waiting):
    host.configure()
    host.kubeconfig.unlink()
    host.attach("default/web-0", "default/lan")
    uninstaller = waiting()
    until(lambda: "waiting:" in uninstaller.log())
    time.sleep(0.5)
    assert not host.kubeconfig.exists()


def test_it_sleeps_while_it_waits(host, waiting):
    host.configure()
    host.attach("default/web-0", "default/lan")
    uninstaller = waiting()
    until(lambda: "waiting:" in uninstaller.log())
    time.sleep(0.5)
    before = cpu_seconds(uninstaller.process)
    time.sleep(3)
    assert cpu_seconds(uninstaller.process) - before < 0.05


def cpu_seconds(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_it_says_every_half_minute_what_it_waits_for(host, monkeypatch):
    monkeypatch.setattr(waiter, "_INTERVAL", 0.2)
    host.configure()
    record, *_ = host.attach("default/web-0", "default/lan")
    threading.Timer(0.7, record.unlink).start()
    code, said = uninstall(host, wait=True)
    assert code == 0
    assert 3 <= said.count("waiting: 1 pod of this node") <= 4


def test_where_nothing_can_be_watched_it_looks_now_and_then(host, monkeypatch):
    def no_watch_left(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(waiter.Watcher, "follow", no_watch_left)
    monkeypatch.setattr(waiter, "_UNWATCHED_INTERVAL", 0.1)
    host.configure()
    record, *_ = host.attach("default/web-0", "default/lan")
    threading.Timer(0.3, record.unlink).start()
    assert uninstall(host, wait=True)[0] == 0


def test_records_that_cannot_be_seen_for_a_moment_are_no_reason_to_go_on(host, monkeypatch):
    host.configure()
    record, *_ = host.attach("default/web-0", "default/lan")
    looks = []
    look = waiter.records.look

    def failing(directory):
        looks.append(directory)
        if len(looks) in {2, 3}:
            raise OSError(24, "Too many open files")
        if len(looks) == 4:
            assert host.generated.exists()
            record.unlink()  # this look sees it gone
        return look(directory)

    monkeypatch.setattr(waiter.records, "look", failing)
    monkeypatch.setattr(waiter, "_UNWATCHED_INTERVAL", 0.1)
    assert uninstall(host, wait=True)[0] == 0
    assert len(looks) == 4


@pytest.mark.parametrize("flag", ["--force", "--dry-run"])
def test_who_forces_it_or_only_asks_does_not_wait(host, flag):
    host.configure()
    host.attach("default/web-0", "default/lan")
    ran = host.run("uninstall", "--wait", f"--multus-data-dir={host.data_dir}", flag)
    assert ran.returncode == (0 if flag == "--force" else 1)
    assert "waiting:" not in ran.stdout


def test_a_signal_ends_the_wait_and_nothing_is_taken_away(host, waiting):
    host.configure()
    host.attach("default/web-0", "default/lan")
    uninstaller = waiting()
    until(lambda: "waiting:" in uninstaller.log())
    uninstaller.process.terminate()
    assert uninstaller.process.wait(5) == 128 + 15
    assert host.generated.exists()


# ---- where nothing is found ----


def test_a_binary_that_is_not_where_the_flags_point_is_a_warning_that_names_the_place(host):
    host.configure()
    host.binary.unlink()
    for arguments, verb in ((["--dry-run"], "would remove"), ([], "removed")):
        code, said = uninstall(host, *arguments)
        assert code == 0
        assert f"{verb} {host.generated}" in said
        assert f"warning: there is no {host.binary}: if the binary was installed elsewhere" in said
        assert "--cni-bin-dir" in said
    assert "warning" not in uninstall(host)[1]  # nothing of Multus is left, so nothing is amiss


def test_a_binary_that_others_install_is_not_missed(host):
    host.configure()
    host.binary.unlink()
    assert "warning" not in uninstall(host, "--skip-multus-binary-copy")[1]


def test_where_the_records_cannot_be_seen_that_is_said(host):
    host.configure()
    code, said = uninstall(host)
    assert code == 0
    assert f"cannot look for pods that Multus has attached: --multus-data-dir={host.data_dir}" in said
    assert "hostPath" in said


def test_a_node_on_which_multus_has_attached_no_pod_yet_has_no_records(host):
    host.configure()
    host.data_dir.parent.mkdir(parents=True)
    code, said = uninstall(host)
    assert code == 0
    assert "cannot look" not in said


# ---- when things go wrong ----


def test_a_configuration_that_cannot_be_removed_keeps_what_it_needs(host):
    host.configure()
    host.generated.unlink()
    host.generated.mkdir()  # nobody's file: it cannot be removed as one
    code, said = uninstall(host)
    assert code == 1
    assert f"cannot remove {host.generated}: Is a directory" in said
    assert host.kubeconfig.exists()
    assert host.binary.exists()
    assert "the configuration that needs it is still there" in said


def test_one_failure_does_not_keep_the_rest_from_being_tried(host):
    host.configure()
    host.kubeconfig.unlink()
    host.kubeconfig.mkdir()
    code, said = uninstall(host)
    assert code == 1
    assert f"cannot remove {host.kubeconfig}" in said
    assert not host.binary.exists()


def test_an_entrypoint_that_is_still_running_puts_things_back_which_is_said(host):
    with host.running():
        until(host.ready.exists)
        ran = host.run("uninstall", f"--multus-data-dir={host.data_dir}")
    assert ran.returncode == 1
    assert f"{host.generated} is there again" in ran.stdout
    assert "Delete the DaemonSet first" in ran.stdout


def test_a_dry_run_says_what_would_be_done_and_does_nothing(host):
    renamed(host)
    before = host.snapshot()
    code, said = uninstall(host, "--dry-run")
    assert code == 0
    assert host.snapshot() == before
    assert [line.split("/")[-1] for line in said.splitlines()[1:]] == [
        "00-multus.conf",
        "10-flannel.conflist.old to 10-flannel.conflist",
        "renamed-masters",
        "multus.kubeconfig",
        "multus.d if it is empty",
        "multus",
    ]


def test_names_that_are_not_utf_8_are_printed_escaped(host):
    host.configure()
    name = os.fsdecode(b"80-\xff.conf")
    (host.conf_dir / name).write_text(json.dumps(MULTUS))
    ran = host.run("uninstall", f"--multus-data-dir={host.data_dir}")
    assert ran.returncode == 1
    assert "80-\\udcff.conf: it runs Multus too" in ran.stdout


@pytest.mark.parametrize("arguments", [["uninstall"], ["--dry-run"]], ids=" ".join)
def test_the_name_of_a_file_writes_no_line_of_its_own(host, arguments):
    host.flags.append("--rename-conf-file")
    (host.conf_dir / "10-flannel.conflist").rename(host.conf_dir / "10-a\nremoved everything\x1b[31m.conflist")
    if arguments == ["uninstall"]:
        host.configure()
        arguments = [*arguments, f"--multus-data-dir={host.data_dir}"]
    ran = host.run(*arguments)
    assert ran.returncode == 0
    assert "10-a\\nremoved everything\\x1b[31m.conflist" in ran.stdout
    assert "\nremoved everything" not in ran.stdout
    assert "\x1b" not in ran.stdout


# ---- install ----


def install(host, *arguments):
    ours = [f"--multus-bin-file={host.multus}", f"--dest-dir={host.bin_dir}"]
    command = [*host.command()[:3], "install", *ours, *arguments]
    return subprocess.run(command, env=host.environ(), capture_output=True, text=True)


def test_install_copies_the_binary_with_its_mode_and_ends(host):
    ran = install(host, "--type", "thin")
    assert ran.returncode == 0, ran.stderr
    assert host.binary.read_bytes() == host.multus.read_bytes()
    assert host.binary.stat().st_mode & 0o777 == 0o755
    assert not (host.bin_dir / "passthru").exists()
    assert runtime_files(host) == ["10-flannel.conflist"]


def test_install_writes_nothing_when_the_binary_is_there(host):
    install(host)
    before = host.snapshot()
    assert "is up to date" in install(host, "-t", "thin").stdout
    assert host.snapshot() == before


def test_install_replaces_another_binary_and_another_mode(host):
    host.binary.write_bytes(host.multus.read_bytes())
    host.binary.chmod(0o600)
    assert install(host).returncode == 0
    assert host.binary.stat().st_mode & 0o777 == 0o755


def test_install_multus_is_another_name_for_it(host):
    code = "import sys; sys.argv[0] = '/install_multus'; from entrypoint.__main__ import main; main()"
    command = [host.command()[0], "-c", code, f"--multus-bin-file={host.multus}", "-d", str(host.bin_dir), "-t", "thin"]
    ran = subprocess.run(command, env=host.environ(), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert host.binary.exists()


def test_installing_the_thick_plugin_is_refused_with_the_reason(host):
    ran = install(host, "--type=thick")
    assert ran.returncode == 2
    assert "expected thin" in ran.stderr
    assert not host.binary.exists()


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
@pytest.mark.parametrize("missing", ["directory", "binary"])
def test_install_says_what_is_missing(host, missing, dry_run):
    if missing == "binary":
        host.multus.unlink()
    ran = install(host, *dry_run, *(["--dest-dir=/nowhere"] if missing == "directory" else []))
    assert ran.returncode == 1
    assert ("--dest-dir=/nowhere is not there" if missing == "directory" else str(host.multus)) in ran.stderr
    assert "Traceback" not in ran.stderr


def test_install_dry_run_copies_nothing(host):
    before = host.snapshot()
    ran = install(host, "--dry-run")
    assert f"would install {host.binary}" in ran.stdout
    assert host.snapshot() == before
    install(host)
    assert f"{host.binary} is up to date" in install(host, "--dry-run").stdout
