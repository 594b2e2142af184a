"""`check` on nodes and in clusters in every condition: what the command prints, and its exit code."""

import json
import os
import pty
import re
import sys
import time
from contextlib import suppress

import pytest
import yaml

from entrypoint.cli import resident
from tests.fake_api import FakeCluster, other_authority, pem, serving
from tests.opshost import BEYOND, FLANNEL, OpsHost, jwt
from tests.process.scratch import MULTUS
from tests.waiting import until

pytestmark = pytest.mark.process

TAINT_FLAG, TAINT = "--startup-taint=example.com/x", {"key": "example.com/x", "effect": "NoExecute"}
CLUSTER = [
    *("cluster.reachable", "cluster.token", "cluster.attachments", "cluster.rights"),
    *("networks.plugins", "networks.dhcp", "pods.networks"),
]


@pytest.fixture
def host(tmp_path):
    """A node on which all is well, and whose API server is not there."""
    return well(OpsHost(tmp_path))


@pytest.fixture
def member(tmp_path, api):
    """A node on which all is well, of a cluster in which all is well."""
    return joined(OpsHost(tmp_path), api)


def well(host):
    host.master()
    host.plugins()
    host.configure()
    return host


def joined(host, cluster):
    host.server, host.environment["NODE_NAME"] = cluster.url, "node-1"
    cluster.tokens.add(host.token)
    return well(host)


WHERE_IT_APPLIES = {"node.mounts", "configuration.mode", "configuration.readiness", "configuration.warnings"}
"""Findings about what most nodes do not have."""


def only(outcome, *expected):
    """Assert that of all findings only these are not `pass`."""
    assert {name: each["status"] for name, each in outcome.items() if each["status"] != "pass"} == dict(expected)


def test_a_node_and_a_cluster_on_which_all_is_well_pass_and_every_finding_is_explained(member, api, pytestconfig):
    outcome = member.outcome()
    only(outcome)
    assert list(outcome)[-7:] == CLUSTER
    api.add_node("node-1")
    api.add_network("of-a-file")
    flags(member, '--multus-conf-patch={"clusterNetwork": "of-a-file"}')
    shown = member.outcome(TAINT_FLAG)
    assert set(shown) - set(outcome) == {"cluster.taint", "networks.default", "networks.files"}
    page = (pytestconfig.rootpath / "docs/checks.md").read_text("utf-8")
    documented = re.findall(r"^\| `([a-z]+\.[a-z]+)` \|", page, re.MULTILINE)
    assert [each for each in documented if each not in WHERE_IT_APPLIES] == list(shown)
    assert set(documented) - set(shown) == WHERE_IT_APPLIES
    sources = "".join(path.read_text("utf-8") for path in (pytestconfig.rootpath / "entrypoint/check").glob("*.py"))
    assert set(re.findall(r'(?:passed|warned|failed|skipped)\(\s*"([a-z]+\.[a-z]+)"', sources)) <= set(documented)


def test_check_changes_nothing_on_the_node(member):
    for break_it in (lambda: None, lambda: member.kubeconfig.chmod(0o644), member.generated.unlink):
        break_it()
        before = member.snapshot()
        member.outcome()
        assert member.snapshot() == before


def test_it_is_one_program_with_everything_that_it_needs(member, api):
    """In a process of its own, as `kubectl exec` starts it."""
    ran = member.run("check", "--output=json", execed=True)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert {each["status"] for each in json.loads(ran.stdout)["findings"]} == {"pass"}
    api.tokens.clear()
    ran = member.run("check", execed=True)
    assert ran.returncode == 1
    assert re.search(r"^fail +cluster\.token ", ran.stdout, re.MULTILINE)
    assert member.token not in ran.stdout + ran.stderr
    assert "\x1b" not in ran.stdout


# ---- one damage after the other ----

NO_BINARY = {"binary.executable": "fail", "binary.current": "skipped"}
NO_CONFIGURATION = {
    "configuration.present": "fail",
    "configuration.valid": "skipped",
    "configuration.first": "skipped",
    "configuration.current": "skipped",
    "plugins.present": "skipped",
    "kubeconfig.path": "skipped",
}
BROKEN = {
    "configuration.valid": "fail",
    "configuration.current": "fail",
    "plugins.present": "skipped",
    "kubeconfig.path": "skipped",
}
NO_MULTUS = {**BROKEN, "plugins.present": "fail"}
OTHER_MASTER = {"configuration.first": "fail", "configuration.current": "fail"}
NO_STATIC = {"configuration.valid": "fail", "kubeconfig.path": "skipped"}
NO_PLUGIN = {"plugins.present": "fail"}
KUBECONFIG = {"kubeconfig.current": "fail"}
UNSEEN = {f"kubeconfig.{part}": "skipped" for part in ("present", "valid", "mode", "current", "token")}
NOT_CURRENT = {"configuration.current": "fail"}
WARNED = {"configuration.warnings": "warn"}
DAMAGED_MASTER = {"configuration.current": "warn", **WARNED}
"""What was made of it is still in use."""


def linked(host, target):
    """k3s has its bundled plugins as links to a directory of its own, where this container sees nothing."""
    (host.bin_dir / "portmap").unlink()
    (host.bin_dir / "portmap").symlink_to(target)


def nested(host):
    inner = json.loads(host.generated.read_text())
    host.generated.write_text(json.dumps({**inner, "delegates": [inner]}))


def very_many_delegates(host):
    """Quadratic work over them would take for ever."""
    host.generated.write_text(json.dumps({"name": "x", "type": "multus", "delegates": [0] * 50_000}))


def more_plugins(host):
    ipam = {"type": "macvlan", "ipam": {"type": "whereabouts"}}
    host.master(plugins=[{"type": "flannel", "delegate": {"type": "bridge"}}, ipam])
    host.configure()


def static(host, name="70-multus.conf", **changes):
    """Bring the host into static mode."""
    document = {"cniVersion": "0.3.1", "name": "m", "type": "multus", "delegates": [FLANNEL], **changes}
    document = {key: value for key, value in document.items() if value is not None}
    document["kubeconfig"] = "/etc/cni/net.d/multus.d/multus.kubeconfig"
    source, copy = host.image / name, host.conf_dir / name
    source.write_text(json.dumps(document))
    host.generated.unlink()
    (host.conf_dir / "10-flannel.conflist").rename(host.conf_dir / "90-flannel.conflist")
    host.flags = [f"--multus-conf-file={source}"]
    with host.running():
        until(copy.exists)
    return copy


def flags(host, *more, configured=True):
    host.flags += more
    if configured:
        host.configure()


def own_kubeconfig(host):
    path = host.kubeconfig.with_name("own.kubeconfig")
    path.write_text("theirs")
    flags(host, "--multus-kubeconfig-file-host=/etc/cni/net.d/multus.d/own.kubeconfig")
    path.unlink()


def indicator(host, path, made=None):
    """Have a readiness indicator, which is there or not while `check` looks."""
    flags(host, f"--readiness-indicator-file={path}", configured=made is None)
    if made is not None:
        with host.running():
            until(lambda: path in host.generated.read_text())
            made(host.conf_dir / path.rpartition("/")[2])


def additional(host, *, mounted=True, there=True):
    """Have a plugin in the additional directory, as far as this container sees it."""
    flags(host, "--additional-bin-dir=/opt/more")
    (host.bin_dir / "portmap").unlink()
    if mounted:
        (host.root / "host/opt/more").mkdir()
    if there:
        host.program(host.root / "host/opt/more/portmap")


def client_certificate(host):
    document = yaml.safe_load(host.kubeconfig.read_text())
    document["users"][0]["user"] = {"client-certificate-data": "eA=="}
    host.kubeconfig.write_text(yaml.safe_dump(document))


CORRECT = "correct {image}/00-multus.conf, of which it is the copy"
INDICATOR = "/etc/cni/net.d/ready"
NODE = [
    (lambda host: host.binary.unlink(), NO_BINARY, ""),
    (lambda host: host.binary.chmod(0o644), NO_BINARY, ""),
    (lambda host: (host.binary.unlink(), host.binary.mkdir()), NO_BINARY, ""),
    (lambda host: host.binary.write_bytes(b"old"), {"binary.current": "fail"}, ""),
    (lambda host: host.multus.unlink(), {"binary.current": "fail"}, ""),
    (
        lambda host: (host.binary.write_bytes(b"newer"), flags(host, "--skip-multus-binary-copy", configured=False)),
        {"binary.current": "skipped"},
        "",
    ),
    (lambda host: (host.bin_dir / "portmap").unlink(), NO_PLUGIN, "portmap (does not exist)"),
    (lambda host: (host.bin_dir / "portmap").chmod(0o600), NO_PLUGIN, "portmap"),
    (lambda host: linked(host, "missing"), NO_PLUGIN, "portmap"),
    (lambda host: linked(host, "/var/lib/rancher/k3s/data/0123/bin/cni"), {}, ""),
    (more_plugins, NO_PLUGIN, ": macvlan (does not exist), bridge (does not exist), whereabouts (does not exist)"),
    (lambda host: additional(host, mounted=False, there=False), {"plugins.present": "warn"}, "are they in /opt/more"),
    (lambda host: additional(host, there=False), NO_PLUGIN, "portmap"),
    (additional, {}, ""),
    (lambda host: host.master("00-a.conf", {"cniVersion": "0.3.1", "name": "a", "type": "x"}), OTHER_MASTER, ""),
    (lambda host: (host.conf_dir / "00-a.json").write_text("{}"), {"configuration.first": "fail"}, ""),
    (lambda host: host.generated.write_text("{"), BROKEN, ""),
    (lambda host: host.generated.write_text('{"name": "x", "type": "bridge"}'), NO_MULTUS, ""),
    (lambda host: host.generated.write_text('{"name": "x", "type": "../\\u0000"}'), NO_MULTUS, ""),
    (
        very_many_delegates,
        NOT_CURRENT | {"configuration.valid": "fail", "plugins.present": "skipped", "kubeconfig.path": "skipped"},
        "",
    ),
    (nested, NOT_CURRENT | {"configuration.valid": "fail"}, "wraps Multus in itself"),
    (lambda host: host.generated.unlink(), NO_CONFIGURATION, ""),
    (lambda host: host.generated.chmod(0o620), NOT_CURRENT | {"configuration.mode": "warn"}, "has mode 620"),
    (lambda host: host.generated.chmod(0o602), NOT_CURRENT | {"configuration.mode": "warn"}, "has mode 602"),
    (lambda host: host.master(name="10-flannel.conflist", mtu=9), NOT_CURRENT, "write 00-multus.conf"),
    (lambda host: (host.conf_dir / "10-flannel.conflist").unlink(), NOT_CURRENT, ""),
    (lambda host: host.master(document="cut off {"), DAMAGED_MASTER, "10-flannel.conflist"),
    (lambda host: host.master(document='{\n  "name": "x",,\n}'), DAMAGED_MASTER, "line 2 column"),
    (lambda host: (host.conf_dir / "00-multus.conflist").write_text("{}"), NOT_CURRENT, "remove 00-multus.conflist"),
    (
        lambda host: (host.master(mtu=9), flags(host, "--skip-config-watch", configured=False)),
        {"configuration.current": "warn"},
        "",
    ),
    (lambda host: flags(host, "--rename-conf-file"), {}, ""),
    (static, {}, ""),
    (lambda host: static(host).unlink(), NO_CONFIGURATION, ""),
    (lambda host: static(host).write_text("{}"), NO_MULTUS | {"plugins.present": "skipped"}, ""),
    (lambda host: static(host, "00-multus.conf", type="flannel"), NO_STATIC, CORRECT),
    (lambda host: static(host, "00-multus.conf", type=None, plugins=[{"type": "multus"}]), NO_STATIC, CORRECT),
    (
        lambda host: static(host, "00-multus.cfg"),
        {"configuration.valid": "fail", "configuration.first": "skipped"},
        "correct {image}/00-multus.cfg, of which it is the copy",
    ),
    (lambda host: indicator(host, INDICATOR, lambda path: path.touch()), {}, ""),
    (lambda host: indicator(host, INDICATOR, lambda _: None), {"configuration.readiness": "fail"}, "does not exist"),
    (
        lambda host: indicator(host, "/run/other/ready"),
        {"configuration.readiness": "warn"},
        "Multus lets every pod wait for /run/other/ready, which this container cannot see",
    ),
    (own_kubeconfig, UNSEEN | {"kubeconfig.path": "fail"}, "own.kubeconfig does not exist"),
    (client_certificate, {"kubeconfig.current": "fail", "kubeconfig.token": "warn"}, "there is none"),
    (lambda host: host.kubeconfig.chmod(0o644), {"kubeconfig.mode": "fail"}, ""),
    (
        lambda host: (host.rotate(jwt(time.time() - 60)), host.configure()),
        {"kubeconfig.token": "fail"},
        "it expired at 20",
    ),
    (lambda host: host.rotate(jwt(time.time() + 7200)), KUBECONFIG, "other token than"),
    (
        lambda host: host.account.update(**{"token": host.token, "ca.crt": pem(other_authority())}),
        KUBECONFIG,
        "other CA than",
    ),
    (lambda host: setattr(host, "server", "https://10.0.0.1:443"), KUBECONFIG, "other server than"),
    (lambda host: host.rotate(" "), KUBECONFIG, "is empty"),
    *(
        (lambda host, token=token: (host.rotate(token), host.configure()), found, "")
        for token, found in (
            (jwt(None), {}),
            *((odd, {"kubeconfig.token": "warn"}) for odd in (jwt(1e300), jwt("soon"), "opaque", "a.b.c", "a.W10.c")),
        )
    ),
]


@pytest.mark.parametrize(("damage", "expected", "words"), NODE)
def test_each_damage_to_the_node_fails_the_findings_about_it_and_no_other(host, damage, expected, words):
    damage(host)
    outcome = host.node_outcome()
    only(outcome, *expected.items())
    said = [outcome[name]["found"] + outcome[name]["advice"] for name in expected]
    assert not expected or any(words.format(image=host.image) in each for each in said), said
    assert host.token not in json.dumps(outcome) or host.token == " "
    for each in outcome.values():
        assert each["advice"] or each["status"] in {"pass", "skipped"}, each


def test_a_node_without_any_directory_is_told_so_and_nothing_crashes(tmp_path):
    host = OpsHost(tmp_path)
    host.conf_dir.rmdir()
    host.bin_dir.rmdir()
    host.multus.unlink()
    outcome = host.outcome()
    assert outcome["node.directories"]["status"] == "fail"
    assert "volume" in outcome["node.directories"]["advice"]
    assert outcome["cluster.reachable"]["status"] == "skipped"
    assert not any(finding["status"] == "pass" for finding in outcome.values())
    assert "None" not in json.dumps(outcome)


def test_the_name_of_a_file_writes_no_line_and_no_colour_of_its_own(host):
    (host.conf_dir / os.fsdecode(b"00-a\xff\nfail  b.c \x1b[31m\xe2\x98\x83.conf")).write_text("{}")
    ran = host.run("check")
    assert "00-a\\udcff\\nfail  b.c \\x1b[31m\N{SNOWMAN}.conf" in ran.stdout
    assert len(ran.stdout.splitlines()) == 1 + len(host.outcome())
    assert host.outcome()["configuration.first"]["found"].isprintable()


@pytest.mark.parametrize("mode", ["auto", "static"])
def test_a_kubeconfig_path_that_does_not_follow_the_mount_is_found(tmp_path, mode):
    host = OpsHost(tmp_path, "var/lib/rancher/k3s/agent/etc/cni/net.d")
    host.master()
    right = "/var/lib/rancher/k3s/agent/etc/cni/net.d/multus.d/multus.kubeconfig"
    advice = f"set --multus-kubeconfig-file-host={right}, if that is its place on the host"
    if mode == "static":
        path = host.image / "00-multus.conf"
        path.write_text(json.dumps({**MULTUS, "kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig"}))
        host.flags = [f"--multus-conf-file={path}"]
        advice = f"set its 'kubeconfig' to {right}, if that is its place on the host"
    with host.running() as process:
        until(host.ready.exists)
    (warning,) = process.lines("warning")
    assert warning.endswith(advice)
    finding = host.node_outcome()["kubeconfig.path"]
    assert (finding["status"], finding["advice"]) == ("fail", advice)
    if mode == "auto":
        flags(host, f"--multus-kubeconfig-file-host={right}")
        assert host.node_outcome()["kubeconfig.path"]["status"] == "pass"


def test_a_revision_that_is_mounted_is_warned_of(tmp_path):
    host = well(OpsHost(tmp_path, "var/snap/microk8s/7/args/cni-network"))
    finding = host.node_outcome()["node.mounts"]
    assert finding["status"] == "warn"
    assert "the directory of revision 7" in finding["found"]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff\xfe", b": :", b"[]", b"a: b", b"{", b"current-context: x\ncontexts: 5", b"&a [*a]"),
        *(b"- - - " * 1000, b'users: !!int ""', b"users: !!bool foo", b'users: !!float ""', b'users: !!timestamp "x"'),
        {"clusters": []},
        {"users": [{"name": "multus"}]},
        {"current-context": "other"},
        {"clusters": [{"name": "local", "cluster": {"server": 5, "insecure-skip-tls-verify": True}}]},
        {"clusters": [{"name": "local", "cluster": {"server": "https://x"}}]},
        {"clusters": [{"name": "local", "cluster": {"server": "https://x", "certificate-authority-data": "?"}}]},
    ],
    ids=lambda content: str(content)[:40],
)
def test_a_kubeconfig_that_is_none_or_lacks_a_part_fails_without_a_traceback(host, content):
    if isinstance(content, dict):
        content = yaml.safe_dump({**yaml.safe_load(host.kubeconfig.read_text()), **content}).encode()
    host.kubeconfig.write_bytes(content)
    outcome = host.outcome()
    assert outcome["kubeconfig.valid"]["status"] == "fail"
    assert outcome["cluster.reachable"]["status"] == "skipped"


def test_a_kubeconfig_of_the_operators_own_is_looked_at_where_it_can_be_seen(member):
    flags(member, "--multus-kubeconfig-file-host=/etc/multus/own.kubeconfig", configured=False)
    outcome = member.outcome()
    assert outcome["kubeconfig.present"]["status"] == "skipped"
    assert "cannot be seen" in outcome["kubeconfig.present"]["found"]
    own = member.root / "host/etc/multus/own.kubeconfig"
    own.parent.mkdir()
    own.write_bytes(member.kubeconfig.read_bytes())
    own.chmod(0o600)
    outcome = member.outcome()
    assert outcome["kubeconfig.present"]["status"] == "pass"
    assert outcome["kubeconfig.current"]["status"] == "skipped"
    assert outcome["cluster.token"]["status"] == "pass"


# ---- whose the node is ----


def test_what_a_newer_instance_made_of_the_node_is_no_fault_of_an_older_one(host, tmp_path, monkeypatch):
    """What was forked is for `check` in another container: by its command line it is not this program."""

    def owner(process_1=0):
        monkeypatch.setattr(resident, "PID", process_1)
        ran = host.run("check", "--output=json", flags=[])
        return {each["id"]: each for each in json.loads(ran.stdout)["findings"]}

    def told(outcome, status, words):
        assert outcome["node.owner"]["status"] == status, outcome["node.owner"]
        assert words in outcome["node.owner"]["found"]

    told(owner(), "pass", "no other")
    beside = OpsHost(tmp_path / "newer")
    beside.conf_dir, beside.bin_dir = host.conf_dir, host.bin_dir
    (host.bin_dir / "portmap").unlink()
    with host.running(executed=True) as program:
        until(host.ready.exists)
        told(owner(program.pid), "pass", "of this container")
        with beside.running():
            until(lambda: beside.token in host.kubeconfig.read_text())
            outcome = owner(program.pid)
            told(outcome, "warn", "newer")
            assert outcome["kubeconfig.current"]["status"] == "warn"  # it has the newer one's token
            assert outcome["plugins.present"]["status"] == "fail"
    with beside.running():
        until(beside.ready.exists)
        outcome = owner()
        told(outcome, "pass", "in another container")
        assert outcome["kubeconfig.current"]["status"] == "fail"
        host.flags = [*host.flags, "--multus-master-cni-file-name=20-never.conflist"]
        with host.running(executed=True) as waiting:
            waiting.says("waiting for")
            outcome = owner(waiting.pid)
            told(outcome, "warn", "cannot do its work yet")
            assert outcome["kubeconfig.current"]["status"] == "fail"


# ---- the cluster ----


def test_an_api_server_that_is_not_there_fails_with_the_reason(host):
    outcome = host.outcome()
    assert "Connection refused" in outcome["cluster.reachable"]["found"]
    only(outcome, ("cluster.reachable", "fail"), *dict.fromkeys(CLUSTER[1:], "skipped").items())


def test_a_wrong_ca_fails_and_is_named(tmp_path):
    with serving(FakeCluster(), ca=other_authority()) as cluster:
        host = joined(OpsHost(tmp_path), cluster)
        assert "its certificate is not trusted" in host.outcome()["cluster.reachable"]["found"]
        flags(host, "--skip-tls-verify")
        only(host.outcome())


EVENTS = {("create", "events"), ("patch", "events")}
REVIEWS = ("create", "selfsubjectaccessreviews")
SKIPPED = dict.fromkeys(CLUSTER, "skipped")
NO_ANSWER = SKIPPED | {"cluster.reachable": "fail"}
TROUBLE = [
    (lambda cluster: cluster.silent.set(), ["--timeout=0.5"], NO_ANSWER, "no answer within"),
    (lambda cluster: cluster.failures.append(503), [], NO_ANSWER, "503"),
    (lambda cluster: cluster.tokens.clear(), [], SKIPPED | {"cluster.reachable": None, "cluster.token": "fail"}, ""),
    (
        lambda cluster: setattr(cluster, "served", False),
        [],
        {"cluster.attachments": "fail", "networks.plugins": "skipped", "networks.dhcp": "skipped"},
        "CustomResourceDefinition",
    ),
    (lambda cluster: cluster.failures.extend([None, 403]), [], {"cluster.attachments": "warn"}, "system:discovery"),
    *(
        (lambda cluster, right=right: cluster.denied.add(right), [], {"cluster.rights": "fail"}, " ".join(right))
        for right in (("get", "pods"), ("update", "pods/status"), ("get", "network-attachment-definitions"))
    ),
    (lambda cluster: cluster.denied.update(EVENTS), [], {"cluster.rights": "warn"}, "patch events"),
    (lambda cluster: cluster.denied.add(REVIEWS), [], {"cluster.rights": "warn"}, "system:basic-user"),
    (lambda cluster: cluster.add_node("node-1"), [TAINT_FLAG], {}, ""),
    (lambda cluster: cluster.add_node("node-1", TAINT), [TAINT_FLAG], {"cluster.taint": "warn"}, "has the taint"),
    (lambda cluster: cluster.denied.add(("patch", "nodes")), [TAINT_FLAG], {"cluster.taint": "fail"}, "patch nodes"),
    (lambda cluster: None, [TAINT_FLAG], {"cluster.taint": "fail"}, "not found"),
]


@pytest.mark.parametrize(("trouble", "more", "expected", "words"), TROUBLE)
def test_each_trouble_of_the_cluster_is_the_finding_about_it(member, api, trouble, more, expected, words):
    trouble(api)
    outcome = member.outcome(*more)
    only(outcome, *((name, status) for name, status in expected.items() if status))
    assert not expected or any(words in outcome[name]["found"] + outcome[name]["advice"] for name in expected)


def test_trouble_of_the_api_server_is_not_taken_for_a_missing_right(member, api):
    """Whichever question meets it: to change the ClusterRole would help nobody."""
    api.add_node("node-1")
    flags(member, TAINT_FLAG, configured=False)
    only(member.outcome())
    for position in range(1, len(api.requests)):
        status = [410, 429, 500, 503][position % 4]
        api.failures = [None] * position + [status]
        found = [each for each in member.outcome().values() if each["status"] != "pass"]
        (troubled,) = [each for each in found if str(status) in each["found"]]
        assert troubled["status"] == "warn"
        assert troubled["advice"] == "look at the API server's log, and check again"


def test_an_answer_that_nobody_foresaw_is_a_finding_and_no_traceback(member, api, monkeypatch):
    monkeypatch.setattr("entrypoint.check.networks._note", lambda *_: [].get)
    api.add_network("odd", {"type": "macvlan"})
    ran = member.run("check", "--output=json")
    assert ran.stderr == ""
    found = {each["id"]: each for each in json.loads(ran.stdout)["findings"]}
    assert found["cluster.rights"]["status"] == "pass"
    assert found["networks.plugins"]["status"] == "warn"
    assert "AttributeError" in found["networks.plugins"]["found"]
    assert "report it" in found["networks.plugins"]["advice"]


def test_under_a_limit_that_cannot_hold_the_client_the_cluster_part_is_skipped(host, monkeypatch):
    from entrypoint.cluster import client

    monkeypatch.setattr(client, "room", lambda: client.Room(limit=50 << 20, available=20 << 20))
    monkeypatch.delitem(sys.modules, "kubernetes.client.api_client", raising=False)
    outcome = host.outcome()
    assert {each["status"] for name, each in outcome.items() if name.startswith(BEYOND)} == {"skipped"}
    assert "set a limit of at least 56 MiB" in outcome["cluster.reachable"]["found"]


def test_a_startup_taint_without_a_node_name_fails(member):
    only(member.outcome(TAINT_FLAG, NODE_NAME=""), ("cluster.taint", "fail"), ("pods.networks", "skipped"))


# ---- printing ----


def on_terminal(host, **more):
    """Run `check` on a terminal and return what it printed."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        process = host.launch("check", env={"TERM": "xterm", **more}, stdout=terminal, stderr=terminal)
    printed = b""
    with suppress(OSError):  # the other end is closed
        while chunk := os.read(ours, 65536):
            printed += chunk
    os.close(ours)
    process.wait()
    return printed


def test_colour_is_for_terminals_and_not_with_no_color(host):
    host.kubeconfig.unlink()  # without one it need not load the client
    assert b"\x1b[32mpass" in on_terminal(host)
    assert b"\x1b" not in on_terminal(host, NO_COLOR="1")


@pytest.mark.parametrize("flag", ["--timeout=soon", "--timeout=-1", "--output=xml", "--cni-version=x"])
def test_a_wrong_flag_of_check_is_a_usage_error(tmp_path, flag):
    assert OpsHost(tmp_path).run("check", flag).returncode == 2
