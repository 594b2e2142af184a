"""`uninstall` and `install` on a scratch host: what the commands do, say, and end with."""

import errno
import fcntl
import json
import os
from pathlib import Path
from unittest import mock

import click
import pytest

from entrypoint.disk import files
from tests.opshost import FLANNEL, ScratchHost, run_here
from tests.waiting import until

pytestmark = pytest.mark.process

BRIDGE = {"name": "mine", "type": "bridge", "cniVersion": "0.3.1"}
MULTUS = {"name": "multus-cni-network", "type": "multus", "delegates": [FLANNEL]}
SHIM = {"name": "n", "type": "multus-shim"}
AUTO = ["--multus-conf-file=auto"]
RENAMING = [*AUTO, "--rename-conf-file"]


@pytest.fixture
def host(tmp_path):
    made = ScratchHost(tmp_path)
    made.master()
    made.plugins()
    return made


@pytest.fixture
def configured(host):
    host.configure()
    return host


def uninstall(host, *arguments, **options):
    """Uninstall in this process; return the exit code and what was said."""
    ran = host.run("uninstall", f"--multus-data-dir={host.data_dir}", *arguments, **options)
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.returncode, ran.stdout


def runtime_files(host):
    return sorted(path.name for path in host.conf_dir.iterdir() if path.is_file())


def ledger(host):
    return host.kubeconfig.with_name("ledger.json")


def on_the_host(host):
    return {path: path.read_bytes() for path in host.root.glob("host/**/*") if path.is_file()}


# ---- what is taken away ----


def test_a_node_is_as_it_was_before_we_came_and_a_second_time_is_the_same_as_once(host):
    before = on_the_host(host)
    host.configure()
    ran = host.really_run("uninstall", f"--multus-data-dir={host.data_dir}")
    assert ran.returncode == 0, ran.stdout
    assert on_the_host(host) == before
    assert not host.kubeconfig.parent.exists()
    removed = [line.split(":")[0].split("/")[-1] for line in ran.stdout.splitlines() if line.startswith("removed")]
    assert removed == ["00-multus.conf", "multus.kubeconfig", "multus", "multus.d"]
    snapshot = host.snapshot()
    code, said = uninstall(host)
    assert code == 0
    assert "nothing to do" in said
    assert host.snapshot() == snapshot


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


def test_temporary_files_of_ours_go(configured):
    (configured.conf_dir / ".multus-entrypoint-00.tmp").write_text("half")
    assert uninstall(configured)[0] == 0
    assert runtime_files(configured) == ["10-flannel.conflist"]


# ---- whose it is ----


@pytest.mark.parametrize("version", ["0.3.1", "1.0.0"])
@pytest.mark.parametrize("lose", [Path.unlink, lambda ledger: ledger.write_text("{")], ids=["lost", "broken"])
def test_without_a_ledger_goes_what_has_our_form(host, version, lose):
    host.master(document={**FLANNEL, "cniVersion": version})
    before = on_the_host(host)
    host.configure()
    lose(ledger(host))
    assert uninstall(host)[0] == 0
    assert on_the_host(host) == before


@pytest.mark.parametrize(
    "content", [json.dumps(MULTUS), json.dumps(MULTUS) + "}]}"], ids=["another installer's", "cut off by another"]
)
def test_another_products_multus_stays_and_is_named_unless_it_is_forced(host, content):
    host.generated.write_text(content)
    host.kubeconfig.parent.mkdir()
    host.kubeconfig.write_text("apiVersion: v1\nusers: [{name: multus, user: {token: foreign}}]\n")
    host.program(host.binary, b"theirs")
    before = on_the_host(host)
    code, said = uninstall(host)
    assert code == 1
    assert f"kept {host.generated}: it " in said
    assert "neither the ledger nor its form says that we wrote it" in said
    host.generated.rename(host.generated.with_suffix(".away"))
    code, said = uninstall(host)
    host.generated.with_suffix(".away").rename(host.generated)
    assert code == 0
    assert f"kept {host.kubeconfig}: it does not begin as ours do" in said
    assert f"kept {host.binary}: it is not the one of this image" in said
    assert on_the_host(host) == before
    assert uninstall(host, "--force")[0] == 0
    assert sorted(path.name for path in on_the_host(host)) == ["10-flannel.conflist", "flannel", "portmap"]


@pytest.mark.parametrize(
    ("document", "why"),
    [(BRIDGE, "does not run Multus"), (SHIM, "thick"), ({"name": "n", "plugins": [{"type": "multus-shim"}]}, "thick")],
)
def test_a_file_under_our_name_that_is_not_ours_stays(host, document, why):
    host.generated.write_text(json.dumps(document))
    code, said = uninstall(host)
    assert code == 0
    assert json.loads(host.generated.read_text()) == document
    assert why in said


def test_a_multus_configuration_under_another_name_stays_and_is_named(configured):
    host, other = configured, configured.conf_dir / "70-multus.conf"
    other.write_text(json.dumps(MULTUS))
    _, announced = uninstall(host, "--dry-run")
    assert "the kubeconfig, the programs and the ledger stay: a configuration needs them" in announced
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


@pytest.mark.parametrize("source", ["as it was", "changed", "gone"])
def test_the_copy_of_a_static_configuration_goes(host, static, source):
    host.configure()
    assert (host.conf_dir / "05-multus.conf").exists()
    if source == "gone":
        static.unlink()
    elif source == "changed":
        static.write_text(json.dumps(BRIDGE))
    assert uninstall(host)[0] == 0
    assert runtime_files(host) == ["10-flannel.conflist"]


def test_a_source_that_stands_in_the_configuration_directory_itself_stays(host):
    source = host.conf_dir / "05-multus.conf"
    source.write_text(json.dumps(MULTUS))
    code, said = uninstall(host, flags=[f"--multus-conf-file={source}"])
    assert code == 1
    assert source.exists()
    assert "not a copy of it" in said


def test_static_flags_also_take_away_what_an_earlier_auto_run_left(host, static):
    host.configure(AUTO)
    assert uninstall(host)[0] == 0
    assert not host.generated.exists()


# ---- the master's name ----


def renamed(host, *more):
    host.flags = [*RENAMING, *more]
    host.configure()
    assert runtime_files(host) == ["00-multus.conf", "10-flannel.conflist.old"]


FORCED = ("--cni-version=0.4.0", "--force-cni-version")


def linked_back(host):
    """Cut off within the rename, which is a hard link that overwrites nobody's file: both names are one file then."""
    host.generated.unlink()
    os.link(host.conf_dir / "10-flannel.conflist.old", host.conf_dir / "10-flannel.conflist")


@pytest.mark.parametrize("flags", [RENAMING, AUTO], ids=["with the flag", "without it"])
@pytest.mark.parametrize(
    ("more", "happens"),
    [
        ((), lambda host: None),
        (FORCED, lambda host: None),
        ((), lambda host: host.generated.unlink()),  # an uninstall that was cut off before the rename
        ((), linked_back),
    ],
    ids=["as it is", "forced version", "cut off before", "cut off within"],
)
def test_a_renamed_master_gets_its_name_back(host, more, happens, flags):
    renamed(host, *more)
    happens(host)
    code, said = uninstall(host, flags=flags)
    assert code == 0
    assert said.index("renamed ") < (said + "removed ").index("removed ")  # the node is never without a configuration
    assert runtime_files(host) == ["10-flannel.conflist"]
    assert not host.kubeconfig.parent.exists()


def refused_link(host, monkeypatch):
    monkeypatch.setattr(os, "link", mock.Mock(side_effect=PermissionError(errno.EPERM, "Operation not permitted")))
    return "cannot rename"


def changed(host, monkeypatch):
    (host.conf_dir / "10-flannel.conflist.old").write_text("{}")
    return "it is not what 10-flannel.conflist was renamed to"


def lost_ledger(host, monkeypatch):
    ledger(host).unlink()
    return "no ledger says whether we renamed it"


@pytest.mark.parametrize("obstacle", [refused_link, changed, lost_ledger])
def test_while_the_master_cannot_have_its_name_back_everything_stays(host, monkeypatch, obstacle):
    renamed(host)
    said = obstacle(host, monkeypatch)
    before = on_the_host(host)
    code, text = uninstall(host)
    assert code == 1
    assert f"{host.conf_dir}/10-flannel.conflist.old" in text
    assert said in text
    assert "everything else stays" in text
    assert on_the_host(host) == before
    monkeypatch.undo()
    (host.conf_dir / "10-flannel.conflist.old").rename(host.master())
    assert uninstall(host)[0] == 0
    assert runtime_files(host) == ["10-flannel.conflist"]


def test_a_lock_on_the_configuration_directory_that_anybody_can_have_is_nothing_to_us(host):
    renamed(host)
    descriptor = os.open(host.conf_dir, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        assert uninstall(host)[0] == 0
    finally:
        os.close(descriptor)
    assert runtime_files(host) == ["10-flannel.conflist"]


def test_a_live_file_that_took_the_masters_name_is_not_overwritten(host):
    renamed(host)
    live = host.master(document=BRIDGE)
    code, said = uninstall(host)
    assert code == 0
    assert json.loads(live.read_text()) == BRIDGE
    assert (host.conf_dir / "10-flannel.conflist.old").exists()
    assert "there is a 10-flannel.conflist again" in said


def test_an_operators_own_old_copies_are_not_touched(host):
    own = [host.master("05-before-upgrade.conflist.old", FLANNEL).name, host.master("05-mine.conf.old", BRIDGE).name]
    host.configure()
    assert uninstall(host, flags=RENAMING)[0] == 0
    assert runtime_files(host) == [*own, "10-flannel.conflist"]


# ---- kubeconfig and binary ----


def test_a_link_in_the_place_of_our_directory_stays_and_is_no_failure(host):
    """Nobody installs into it: of its place on the host nothing can be seen."""
    (host.root / "elsewhere").mkdir()
    (host.root / "elsewhere/notes").write_text("mine")
    host.kubeconfig.parent.symlink_to(host.root / "elsewhere")
    code, said = uninstall(host)
    assert code == 0, said
    assert "nothing to do" in said
    assert host.kubeconfig.parent.is_symlink()
    assert os.listdir(host.root / "elsewhere") == ["notes"]


def test_a_directory_with_other_files_in_it_stays(configured):
    (configured.kubeconfig.parent / "notes").write_text("mine")
    code, said = uninstall(configured)
    assert code == 0
    assert not configured.kubeconfig.exists()
    assert "it holds other files" in said


@pytest.mark.parametrize(
    ("change", "flags", "why"),
    [
        (lambda host: host.binary.write_bytes(b"another"), [], "not the one of this image"),
        (lambda host: (host.multus.unlink(), ledger(host).unlink()), [], "nothing to compare it with"),
        (lambda host: (host.binary.unlink(), host.binary.symlink_to(host.multus)), [], "not the one of this image"),
        (lambda host: None, ["--skip-multus-binary-copy"], "--skip-multus-binary-copy is set"),
    ],
)
def test_a_binary_that_is_not_the_one_we_installed_stays(configured, change, flags, why):
    change(configured)
    code, said = uninstall(configured, flags=[*AUTO, *flags])
    assert code == 0
    assert os.path.lexists(configured.binary)
    assert why in said


def test_programs_that_the_ledger_has_go_whatever_the_image_has_now(host):
    plugins = host.root / "plugins"
    plugins.mkdir()
    for name in ("macvlan", "ipvlan", "changed"):
        host.program(plugins / name, name.encode())
    with host.running([*AUTO, f"--plugin-bin-dir={plugins}"]):
        until(lambda: ledger(host).exists() and len(json.loads(ledger(host).read_text())["programs"]) == 4)
    host.program(host.multus, b"another release")
    host.program(host.bin_dir / "changed", b"by the operator")
    code, said = uninstall(host)
    assert code == 0
    assert f"kept {host.bin_dir}/changed: it is not what the ledger has" in said
    assert sorted(path.name for path in host.bin_dir.iterdir()) == ["changed", "flannel", "portmap"]


def test_a_binary_that_is_its_own_source_stays(host):
    """`--multus-bin-file` may name the installed binary itself, which somebody else has put there."""
    host.program(host.binary, b"the operator's")
    host.multus = host.binary
    host.configure()
    code, said = uninstall(host)
    assert code == 0
    assert "that very file" in said
    assert host.binary.read_bytes() == b"the operator's"


def test_passthru_goes_with_multus_if_it_is_the_images(host):
    host.program(host.image / "passthru", b"passthru")
    install(host)
    assert (host.bin_dir / "passthru").exists()
    assert uninstall(host)[0] == 0
    assert not (host.bin_dir / "passthru").exists()
    assert (host.bin_dir / "flannel").exists()


# ---- pods that are still there ----


def test_pods_with_further_networks_are_a_refusal_that_names_them_and_says_what_to_do(configured):
    host = configured
    host.attach("default/web-0", "default/lan", "infra/san")
    host.attach("shop/db", "shop/lan")
    host.attach("default/plain")
    host.attach("default/chose", default="kube-system/other-default")  # nobody else frees what that took
    before = host.snapshot()
    code, said = uninstall(host)
    assert code == 1
    assert said.startswith("refused: 3 pods of this node have networks beside their default network: ")
    assert "default/web-0 (default/lan, infra/san)" in said
    assert "shop/db (shop/lan)" in said
    assert "default/chose (kube-system/other-default)" in said
    assert "delete these pods, or drain the node; with --force" in said
    for way_out in ("scale it to 0", "take the annotation k8s.v1.cni.cncf.io/networks", "cordon the node"):
        assert way_out in said  # a controller makes its pods again
    assert host.snapshot() == before


def test_pods_with_their_default_network_alone_are_in_nobodys_way(configured):
    for number in range(3):
        configured.attach(f"default/plain-{number}")
    code, said = uninstall(configured)
    assert code == 0
    assert not configured.generated.exists()
    assert "refused" not in said
    assert f"pods keep 3 records in {configured.data_dir}" in said  # nobody takes them away when the pods go


def test_with_force_it_goes_on_names_the_pods_and_leaves_the_records(configured):
    paths = configured.attach("default/web-0", "default/lan")
    code, said = uninstall(configured, "--force")
    assert code == 0
    assert "the addresses of these pods' networks stay reserved: default/web-0 (default/lan)" in said
    assert f"pods keep 1 record in {configured.data_dir}" in said
    assert not configured.generated.exists()
    assert all(path.exists() for path in paths)


def test_of_many_pods_some_are_named(host):
    for number in range(23):
        host.attach(f"default/web-{number}", "default/lan")
    code, said = uninstall(host)
    assert code == 1
    assert "refused: 23 pods" in said
    assert " and 3 more. " in said


SANDBOX = "the pod of sandbox {} (default/lan)"


def damaged(change):
    def damage(*entries):
        for path in entries:
            path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    return damage


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda of_the_runtime, _: of_the_runtime.unlink(), "default/web-0 (default/lan)"),
        (lambda _, of_multus: of_multus.write_text("{"), "default/web-0 (default/lan)"),
        (lambda of_the_runtime, of_multus: (of_the_runtime.unlink(), of_multus.write_text("{")), SANDBOX),
        (damaged({"kind": "another"}), SANDBOX),
        (damaged({"containerId": "b" * 64}), SANDBOX),
        (damaged({"cniArgs": [["K8S_POD_NAME"], 5, [1, 2]]}), SANDBOX),
        (damaged({"cniArgs": "x"}), SANDBOX),
    ],
)
def test_a_pod_is_named_by_whichever_cache_knows_it_or_else_by_its_sandbox(host, damage, named):
    record, *entries = host.attach("default/web-0", "default/lan")
    damage(*entries)
    code, said = uninstall(host)
    assert code == 1
    assert named.format(record.name[:12]) in said


@pytest.mark.parametrize("content", ["", "{}", "[{", "null", "[]"])
def test_a_damaged_record_is_named_with_what_to_do_and_is_not_waited_for(host, content):
    """Multus can give back as little with it as anybody else."""
    record, *_ = host.attach("default/web-0", "default/lan")
    record.write_text(content)
    told = f"The record {record} of default/web-0 is empty or cut off"
    for arguments, expected in (([], 1), (["--wait"], 0)):
        code, said = uninstall(host, *arguments)
        assert code == expected
        assert told in said
        assert f"crictl pods --id {record.name}" in said


def test_a_record_that_cannot_be_read_counts(host):
    record, *_ = host.attach("default/web-0", "default/lan")
    record.write_bytes(b" " * (1 << 21))
    code, said = uninstall(host)
    assert code == 1
    assert "default/web-0 (its record cannot be read)" in said


def test_only_files_named_by_64_hexadecimal_digits_are_records(host):
    (host.data_dir / "results").mkdir(parents=True)
    for name in ("a" * 63, "a" * 65, "g" * 64, "A" * 64, "f" * 64 + "-net1"):
        (host.data_dir / name).write_text("{}")
    (host.data_dir / ("b" * 64)).mkdir()
    assert uninstall(host)[0] == 0


@pytest.fixture
def namespaces(host):
    """The host's directory of network namespaces, as the uninstaller's container has it mounted."""
    directory = host.root / "host/var/run/netns"
    directory.mkdir(parents=True)
    (directory / "cni-other").touch()
    return directory


def test_a_record_whose_network_namespace_is_gone_is_left_over_and_does_not_block(host, namespaces):
    host.attach("default/gone", "default/lan", netns="/var/run/netns/cni-1")
    (namespaces / "cni-1").touch()
    assert uninstall(host)[0] == 1
    (namespaces / "cni-1").unlink()
    code, said = uninstall(host)
    assert code == 0
    assert f"passed over, left over from pods that are no more: 1 record in {host.data_dir}" in said


@pytest.mark.parametrize("mounted", [None, "run/netns", "var/run/netns"], ids=["nothing", "elsewhere", "empty"])
def test_where_no_network_namespace_is_visible_records_count_and_the_mount_is_named(host, mounted):
    """On Talos `/run/netns` is another directory than `/var/run/netns`, and no namespace is in it."""
    host.attach("default/web-0", "default/lan")
    if mounted:
        (host.root / "host" / mounted).mkdir(parents=True)
    if mounted == "run/netns":
        (host.root / "host/run/netns/other").touch()
    code, said = uninstall(host)
    assert code == 1
    assert f"no network namespace is visible there: mount /var/run/netns of the host at {host.root}/host/var" in said


@pytest.mark.parametrize("netns", [None, "/proc/4711/ns/net", "/run/other/cni-1", "/run/netns/../../gone", "", "x"])
def test_where_it_cannot_be_seen_whether_a_pod_is_gone_its_record_counts(host, namespaces, netns):
    host.attach("default/web-0", "default/lan", netns=netns)
    assert uninstall(host)[0] == 1


# ---- waiting ----


@pytest.fixture
def waiting(configured):
    """Start an uninstaller that waits, in another process; once it says that it does."""
    made = []

    def start():
        arguments = configured.arguments("uninstall", "--wait", f"--multus-data-dir={configured.data_dir}")
        made.append(configured.started(arguments, f"uninstall-{len(made)}.log"))
        made[-1].says("waiting:")
        asleep(made[-1])
        return made[-1]

    yield start
    for each in made:
        each.kill()
        each.wait()


def switches(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])


def asleep(process):
    """Wait until all its threads sleep: it has done what there was to do."""
    tasks = Path(f"/proc/{process.pid}/task").glob
    until(lambda: {each.read_text().rpartition(")")[2].split()[0] for each in tasks("*/stat")} == {"S"})


def looks_again(process, happens):
    """Do something that it must notice, and wait until it has gone to sleep again."""
    before = switches(process)
    happens()
    until(lambda: switches(process) > before)
    asleep(process)
    assert process.poll() is None


def test_it_waits_for_all_pods_to_go_sleeping_and_goes_on_by_itself(configured, waiting):
    host = configured
    first, *_ = host.attach("default/web-0", "default/lan")
    second, *_ = host.attach("default/web-1", "default/lan")
    uninstaller = waiting()
    uninstaller.says("waiting: 2 pods of this node")
    looks_again(uninstaller, first.unlink)
    third, *_ = host.attach("default/web-2", "default/lan")  # one that comes meanwhile counts as well
    looks_again(uninstaller, second.unlink)
    assert host.generated.exists()
    third.unlink()
    assert uninstaller.wait() == 0
    assert not host.generated.exists()
    assert uninstaller.log().count("waiting:") == 1


def test_a_network_namespace_that_goes_ends_the_wait_too(configured, namespaces, waiting):
    configured.attach("default/web-0", "default/lan", netns="/var/run/netns/cni-1")
    (namespaces / "cni-1").touch()
    uninstaller = waiting()
    uninstaller.says("waiting: 1 pod of this node has networks beside its default network")
    (namespaces / "cni-1").unlink()
    assert uninstaller.wait() == 0


def test_records_that_cannot_be_seen_for_a_moment_are_no_reason_to_go_on(configured, waiting):
    host, mounted, away = configured, configured.data_dir.parent, configured.root / "away"
    record, *_ = host.attach("default/web-0", "default/lan")
    uninstaller = waiting()
    looks_again(uninstaller, lambda: mounted.rename(away))
    looks_again(uninstaller, lambda: away.rename(mounted))
    assert host.generated.exists()
    record.unlink()
    assert uninstaller.wait() == 0


def holds_token(host, token):
    try:
        return f"token: {token}\n" in host.kubeconfig.read_text().replace('"', "")
    except FileNotFoundError:  # it is being written anew
        return False


def test_new_pods_have_a_valid_token_while_it_waits(configured, waiting):
    """The installer's ended with its pod: Multus would be refused, and no pod could start."""
    host = configured
    record, *_ = host.attach("default/web-0", "default/lan")
    host.rotate("of-the-uninstaller")
    uninstaller = waiting()
    until(lambda: holds_token(host, "of-the-uninstaller"))
    assert host.kubeconfig.stat().st_mode & 0o777 == 0o600
    host.rotate("renewed")
    until(lambda: holds_token(host, "renewed"))
    record.unlink()
    assert uninstaller.wait() == 0
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
        waiting()
        assert holds_token(host, token)
        installer.kill()
        until(lambda: holds_token(host, "of-the-uninstaller"))


def test_without_a_service_account_it_says_that_no_pod_can_start(configured, waiting):
    configured.attach("default/web-0", "default/lan")
    before = configured.kubeconfig.read_bytes()
    configured.account = configured.root / "none"
    waiting().says("no new pod can start")
    assert configured.kubeconfig.read_bytes() == before


def test_only_a_kubeconfig_of_ours_is_written_anew_while_it_waits(configured, waiting):
    configured.attach("default/web-0", "default/lan")
    configured.kubeconfig.write_text("theirs")
    uninstaller = waiting()
    assert configured.kubeconfig.read_text() == "theirs"
    looks_again(uninstaller, configured.kubeconfig.unlink)
    assert not configured.kubeconfig.exists()


def test_it_says_every_half_minute_what_it_waits_for(host, monkeypatch):
    monkeypatch.setattr("entrypoint.uninstall.uninstall._INTERVAL", 0.01)
    record, *_ = host.attach("default/web-0", "default/lan")
    echo, said = click.echo, []

    def hearing(line, *more, **options):
        said.append(line)
        if len(said) == 3:
            record.unlink()
        echo(line, *more, **options)

    monkeypatch.setattr(click, "echo", hearing)
    code, text = uninstall(host, "--wait")
    assert code == 0
    assert text.count("waiting: 1 pod of this node") == 3


def test_where_nothing_can_be_watched_it_looks_now_and_then(host, monkeypatch):
    record, *_ = host.attach("default/web-0", "default/lan")
    looks = iter([lambda: None, lambda: None, record.unlink])

    def no_watch_left(*_):
        next(looks)()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("entrypoint.disk.watch.Watcher.follow", no_watch_left)
    monkeypatch.setattr("entrypoint.uninstall.uninstall._UNWATCHED_INTERVAL", 0.01)
    assert uninstall(host, "--wait")[0] == 0


@pytest.mark.parametrize(("flag", "expected"), [("--force", 0), ("--dry-run", 1)])
def test_who_forces_it_or_only_asks_does_not_wait(configured, flag, expected):
    configured.attach("default/web-0", "default/lan")
    code, said = uninstall(configured, "--wait", flag)
    assert code == expected
    assert "waiting:" not in said


def test_a_signal_ends_the_wait_and_nothing_is_taken_away(configured, waiting):
    configured.attach("default/web-0", "default/lan")
    uninstaller = waiting()
    uninstaller.terminate()
    assert uninstaller.wait() == 128 + 15
    assert configured.generated.exists()


# ---- where nothing is found ----


def test_a_binary_that_is_not_where_the_flags_point_is_a_warning_that_names_the_place(configured):
    host = configured
    host.binary.unlink()
    assert "warning" not in uninstall(host, "--dry-run", "--skip-multus-binary-copy")[1]  # others install it
    for arguments, verb in ((["--dry-run"], "would remove"), ([], "removed")):
        code, said = uninstall(host, *arguments)
        assert code == 0
        assert f"{verb} {host.generated}" in said
        assert f"warning: there is no {host.binary}: if the binary was installed elsewhere" in said
        assert "--cni-bin-dir" in said
    assert "warning" not in uninstall(host)[1]  # nothing of Multus is left, so nothing is amiss


def test_where_the_records_cannot_be_seen_that_is_said(host):
    code, said = uninstall(host)
    assert code == 0
    assert f"cannot look for pods that Multus has attached: --multus-data-dir={host.data_dir}" in said
    assert "hostPath" in said


def test_a_node_on_which_multus_has_attached_no_pod_yet_has_no_records(host):
    host.data_dir.parent.mkdir(parents=True)
    code, said = uninstall(host)
    assert code == 0
    assert "cannot look" not in said


# ---- when things go wrong ----


def cannot_remove(monkeypatch, path):
    remove = files.remove

    def refusing(each):
        if each == path:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(each))
        remove(each)

    monkeypatch.setattr(files, "remove", refusing)


def test_a_configuration_that_cannot_be_removed_keeps_what_it_needs(configured, monkeypatch):
    host = configured
    cannot_remove(monkeypatch, host.generated)
    code, said = uninstall(host)
    assert code == 1
    assert f"cannot remove {host.generated}: Operation not permitted" in said
    assert host.kubeconfig.exists()
    assert host.binary.exists()
    assert "a configuration needs them" in said


def test_one_failure_does_not_keep_the_rest_from_being_tried(configured, monkeypatch):
    cannot_remove(monkeypatch, configured.kubeconfig)
    code, said = uninstall(configured)
    assert code == 1
    assert f"cannot remove {configured.kubeconfig}" in said
    assert not configured.binary.exists()
    monkeypatch.undo()
    assert uninstall(configured)[0] == 0
    assert not configured.kubeconfig.parent.exists()


def test_beside_an_entrypoint_at_work_it_refuses_and_with_wait_it_waits(host):
    with host.running() as entrypoint:
        until(host.ready.exists)
        for arguments in ([], ["--force"]):
            code, said = uninstall(host, *arguments)
            assert code == 1
            assert "refused: an entrypoint is at work on this node" in said
            assert "delete its DaemonSet first" in said
            assert all(each.exists() for each in (host.generated, host.kubeconfig, host.binary))
        waits = host.started(host.arguments("uninstall", "--wait", f"--multus-data-dir={host.data_dir}"), "wait.log")
        waits.says("waiting: an entrypoint is at work on this node")
        assert host.generated.exists()
        entrypoint.terminate()
        assert waits.wait() == 0
    assert runtime_files(host) == ["10-flannel.conflist"]


def test_two_at_once_wait_for_each_other_and_both_succeed(host):
    renamed(host)
    lock = host.kubeconfig.with_name(".multus-entrypoint.lock")
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        arguments = host.arguments("uninstall", f"--multus-data-dir={host.data_dir}")
        both = [host.started(arguments, f"uninstall-{number}.log") for number in range(2)]
        descriptors = [Path(f"/proc/{each.pid}/fd") for each in both]
        until(lambda: all(any(os.path.realpath(fd) == str(lock) for fd in each.iterdir()) for each in descriptors))
        assert host.generated.exists()
    assert [each.wait() for each in both] == [0, 0], [each.log() for each in both]
    assert sorted("nothing to do" in each.log() for each in both) == [False, True]
    assert runtime_files(host) == ["10-flannel.conflist"]
    assert not host.kubeconfig.parent.exists()


def test_a_dry_run_says_what_would_be_done_and_does_nothing(host):
    renamed(host)
    host.data_dir.mkdir(parents=True)
    before = host.snapshot()
    code, said = uninstall(host, "--dry-run")
    assert code == 0
    assert host.snapshot() == before
    for would in ("remove {0}/00-multus.conf: ", "rename {0}/10-flannel.conflist.old to 10-flannel.conflist\n",
                  "remove {0}/multus.d/multus.kubeconfig: ", "remove {0}/multus.d if it is empty\n"):  # fmt: skip
        assert f"would {would.format(host.conf_dir)}" in said
    assert f"would remove {host.binary}: " in said


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


def install(host, *arguments, name="multus-entrypoint"):
    subcommand = ["install"] if name == "multus-entrypoint" else []
    ours = [f"--multus-bin-file={host.multus}", f"--dest-dir={host.bin_dir}"]
    return run_here([*subcommand, *ours, *arguments], host.environ(), name=name)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("multus-entrypoint", ["--type", "thin"]), ("multus-entrypoint", []), ("/install_multus", ["-t", "thin"])],
)
def test_install_copies_the_binary_with_its_mode_and_ends(host, name, arguments):
    ran = install(host, *arguments, name=name)
    assert ran.returncode == 0, ran.stderr
    assert host.binary.read_bytes() == host.multus.read_bytes()
    assert host.binary.stat().st_mode & 0o777 == 0o755
    assert not (host.bin_dir / "passthru").exists()
    assert runtime_files(host) == ["10-flannel.conflist"]
    before = host.snapshot()
    assert "is up to date" in install(host, *arguments, name=name).stdout
    assert host.snapshot() == before


def test_install_replaces_another_binary_and_another_mode(host):
    for content in (host.multus.read_bytes(), b"another"):
        host.binary.write_bytes(content)
        host.binary.chmod(0o600)
        assert install(host).returncode == 0
        assert host.binary.read_bytes() == host.multus.read_bytes()
        assert host.binary.stat().st_mode & 0o777 == 0o755


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
    assert f"would install {host.binary}" in install(host, "--dry-run").stdout
    assert host.snapshot() == before
    install(host)
    assert f"{host.binary} is up to date" in install(host, "--dry-run").stdout
