"""`uninstall` and `install` on a scratch host: what the commands do, say, and end with."""

import errno
import fcntl
import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import click
import pytest

from entrypoint.disk import files
from tests.opshost import FLANNEL, OpsHost, run_here
from tests.process.scratch import MULTUS, Volume, open_files
from tests.waiting import until

pytestmark = pytest.mark.process

BRIDGE = {"name": "mine", "type": "bridge", "cniVersion": "0.3.1"}
SHIM = {"name": "n", "type": "multus-shim"}
AUTO = ["--multus-conf-file=auto"]
RENAMING = [*AUTO, "--rename-conf-file"]
MASTER, OLD = "10-flannel.conflist", "10-flannel.conflist.old"


@pytest.fixture
def host(tmp_path):
    made = OpsHost(tmp_path)
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
    (host.conf_dir / ".multus-entrypoint-00.tmp").write_text("half")
    ran = host.run("uninstall", f"--multus-data-dir={host.data_dir}", execed=True)
    assert ran.returncode == 0, ran.stdout
    assert on_the_host(host) == before
    assert not host.kubeconfig.parent.exists()
    removed = [line.split(":")[0].split("/")[-1] for line in ran.stdout.splitlines() if line.startswith("removed /")]
    assert removed == ["00-multus.conf", "multus.kubeconfig", "multus", "multus.d"]
    snapshot = host.snapshot()
    code, said = uninstall(host)
    assert code == 0
    assert "nothing to do" in said
    assert host.snapshot() == snapshot


def test_a_node_on_which_nothing_was_ever_installed_is_left_alone_and_one_that_is_not_mounted_is_not_clean(tmp_path):
    host = OpsHost(tmp_path)
    host.bin_dir.rmdir()
    before = host.snapshot()
    assert uninstall(host)[0] == 0
    assert host.snapshot() == before
    host.conf_dir.rmdir()
    code, said = uninstall(host)
    assert code == 1
    assert f"{host.conf_dir} is not there: is the volume mounted" in said


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


def test_passthru_goes_with_multus_if_it_is_the_images(host):
    host.program(host.image / "passthru", b"passthru")
    install(host)
    assert (host.bin_dir / "passthru").exists()
    assert uninstall(host)[0] == 0
    assert sorted(path.name for path in host.bin_dir.iterdir()) == ["flannel", "portmap"]


# ---- whose it is ----


@pytest.mark.parametrize("version", ["0.3.1", "1.0.0"])
@pytest.mark.parametrize("lose", [Path.unlink, lambda ledger: ledger.write_text("{")], ids=["lost", "broken"])
def test_without_a_ledger_goes_what_has_our_form(host, version, lose):
    host.master(cniVersion=version)
    host.master("05-mine.conf.old", BRIDGE)  # beside a live network nobody need ask whose it is
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
    assert sorted(path.name for path in on_the_host(host)) == [MASTER, "flannel", "portmap"]


def put(host, document, name="00-multus.conf"):
    path = host.conf_dir / name
    path.write_text(json.dumps(document))
    return path


def own_source(host):
    """`--multus-conf-file` may name the very file that the runtime reads, which somebody else has put there."""
    path = put(host, MULTUS, "05-multus.conf")
    host.flags = [f"--multus-conf-file={path}"]
    return path


def own_binary(host):
    """So may `--multus-bin-file`."""
    host.program(host.binary, b"the operator's")
    host.multus = host.binary
    host.configure()
    return host.binary


def other_binary(host, change, *flags):
    host.configure()
    host.flags = [*AUTO, *flags]
    change(host)
    return host.binary


def other_directory(host):
    """Nobody installs into a link: of its place on the host nothing can be seen."""
    (host.root / "elsewhere").mkdir()
    (host.root / "elsewhere/notes").write_text("mine")
    host.kubeconfig.parent.symlink_to(host.root / "elsewhere")
    return host.kubeconfig.parent / "notes"


def notes(host):
    host.configure()
    (host.kubeconfig.parent / "notes").write_text("mine")
    return host.kubeconfig.parent / "notes"


def live_again(host):
    renamed(host)
    host.master(document=BRIDGE)
    return host.conf_dir / OLD


KEPT = [
    (lambda host: put(host, BRIDGE), 0, "does not run Multus"),
    (lambda host: put(host, SHIM), 0, "thick"),
    (lambda host: put(host, {"name": "n", "plugins": [SHIM]}), 0, "thick"),
    (own_source, 1, "not a copy of it"),
    (own_binary, 0, "that very file"),
    (lambda host: other_binary(host, lambda host: host.binary.write_bytes(b"x")), 0, "not the one of this image"),
    (
        lambda host: other_binary(host, lambda host: (host.multus.unlink(), ledger(host).unlink())),
        0,
        "nothing to compare it with",
    ),
    (
        lambda host: other_binary(host, lambda host: (host.binary.unlink(), host.binary.symlink_to(host.multus))),
        0,
        "not the one of this image",
    ),
    (
        lambda host: other_binary(host, lambda _: None, "--skip-multus-binary-copy"),
        0,
        "--skip-multus-binary-copy is set",
    ),
    (other_directory, 0, "nothing to do"),
    (notes, 0, "it holds other files"),
    (live_again, 0, "there is a 10-flannel.conflist again"),
]


@pytest.mark.parametrize(("arrange", "expected", "why"), KEPT)
def test_what_is_not_ours_stays_and_the_reason_is_named(host, arrange, expected, why):
    kept = arrange(host)
    master, content = (host.conf_dir / MASTER).read_bytes(), kept.read_bytes() if kept.exists() else b""
    code, said = uninstall(host)
    assert code == expected
    assert why in said
    assert os.path.lexists(kept)
    assert not kept.exists() or kept.read_bytes() == content
    assert (host.conf_dir / MASTER).read_bytes() == master
    if kept == host.kubeconfig.parent / "notes":
        assert os.listdir(host.kubeconfig.parent) == ["notes"]


def test_a_multus_configuration_under_another_name_stays_and_is_named(configured):
    host, other = configured, put(configured, MULTUS, "70-multus.conf")
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


@pytest.mark.parametrize("source", ["as it was", "changed", "gone", "never used"])
def test_the_copy_of_a_static_configuration_goes_and_what_an_earlier_run_made(host, source):
    static = host.image / "05-multus.conf"
    static.write_text(json.dumps(MULTUS))
    host.flags = [f"--multus-conf-file={static}"]
    host.configure(AUTO if source == "never used" else None)
    assert host.generated.exists() == (source == "never used")
    if source == "gone":
        static.unlink()
    elif source == "changed":
        static.write_text(json.dumps(BRIDGE))
    assert uninstall(host)[0] == 0
    assert runtime_files(host) == [MASTER]


# ---- the master's name ----


def renamed(host, *more):
    host.flags = [*RENAMING, *more]
    host.configure()
    assert runtime_files(host) == ["00-multus.conf", OLD]


FORCED = ("--cni-version=0.4.0", "--force-cni-version")


def linked_back(host):
    """Cut off within the rename, which is a hard link that overwrites nobody's file: both names are one file then."""
    host.generated.unlink()
    os.link(host.conf_dir / OLD, host.conf_dir / MASTER)


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
    directory = os.open(host.conf_dir, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)  # which anybody can have
    code, said = uninstall(host, flags=flags)
    os.close(directory)
    assert code == 0
    assert said.index("renamed ") < (said + "removed ").index("removed ")  # the node is never without a configuration
    assert runtime_files(host) == [MASTER]
    assert not host.kubeconfig.parent.exists()


def refused_link(host, monkeypatch):
    monkeypatch.setattr(os, "link", mock.Mock(side_effect=PermissionError(errno.EPERM, "Operation not permitted")))
    return "cannot rename"


def changed(host, monkeypatch):
    (host.conf_dir / OLD).write_text("{}")
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
    assert f"{host.conf_dir}/{OLD}" in text
    assert said in text
    assert "everything else stays" in text
    assert on_the_host(host) == before
    monkeypatch.undo()
    (host.conf_dir / OLD).rename(host.master())
    assert uninstall(host)[0] == 0
    assert runtime_files(host) == [MASTER]


def test_an_operators_own_old_copies_are_not_touched(host):
    own = [host.master("05-before-upgrade.conflist.old", FLANNEL).name, host.master("05-mine.conf.old", BRIDGE).name]
    host.configure()
    assert uninstall(host, flags=RENAMING)[0] == 0
    assert runtime_files(host) == [*own, MASTER]


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
    assert said.startswith("refused: pods of this node have networks beside their default network (3): ")
    for named in ("default/web-0 (default/lan, infra/san)", "shop/db (shop/lan)", "chose (kube-system/other-default)"):
        assert named in said
    assert "delete these pods, or drain the node; with --force" in said
    for way_out in ("scale it to 0", "take the annotation k8s.v1.cni.cncf.io/networks", "cordon the node"):
        assert way_out in said  # a controller makes its pods again
    assert host.snapshot() == before
    for number in range(20):
        host.attach(f"default/web-1{number}", "default/lan")
    code, said = uninstall(host, "--wait", "--dry-run")  # who only asks does not wait
    assert code == 1
    assert " and 3 more. " in said


def test_pods_with_their_default_network_alone_are_in_nobodys_way(configured):
    for number in range(3):
        configured.attach(f"default/plain-{number}")
    code, said = uninstall(configured)
    assert code == 0
    assert not configured.generated.exists()
    assert "refused" not in said
    assert f"records of pods that stay in {configured.data_dir}: 3. Nobody reads them" in said


def test_with_force_it_goes_on_names_the_pods_and_leaves_the_records(configured):
    paths = configured.attach("default/web-0", "default/lan")
    code, said = uninstall(configured, "--force", "--wait")  # and does not wait
    assert code == 0
    assert "the addresses of these pods' networks stay reserved" in said
    assert ": default/web-0 (default/lan)\n" in said
    assert f"records of pods that stay in {configured.data_dir}: 1." in said
    assert "waiting" not in said
    assert not configured.generated.exists()
    assert all(path.exists() for path in paths)


NAMED, SANDBOX = "default/web-0 (default/lan)", "the pod of sandbox {sandbox} (default/lan)"
DAMAGED = "The record {record} of default/web-0 is empty or cut off"
NO_NAMESPACE = "no network namespace is visible there: mount /var/run/netns of the host at {root}/host/var/run/netns"
LEFT_OVER = "records of pods that stay in {root}/host/var/lib/cni/multus: 1. Nobody"


def nothing(*_):
    pass


def entries_with(**change):
    def damage(_, *entries):
        for path in entries:
            path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    return damage


RECORDS = [
    # which pod it is: the runtime's cache knows it, and Multus's
    (lambda _, of_the_runtime, of_multus: of_the_runtime.unlink(), {}, 1, NAMED),
    (lambda _, of_the_runtime, of_multus: of_multus.write_text("{"), {}, 1, NAMED),
    (lambda _, of_the_runtime, of_multus: (of_the_runtime.unlink(), of_multus.write_text("{")), {}, 1, SANDBOX),
    (entries_with(kind="another"), {}, 1, SANDBOX),
    (entries_with(containerId="b" * 64), {}, 1, SANDBOX),
    (entries_with(cniArgs=[["K8S_POD_NAME"], 5, [1, 2]]), {}, 1, SANDBOX),
    (entries_with(cniArgs="x"), {}, 1, SANDBOX),
    # what cannot be read
    *(
        (lambda record, *_, text=text: record.write_text(text), {}, 1, DAMAGED)
        for text in ("", "{}", "[{", "null", "[]")
    ),
    (lambda record, *_: record.write_bytes(b" " * (1 << 21)), {}, 1, "default/web-0 (its record cannot be read)"),
    # whether it is gone: by its network namespace, where others are seen
    (nothing, {"sees": ["var/run/netns/other"]}, 0, LEFT_OVER),
    (nothing, {"sees": ["var/run/netns/other", "var/run/netns/cni-1"]}, 1, NAMED),
    (nothing, {}, 1, NO_NAMESPACE),
    (nothing, {"sees": ["run/netns/other"]}, 1, NO_NAMESPACE),  # on Talos that is another directory
    (lambda record, *_: (record.parents[3] / "run/netns").mkdir(parents=True), {}, 1, NO_NAMESPACE),
    *(
        (nothing, {"sees": ["var/run/netns/other"], "netns": netns}, 1, NAMED)
        for netns in (None, "/proc/4711/ns/net", "/run/other/cni-1", "/run/netns/../../gone", "", "x")
    ),
]


@pytest.mark.parametrize(("happens", "node", "expected", "words"), RECORDS)
def test_a_record_counts_unless_its_pod_is_seen_to_be_gone(host, happens, node, expected, words):
    record, *entries = host.attach("default/web-0", "default/lan", netns=node.get("netns", "/var/run/netns/cni-1"))
    for path in node.get("sees", []):
        (host.root / "host" / path).parent.mkdir(parents=True, exist_ok=True)
        (host.root / "host" / path).touch()
    happens(record, *entries)
    code, said = uninstall(host)
    assert code == expected
    assert words.format(record=record, sandbox=record.name[:12], root=host.root) in said


def test_a_damaged_record_is_named_with_what_to_do_and_is_not_waited_for(host):
    """Multus can give back as little with it as anybody else."""
    record, *_ = host.attach("default/web-0", "default/lan")
    record.write_text("[{")
    code, said = uninstall(host, "--wait")
    assert code == 0
    assert f"crictl pods --id {record.name}" in said


def test_only_files_named_by_64_hexadecimal_digits_are_records(host):
    (host.data_dir / "results").mkdir(parents=True)
    for name in ("a" * 63, "a" * 65, "g" * 64, "A" * 64, "f" * 64 + "-net1"):
        (host.data_dir / name).write_text("{}")
    (host.data_dir / ("b" * 64)).mkdir()
    assert uninstall(host)[0] == 0


def test_where_the_records_cannot_be_seen_that_is_said_unless_multus_has_attached_no_pod_yet(host):
    code, said = uninstall(host)
    assert code == 0
    assert f"cannot look for pods that Multus has attached: --multus-data-dir={host.data_dir}" in said
    assert "hostPath" in said
    host.data_dir.parent.mkdir(parents=True)
    code, said = uninstall(host)
    assert code == 0
    assert "cannot look" not in said


# ---- waiting ----


@pytest.fixture
def waiting(configured):
    """Start an uninstaller that waits, in another process; once it says that it does, and sleeps."""
    with ExitStack() as stack:

        def start():
            uninstaller = configured.start("uninstall", "--wait", f"--multus-data-dir={configured.data_dir}")
            uninstaller = stack.enter_context(uninstaller)
            uninstaller.says("waiting:")
            asleep(uninstaller)
            return uninstaller

        yield start


def asleep(uninstaller):
    """Wait until all its threads sleep: it has done what there was to do."""
    until(lambda: min(uninstaller.sleeps().values(), default=0) > 0 or not uninstaller.running())
    assert uninstaller.running(), uninstaller.log


def looks_again(uninstaller, happens):
    """Do something that it must notice, and wait until it has gone to sleep again."""
    before = uninstaller.switches()
    happens()
    until(lambda: uninstaller.switches() != before)
    asleep(uninstaller)


def test_it_waits_for_all_pods_to_go_sleeping_and_goes_on_by_itself(configured, waiting):
    host, mounted, away = configured, configured.data_dir.parent, configured.root / "away"
    first, *_ = host.attach("default/web-0", "default/lan", netns=None)
    host.attach("default/web-1", "default/lan", netns="/var/run/netns/cni-1")
    namespace = host.root / "host/var/run/netns/cni-1"
    namespace.parent.mkdir(parents=True)
    namespace.touch()
    uninstaller = waiting()
    uninstaller.says("waiting: pods of this node have networks beside their default network (2)")
    looks_again(uninstaller, first.unlink)
    looks_again(uninstaller, lambda: mounted.rename(away))  # what cannot be seen for a moment is no reason to go on
    looks_again(uninstaller, lambda: away.rename(mounted))
    third, *_ = host.attach("default/web-2", "default/lan", netns=None)  # one that comes meanwhile counts as well
    looks_again(uninstaller, third.unlink)
    assert host.generated.exists()
    namespace.unlink()
    assert uninstaller.ends() == 0
    assert not host.generated.exists()


def test_new_pods_have_a_valid_token_while_it_waits(configured, waiting):
    """The installer's ended with its pod: Multus would be refused, and no pod could start."""
    host = configured
    record, *_ = host.attach("default/web-0", "default/lan")
    host.rotate("of-the-uninstaller")
    uninstaller = waiting()
    until(lambda: host.has_token("of-the-uninstaller"))
    assert host.kubeconfig.stat().st_mode & 0o777 == 0o600
    host.rotate("renewed")
    until(lambda: host.has_token("renewed"))
    record.unlink()
    assert uninstaller.ends() == 0
    assert not host.kubeconfig.parent.exists()
    assert uninstaller.log.count("meanwhile") == 1


def test_the_token_is_the_installers_as_long_as_that_runs(host, waiting):
    with host.running() as installer:
        until(host.ready.exists)
        host.attach("default/web-0", "default/lan")
        token, authority = host.token, (host.account.path / "ca.crt").read_text()
        host.account = Volume(host.root / "other", **{"token": "of-the-uninstaller", "ca.crt": authority})
        waiting()
        assert host.has_token(token)
        installer.stop(signal.SIGKILL)
        until(lambda: host.has_token("of-the-uninstaller"))


def test_without_a_service_account_it_says_that_no_pod_can_start(configured, waiting):
    configured.attach("default/web-0", "default/lan")
    before = configured.kubeconfig.read_bytes()
    configured.account = Volume(configured.root / "none")
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
    assert text.count("waiting: pods of this node") == 3


def test_where_nothing_can_be_watched_it_looks_now_and_then(host, monkeypatch):
    record, *_ = host.attach("default/web-0", "default/lan")
    looks = iter([lambda: None, lambda: None, record.unlink])

    def no_watch_left(*_):
        next(looks)()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("entrypoint.disk.watch.Watcher.follow", no_watch_left)
    monkeypatch.setattr("entrypoint.uninstall.uninstall._UNWATCHED_INTERVAL", 0.01)
    assert uninstall(host, "--wait")[0] == 0


def test_a_signal_ends_the_wait_and_nothing_is_taken_away(configured, waiting):
    configured.attach("default/web-0", "default/lan")
    assert waiting().stop() == 128 + 15
    assert configured.generated.exists()


# ---- when things go wrong ----


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


@pytest.mark.parametrize(("what", "words"), [("generated", "a configuration needs them"), ("kubeconfig", "next run")])
def test_what_cannot_be_removed_keeps_what_it_needs_and_nothing_else(configured, monkeypatch, what, words):
    host, path, remove = configured, getattr(configured, what), files.remove

    def refusing(each):
        if each == path:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(each))
        remove(each)

    monkeypatch.setattr(files, "remove", refusing)
    code, said = uninstall(host)
    assert code == 1
    assert f"cannot remove {path}: Operation not permitted" in said
    assert words in said
    assert host.kubeconfig.exists()
    assert host.binary.exists() == host.generated.exists() == (what == "generated")
    monkeypatch.undo()
    assert uninstall(host)[0] == 0
    assert not host.kubeconfig.parent.exists()


def test_beside_an_entrypoint_at_work_it_refuses_and_with_wait_it_waits(host):
    with host.running() as entrypoint:
        until(host.ready.exists)
        for arguments in ([], ["--force"]):
            code, said = uninstall(host, *arguments)
            assert code == 1
            assert "refused: an entrypoint is at work on this node" in said
            assert "delete its DaemonSet first" in said
            assert all(each.exists() for each in (host.generated, host.kubeconfig, host.binary))
        with host.start("uninstall", "--wait", f"--multus-data-dir={host.data_dir}") as waits:
            waits.says("waiting: an entrypoint is at work on this node")
            assert host.generated.exists()
            entrypoint.stop()
            assert waits.ends() == 0
    assert runtime_files(host) == [MASTER]


def test_two_at_once_wait_for_each_other_and_both_succeed(host):
    renamed(host)
    lock, arguments = host.kubeconfig.with_name(".multus-entrypoint.lock"), f"--multus-data-dir={host.data_dir}"
    held = os.open(lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    with host.start("uninstall", arguments) as one, host.start("uninstall", arguments) as other:
        until(lambda: all(str(lock) in open_files(each.pid) for each in (one, other)))
        assert host.generated.exists()
        os.close(held)
        assert [one.ends(), other.ends()] == [0, 0], one.log + other.log
        assert sorted("nothing to do" in each.log for each in (one, other)) == [False, True]
    assert runtime_files(host) == [MASTER]
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
@pytest.mark.parametrize("before", [None, "the same", "another"])
def test_install_copies_the_binary_with_its_mode_and_ends(host, name, arguments, before):
    if before:
        host.binary.write_bytes(b"another" if before == "another" else host.multus.read_bytes())
        host.binary.chmod(0o600)
    snapshot = host.snapshot()
    assert f"would install {host.binary}" in install(host, *arguments, "--dry-run", name=name).stdout
    assert host.snapshot() == snapshot
    ran = install(host, *arguments, name=name)
    assert ran.returncode == 0, ran.stderr
    assert host.binary.read_bytes() == host.multus.read_bytes()
    assert host.binary.stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in host.bin_dir.iterdir()) == ["flannel", "multus", "portmap"]
    assert runtime_files(host) == [MASTER]
    snapshot = host.snapshot()
    for dry_run in ([], ["--dry-run"]):
        assert f"{host.binary} is up to date" in install(host, *arguments, *dry_run, name=name).stdout
    assert host.snapshot() == snapshot


def test_installing_the_thick_plugin_is_refused_with_the_reason(host):
    ran = install(host, "--type=thick")
    assert ran.returncode == 2
    assert "expected thin" in ran.stderr
    assert not host.binary.exists()


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_install_says_what_is_missing(host, dry_run):
    ran = install(host, *dry_run, "--dest-dir=/nowhere")
    assert ran.returncode == 1
    assert "--dest-dir=/nowhere is not there" in ran.stderr
    host.multus.unlink()
    ran = install(host, *dry_run)
    assert ran.returncode == 1
    assert f"--multus-bin-file={host.multus} does not exist: does the image carry" in ran.stderr
