"""`check` on nodes and in clusters in every condition, by starting the real program."""

import json
import os
import pty
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
import yaml

from entrypoint.check import cluster as clustercheck
from entrypoint.check import findings, owner, plugins
from entrypoint.check import reading as kubeconfig
from entrypoint.check.findings import Finding, Status
from entrypoint.check.plugins import Programs
from entrypoint.cluster.client import Access
from entrypoint.owner import Instance
from tests.fake_api import FakeCluster, authority, other_authority, pem, serving
from tests.opshost import FLANNEL, ScratchHost, jwt
from tests.waiting import until

pytestmark = pytest.mark.process

TAINT = {"key": "example.com/x", "effect": "NoExecute"}
CLUSTER = [
    *("cluster.reachable", "cluster.token", "cluster.attachments", "cluster.rights"),
    *("networks.plugins", "networks.dhcp", "pods.networks"),
]


@pytest.fixture
def cluster():
    with serving(FakeCluster()) as served:
        yield served


@pytest.fixture
def host(tmp_path, cluster):
    """A node on which all is well."""
    made = ScratchHost(tmp_path)
    made.server = cluster.url
    made.environment["NODE_NAME"] = "node-1"
    cluster.tokens.add(made.token)
    made.master()
    made.plugins()
    made.configure()
    return made


def statuses(outcome):
    return {identifier: finding["status"] for identifier, finding in outcome.items()}


def only(outcome, *expected):
    """Assert that of all findings only these are not `pass`."""
    assert {name: status for name, status in statuses(outcome).items() if status != "pass"} == dict(expected)


def test_a_node_and_a_cluster_on_which_all_is_well_pass(host):
    outcome = host.outcome()
    only(outcome)
    assert list(outcome)[-7:] == CLUSTER
    assert len(outcome) == 22


@pytest.mark.parametrize("static", [False, True], ids=["auto", "static"])
def test_a_kubeconfig_path_that_does_not_follow_the_mount_is_found(tmp_path, static):
    host = ScratchHost(tmp_path)
    host.conf_dir = tmp_path / "var/lib/rancher/k3s/agent/etc/cni/net.d"
    host.conf_dir.mkdir(parents=True)
    host.master()
    right = "/var/lib/rancher/k3s/agent/etc/cni/net.d/multus.d/multus.kubeconfig"
    if static:
        static_conf = {"cniVersion": "0.3.1", "name": "m", "type": "multus", "delegates": [FLANNEL]}
        path = host.image / "00-multus.conf"
        path.write_text(json.dumps({**static_conf, "kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig"}))
        host.flags = [f"--multus-conf-file={path}"]
        advice = f"set its 'kubeconfig' to {right}, if that is its place on the host"
    else:
        advice = f"set --multus-kubeconfig-file-host={right}, if that is its place on the host"
    with host.running() as process:
        until(host.ready.exists)
    (warning,) = [line for line in process.log().splitlines() if "warning" in line]
    assert warning.endswith(advice)
    finding = host.node_outcome()["kubeconfig.path"]
    assert (finding["status"], finding["advice"]) == ("fail", advice)
    if not static:
        host.flags.append(f"--multus-kubeconfig-file-host={right}")
        host.configure()
        assert host.node_outcome()["kubeconfig.path"]["status"] == "pass"


def test_plugins_that_are_links_out_of_the_directory_are_not_missed(host):
    """k3s has its bundled plugins as links to a directory of its own, where this container sees nothing."""
    for name in ("flannel", "portmap"):
        (host.bin_dir / name).unlink()
        (host.bin_dir / name).symlink_to("/var/lib/rancher/k3s/data/0123/bin/cni")
    assert host.node_outcome()["plugins.present"]["status"] == "pass"
    (host.bin_dir / "portmap").unlink()
    (host.bin_dir / "portmap").symlink_to("missing")
    assert host.node_outcome()["plugins.present"]["status"] == "fail"


def test_a_kubeconfig_that_multus_is_told_to_read_and_that_is_not_there_is_found(host):
    own = host.kubeconfig.with_name("own.kubeconfig")
    own.write_text("theirs")
    host.flags.append("--multus-kubeconfig-file-host=/etc/cni/net.d/multus.d/own.kubeconfig")
    host.configure()
    assert host.node_outcome()["kubeconfig.path"]["status"] == "pass"
    own.unlink()
    finding = host.node_outcome()["kubeconfig.path"]
    assert finding["status"] == "fail"
    assert f"{own} does not exist" in finding["found"]


def test_check_changes_nothing_on_the_node(host):
    for break_it in (lambda: None, lambda: host.kubeconfig.chmod(0o644), host.generated.unlink):
        break_it()
        before = host.snapshot()
        host.outcome()
        assert host.snapshot() == before


def test_every_finding_is_explained_in_the_documentation(host, pytestconfig):
    documented = (pytestconfig.rootpath / "docs/checks.md").read_text("utf-8")
    shown = host.outcome(flags=[*host.flags, "--startup-taint=example.com/x"], NODE_NAME="node-1")
    assert len(shown) == 23
    explained = re.findall(r"^\| `([a-z]+\.[a-z]+)` \|", documented, re.MULTILINE)
    assert explained == list(shown)


# ---- whose the node is ----

CURRENT = findings.failed("kubeconfig.current", "other token", "is it running?")
MISSING = findings.failed("plugins.present", "not in /host/opt/cni/bin: bridge", "install it")


@pytest.mark.parametrize(
    ("pids", "resident", "status", "words", "current"),
    [
        ([], None, "pass", "no other", "fail"),
        ([], 1, "pass", "no other", "fail"),
        ([1], 1, "pass", "of this container", "fail"),
        ([0, 1], 1, "pass", "of this container", "fail"),
        ([0], None, "pass", "in another container", "fail"),
        ([1, 0], 1, "warn", "newer", "warn"),
        ([0], 1, "warn", "cannot do its work yet", "fail"),
    ],
    ids=["nobody", "not yet", "alone", "the newest", "none here", "an older one", "one that waits"],
)
def test_what_a_newer_instance_made_of_the_node_is_no_fault_of_an_older_one(pids, resident, status, words, current):
    instances = [Instance((rank, ""), pid) for rank, pid in enumerate(pids)]
    owning, *others = owner.judged([CURRENT, MISSING], instances, resident)
    assert (owning.identifier, owning.status) == ("node.owner", status)
    assert words in owning.found
    assert [each.status for each in others] == [current, "fail"]


# ---- a node on which everything is broken ----


def test_a_node_without_any_directory_is_told_so_and_nothing_crashes(tmp_path):
    host = ScratchHost(tmp_path)
    host.conf_dir.rmdir()
    host.bin_dir.rmdir()
    host.multus.unlink()
    outcome = host.outcome()
    assert statuses(outcome)["node.directories"] == "fail"
    assert "hostPath" in outcome["node.directories"]["advice"]
    assert statuses(outcome)["cluster.reachable"] == "skipped"
    assert not any(finding["status"] == "pass" for finding in outcome.values())


NO_BINARY = {"binary.executable": "fail", "binary.current": "skipped"}
NO_CONFIGURATION = {
    "configuration.present": "fail",
    "configuration.valid": "skipped",
    "configuration.first": "skipped",
    "configuration.current": "skipped",
    "plugins.present": "skipped",
    "kubeconfig.path": "skipped",
}
BROKEN_CONFIGURATION = {
    "configuration.valid": "fail",
    "configuration.current": "fail",
    "plugins.present": "skipped",
    "kubeconfig.path": "skipped",
}
NO_MULTUS = {**BROKEN_CONFIGURATION, "plugins.present": "fail"}
OTHER_MASTER = {"configuration.first": "fail", "configuration.current": "fail"}


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda host: host.binary.unlink(), NO_BINARY),
        (lambda host: host.binary.chmod(0o644), NO_BINARY),
        (lambda host: (host.binary.unlink(), host.binary.mkdir()), NO_BINARY),
        (lambda host: host.binary.write_bytes(b"old"), {"binary.current": "fail"}),
        (lambda host: host.multus.unlink(), {"binary.current": "fail"}),
        (lambda host: (host.bin_dir / "portmap").unlink(), {"plugins.present": "fail"}),
        (lambda host: (host.bin_dir / "portmap").chmod(0o600), {"plugins.present": "fail"}),
        (lambda host: host.master("00-a.conf", '{"name": "a", "type": "x"}'), OTHER_MASTER),
        (lambda host: (host.conf_dir / "00-a.json").write_text("{}"), {"configuration.first": "fail"}),
        (lambda host: host.generated.write_text("{"), BROKEN_CONFIGURATION),
        (lambda host: host.generated.write_text('{"name": "x", "type": "bridge"}'), NO_MULTUS),
        (lambda host: host.generated.write_text('{"name": "x", "type": "../\\u0000"}'), NO_MULTUS),
        (lambda host: host.generated.unlink(), NO_CONFIGURATION),
        (lambda host: host.master(document={**FLANNEL, "name": "changed"}), {"configuration.current": "fail"}),
        (lambda host: (host.conf_dir / "10-flannel.conflist").unlink(), {"configuration.current": "fail"}),
        (lambda host: host.master(document="cut off {"), {"configuration.current": "fail"}),
        (lambda host: (host.conf_dir / "00-multus.conflist").write_text("{}"), {"configuration.current": "fail"}),
        (lambda host: host.kubeconfig.chmod(0o644), {"kubeconfig.mode": "fail"}),
    ],
)
def test_each_damage_to_the_node_fails_the_findings_about_it_and_no_other(host, damage, expected):
    damage(host)
    only(host.node_outcome(), *expected.items())


def test_a_configuration_that_wraps_multus_in_itself_is_called_that(host):
    inner = json.loads(host.generated.read_text())
    host.generated.write_text(json.dumps({**inner, "delegates": [inner]}))
    outcome = host.node_outcome()
    only(outcome, ("configuration.valid", "fail"), ("configuration.current", "fail"))
    assert "wraps Multus in itself" in outcome["configuration.valid"]["found"]


def test_a_plugin_that_is_missing_is_named(host):
    (host.bin_dir / "portmap").unlink()
    assert "portmap (does not exist)" in host.node_outcome()["plugins.present"]["found"]


def test_a_configuration_of_half_a_million_delegates_is_gone_through_in_time():
    assert plugins.plugin_types({"delegates": [0] * 500_000}) == []


@pytest.mark.parametrize("value", ['!!int ""', "!!bool foo", '!!float ""', '!!timestamp "x"'])
def test_a_kubeconfig_with_odd_tags_is_a_finding(host, value):
    host.kubeconfig.write_text(f"users: {value}\n")
    assert host.node_outcome()["kubeconfig.valid"]["status"] == "fail"


def test_plugins_of_ipam_and_inner_delegates_are_looked_for_too():
    document = {"plugins": [{"type": "multus", "delegates": [
        {"type": "flannel", "delegate": {"type": "bridge"}},
        {"plugins": [{"type": "macvlan", "ipam": {"type": "whereabouts"}}, {"type": 5}, None]},
    ]}]}  # fmt: skip
    assert plugins.plugin_types(document) == ["multus", "flannel", "bridge", "macvlan", "whereabouts"]


def test_plugins_in_the_additional_directory_count(host):
    flags = [*host.flags, "--additional-bin-dir=/opt/more"]
    host.configure(flags)
    (host.bin_dir / "portmap").unlink()
    assert host.node_outcome(flags=flags)["plugins.present"]["status"] == "warn"  # the directory cannot be seen
    more = host.root / "host/opt/more"
    more.mkdir()
    assert host.node_outcome(flags=flags)["plugins.present"]["status"] == "fail"
    host.program(more / "portmap")
    only(host.node_outcome(flags=flags))


def test_with_a_binary_that_others_install_it_is_not_compared(host):
    host.binary.write_bytes(b"a newer one")
    only(host.node_outcome(flags=[*host.flags, "--skip-multus-binary-copy"]), ("binary.current", "skipped"))


def test_a_master_that_is_not_followed_only_warns(host):
    host.master(document={**FLANNEL, "name": "changed"})
    only(host.node_outcome(flags=[*host.flags, "--skip-config-watch"]), ("configuration.current", "warn"))


def test_a_static_configuration_is_compared_with_its_source(host):
    source = host.image / "70-multus.conf"
    source.write_text(host.generated.read_text())
    source.chmod(0o600)
    host.generated.unlink()
    flags = [f"--multus-conf-file={source}"]
    assert host.node_outcome(flags=flags)["configuration.present"]["status"] == "fail"
    (host.conf_dir / "10-flannel.conflist").rename(host.conf_dir / "90-flannel.conflist")
    copy = host.conf_dir / "70-multus.conf"
    copy.write_text(source.read_text())
    copy.chmod(0o600)
    only(host.node_outcome(flags=flags))
    copy.write_text("{}")
    assert host.node_outcome(flags=flags)["configuration.current"]["status"] == "fail"


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("00-multus.conf", {"cniVersion": "0.3.1", "name": "x", "type": "flannel"}),
        ("00-multus.conf", {"cniVersion": "0.3.1", "name": "x", "plugins": [{"type": "multus"}]}),
        ("00-multus.cfg", {"cniVersion": "0.3.1", "name": "x", "type": "multus"}),
    ],
)
def test_what_is_wrong_with_a_static_configuration_is_for_its_author_to_put_right(host, name, document):
    host.generated.unlink()
    source = host.image / name
    source.write_text(json.dumps(document))
    (host.conf_dir / name).write_text(json.dumps(document))
    outcome = host.node_outcome(flags=[f"--multus-conf-file={source}"])
    assert outcome["configuration.valid"]["status"] == "fail"
    assert outcome["configuration.valid"]["advice"] == f"correct {source}, of which it is the copy"
    assert outcome["configuration.first"]["status"] == ("skipped" if name.endswith(".cfg") else "pass")


def test_a_renamed_master_is_still_the_one_that_is_called_for(host):
    (host.conf_dir / "10-flannel.conflist").rename(host.conf_dir / "10-flannel.conflist.old")
    only(host.node_outcome(flags=[*host.flags, "--rename-conf-file"]))


# ---- kubeconfig ----


def test_an_expired_token_fails_and_says_since_when(host):
    host.rotate(jwt(time.time() - 60))
    host.configure()
    outcome = host.node_outcome()
    only(outcome, ("kubeconfig.token", "fail"))
    assert "it expired at 20" in outcome["kubeconfig.token"]["found"]


def test_a_token_that_was_rotated_and_not_followed_fails(host):
    host.rotate(jwt(time.time() + 7200))
    outcome = host.node_outcome()
    only(outcome, ("kubeconfig.current", "fail"))
    assert "other token than" in outcome["kubeconfig.current"]["found"]
    assert host.token not in json.dumps(outcome)


@pytest.mark.parametrize("difference", ["CA", "server"])
def test_a_kubeconfig_that_leads_elsewhere_says_in_what_it_differs(host, difference):
    if difference == "CA":
        with (host.account / "ca.crt").open("a") as file:
            file.write("\n# a second one\n")
        outcome = host.outcome()
    else:
        outcome = host.outcome(KUBERNETES_SERVICE_HOST="10.0.0.1")
    assert difference in outcome["kubeconfig.current"]["found"]
    only(outcome, ("kubeconfig.current", "fail"))


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b": :", b"[]", b"a: b", b"{", b"current-context: x\ncontexts: 5", b"&a [*a]", b"- - - " * 1000],
)
def test_a_kubeconfig_that_is_none_fails_without_a_traceback(host, content):
    host.kubeconfig.write_bytes(content)
    outcome = host.outcome()
    assert outcome["kubeconfig.valid"]["status"] == "fail"
    assert outcome["cluster.reachable"]["status"] == "skipped"


@pytest.mark.parametrize(
    "damage",
    [
        {"clusters": []},
        {"users": [{"name": "multus"}]},
        {"current-context": "other"},
        {"clusters": [{"name": "local", "cluster": {"server": 5, "insecure-skip-tls-verify": True}}]},
        {"clusters": [{"name": "local", "cluster": {"server": "https://x"}}]},
        {"clusters": [{"name": "local", "cluster": {"server": "https://x", "certificate-authority-data": "?"}}]},
    ],
)
def test_a_kubeconfig_with_a_part_missing_is_refused(host, damage):
    document = {**yaml.safe_load(host.kubeconfig.read_text()), **damage}
    with pytest.raises(kubeconfig.InvalidKubeconfigError):
        kubeconfig.parse(yaml.safe_dump(document).encode())


def test_a_kubeconfig_of_the_operators_own_is_looked_at_where_it_can_be_seen(host):
    flags = [*host.flags, "--multus-kubeconfig-file-host=/etc/multus/own.kubeconfig"]
    outcome = host.outcome(flags=flags)
    assert outcome["kubeconfig.present"]["status"] == "skipped"
    assert "cannot be seen" in outcome["kubeconfig.present"]["found"]
    own = host.root / "host/etc/multus/own.kubeconfig"
    own.parent.mkdir()
    own.write_bytes(host.kubeconfig.read_bytes())
    own.chmod(0o600)
    outcome = host.outcome(flags=flags)
    assert outcome["kubeconfig.present"]["status"] == "pass"
    assert outcome["kubeconfig.current"]["status"] == "skipped"
    assert outcome["cluster.token"]["status"] == "pass"


def test_a_kubeconfig_without_a_token_is_told_apart(host):
    document = yaml.safe_load(host.kubeconfig.read_text())
    document["users"][0]["user"] = {"client-certificate-data": "eA=="}
    host.kubeconfig.write_text(yaml.safe_dump(document))
    outcome = host.outcome()
    assert outcome["kubeconfig.token"]["status"] == "warn"
    assert outcome["cluster.reachable"]["status"] == "skipped"


@pytest.mark.parametrize(
    ("token", "status"),
    [
        (jwt(None), "pass"),
        (jwt(1e300), "warn"),
        (jwt("soon"), "warn"),
        ("opaque", "warn"),
        ("a.b.c", "warn"),
        ("a.W10.c", "warn"),
    ],
)
def test_tokens_that_are_not_the_usual_kind_are_judged_too(host, token, status):
    host.rotate(token)
    host.configure()
    assert statuses(host.node_outcome())["kubeconfig.token"] == status


# ---- the cluster ----


def test_an_api_server_that_is_not_there_fails_with_the_reason(host):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host.server = f"https://127.0.0.1:{free.getsockname()[1]}"
    host.configure()
    outcome = host.outcome()
    assert "Connection refused" in outcome["cluster.reachable"]["found"]
    skipped = dict.fromkeys(CLUSTER[1:], "skipped")
    only(outcome, ("cluster.reachable", "fail"), *skipped.items())


@pytest.mark.prompt
def test_an_api_server_that_does_not_answer_is_waited_for_no_longer_than_asked(host, cluster):
    cluster.silent.set()
    begun = time.monotonic()
    outcome = host.outcome("--timeout=0.5")
    assert time.monotonic() - begun < 5
    assert "no answer within" in outcome["cluster.reachable"]["found"]
    assert outcome["cluster.reachable"]["status"] == "fail"


@pytest.mark.prompt
def test_an_api_server_that_sends_a_byte_now_and_then_is_waited_for_no_longer_than_asked(host):
    stop = threading.Event()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def drip():
            connection, _ = server.accept()
            with connection, suppress(OSError):  # the program has gone meanwhile
                while not stop.wait(0.1):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX: "[:1])

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        document = yaml.safe_load(host.kubeconfig.read_text())
        document["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{server.getsockname()[1]}"
        host.kubeconfig.write_text(yaml.safe_dump(document))
        begun = time.monotonic()
        outcome = host.outcome("--timeout=1")
        assert time.monotonic() - begun < 6
        stop.set()
    assert outcome["cluster.reachable"]["status"] == "fail"


def test_a_wrong_ca_fails_and_is_named(tmp_path):
    with serving(FakeCluster(), ca=other_authority()) as cluster:
        host = ScratchHost(tmp_path)
        host.server = cluster.url
        host.environment["NODE_NAME"] = "node-1"
        host.master()
        host.plugins()
        host.configure()
        outcome = host.outcome()
        assert "its certificate is not trusted" in outcome["cluster.reachable"]["found"]
        host.configure([*host.flags, "--skip-tls-verify"])
        cluster.tokens.add(host.token)
        only(host.outcome(flags=[*host.flags, "--skip-tls-verify"]))


def test_a_token_that_the_api_server_does_not_accept_fails(host, cluster):
    cluster.tokens.clear()
    outcome = host.outcome()
    only(outcome, ("cluster.token", "fail"), *dict.fromkeys(CLUSTER[2:], "skipped").items())


def test_a_cluster_without_the_resource_fails_and_says_what_to_apply(host, cluster):
    cluster.served = False
    outcome = host.outcome()
    only(outcome, ("cluster.attachments", "fail"), ("networks.plugins", "skipped"), ("networks.dhcp", "skipped"))
    assert "CustomResourceDefinition" in outcome["cluster.attachments"]["advice"]


@pytest.mark.parametrize(
    ("denied", "status"),
    [
        ({("get", "pods")}, "fail"),
        ({("update", "pods/status")}, "fail"),
        ({("get", "network-attachment-definitions")}, "fail"),
        ({("create", "events"), ("patch", "events")}, "warn"),
        ({("create", "selfsubjectaccessreviews")}, "warn"),
    ],
)
def test_rights_that_are_not_granted_are_named(host, cluster, denied, status):
    cluster.denied |= denied
    outcome = host.outcome()
    only(outcome, ("cluster.rights", status))
    if ("create", "selfsubjectaccessreviews") not in denied:
        assert all(f"{verb} {resource}" in outcome["cluster.rights"]["found"] for verb, resource in denied)


def test_an_api_server_in_trouble_fails(host, cluster):
    cluster.failures = [503]
    assert "503" in host.outcome()["cluster.reachable"]["found"]


@pytest.mark.parametrize("status", [410, 429, 500, 503])
def test_trouble_of_the_api_server_is_not_taken_for_a_missing_right(host, cluster, status):
    """Whichever question meets it: to change the ClusterRole would help nobody."""
    cluster.add_node("node-1")
    wanted = host.settings(flags=["--multus-conf-file=auto", "--startup-taint=example.com/x"])
    access = Access(cluster.url, host.token, pem(authority()))
    programs = Programs(fault=lambda _: None, where="", unseen="", socket_there=lambda _: True)

    def asked():
        return clustercheck.findings(wanted, access, programs, timeout=20)

    assert {finding.status for finding in asked()} == {Status.PASS}
    for position in range(1, len(cluster.requests)):
        cluster.failures = [None] * position + [status]
        (troubled,) = [
            finding for finding in asked() if finding.status is not Status.PASS and str(status) in finding.found
        ]
        assert troubled.status is Status.WARN
        assert troubled.advice == "look at the API server's log, and check again"


def test_an_answer_that_nobody_foresaw_is_a_finding_and_no_traceback(host, cluster, capfd):
    cluster.add_network("odd", {"type": "macvlan"})
    cluster.networks["default", "odd"]["metadata"] = ["no", "object"]
    access = Access(cluster.url, host.token, pem(authority()))
    programs = Programs(fault=lambda _: None, where="", unseen="", socket_there=lambda _: True)
    found = {each.identifier: each for each in clustercheck.findings(host.settings(), access, programs, timeout=20)}
    assert found["cluster.rights"].status is Status.PASS
    assert found["networks.plugins"].status is Status.WARN
    assert "AttributeError" in found["networks.plugins"].found
    assert "report it" in found["networks.plugins"].advice
    assert capfd.readouterr().err == ""


def test_an_api_server_that_does_not_tell_what_it_serves_is_to_be_given_the_usual_role(host, cluster):
    cluster.failures = [None, 403]
    assert "system:discovery" in host.outcome()["cluster.attachments"]["advice"]


def test_under_a_limit_that_cannot_hold_the_client_the_cluster_part_is_skipped(host, monkeypatch, tmp_path):
    from entrypoint.check import cluster as clustercheck
    from entrypoint.cluster import memory
    from entrypoint.cluster.client import Access

    monkeypatch.setattr(memory, "room", lambda: memory.Room(limit=50 << 20, available=20 << 20))
    monkeypatch.delitem(sys.modules, "kubernetes.client.api_client", raising=False)

    class NoTaint:
        startup_taint = None

    found = clustercheck.findings(NoTaint, Access("https://x", "t", None), None, 5)
    assert {finding.status for finding in found} == {Status.SKIPPED}
    assert "set a limit of at least 56 MiB" in found[0].found
    assert findings.all_well(found)


# ---- the startup taint ----


@pytest.mark.parametrize(
    ("arrange", "status", "found"),
    [
        (lambda cluster: cluster.add_node("node-1"), "pass", "does not have"),
        (
            lambda cluster: cluster.add_node("node-1", {"key": "example.com/x", "effect": "NoExecute"}),
            "warn",
            "has the",
        ),
        (lambda cluster: cluster.denied.add(("patch", "nodes")), "fail", "patch nodes"),
        (lambda cluster: None, "fail", "not found"),
    ],
)
def test_the_startup_taint_is_looked_for_on_the_node(host, cluster, arrange, status, found):
    arrange(cluster)
    outcome = host.outcome(flags=[*host.flags, "--startup-taint=example.com/x"], NODE_NAME="node-1")
    assert outcome["cluster.taint"]["status"] == status
    assert found in outcome["cluster.taint"]["found"]


def test_a_startup_taint_without_a_node_name_fails(host):
    outcome = host.outcome(flags=[*host.flags, "--startup-taint=example.com/x"], NODE_NAME="")
    only(outcome, ("cluster.taint", "fail"), ("pods.networks", "skipped"))


# ---- rendering ----

ODD = Finding("a.b", Status.FAIL, "bad\nname \udcff \x1b[31m", "do \N{SNOWMAN}")


def test_the_table_has_one_line_a_finding_whatever_is_in_it():
    table = findings.as_table([ODD, findings.passed("c.d", "fine")], colour=False)
    assert len(table.splitlines()) == 3
    assert table.encode("utf-8").count(b"\x1b") == 0
    assert "bad\\nname \\udcff \\x1b[31m => do \N{SNOWMAN}" in table


def test_json_can_be_parsed_whatever_is_in_a_finding():
    document = json.loads(findings.as_json([ODD]))
    assert document["ok"] is False
    assert document["findings"][0]["found"] == ODD.found


def test_a_file_name_that_is_not_utf_8_is_printed_escaped(host):
    (host.conf_dir / os.fsdecode(b"00-a\xff.conf")).write_text("{}")
    ran = host.run("check")
    assert "00-a\\udcff.conf" in ran.stdout
    assert host.outcome()["configuration.first"]["status"] == "fail"


def on_terminal(host, **more):
    """Run `check` on a terminal and return what it printed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(host.command("check"), env=host.environ(TERM="xterm", **more), stdout=theirs)
    os.close(theirs)
    printed = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        printed += chunk
    os.close(ours)
    process.wait(30)
    return printed


def test_colour_is_for_terminals_and_not_with_no_color(host):
    assert b"\x1b[32mpass" in on_terminal(host)
    assert b"\x1b" not in on_terminal(host, NO_COLOR="1")
    assert "\x1b" not in host.run("check").stdout


def test_the_token_is_never_printed(host, cluster):
    cluster.tokens.clear()
    ran = host.run("check")
    assert host.token not in ran.stdout + ran.stderr


@pytest.mark.parametrize("flag", ["--timeout=soon", "--timeout=-1", "--output=xml", "--cni-version=x"])
def test_a_wrong_flag_of_check_is_a_usage_error(host, flag):
    assert host.run("check", flag).returncode == 2
