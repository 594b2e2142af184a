"""Which configuration shall stand, what is taken away beside it, and whether the runtime uses it."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from entrypoint.node import configuration
from entrypoint.node.configuration import overtaken
from entrypoint.node.decision import parts
from entrypoint.node.ledger import Book, Put, Renamed, written
from entrypoint.node.part import LookFailedError
from tests.node import CRIO, FLANNEL, MASTERS, Node, snapshot
from tests.runtime import CONTENTS, MODES, NAMES, STATIC, put, works

CLEANUP = "--cleanup-config-on-exit"
BROKEN = b'{"name": "cut o'


@pytest.fixture
def node(tmp_path):
    found = Node(tmp_path)
    found.put("10-a.conflist", FLANNEL)
    return found


def usual(root, *flags):
    """A node of which this container sees /etc/cni/net.d, and the rest of the host."""
    node = Node(root, f"--cni-conf-dir={root}/host/etc/cni/net.d", *flags)
    node.put("10-a.conflist", FLANNEL)
    return node


# ---- random nodes ----

names = st.sampled_from(["05-a.conf", "10-b.conflist", "20-c.conf", "zz.conf"])
contents = st.sampled_from(
    [
        FLANNEL,
        CRIO,
        BROKEN,
        b"",
        b'{"name": "m", "type": "multus"}',
        (MASTERS / "10-aws-no-cniversion.conflist").read_bytes(),
    ]
)
flag_sets = st.lists(
    st.sampled_from(
        [
            "--rename-conf-file",
            CLEANUP,
            "--skip-config-watch",
            "--cni-version=1.0.0",
            "--override-network-name",
            "--skip-multus-binary-copy",
            "--multus-master-cni-file-name=10-b.conflist",
            "--skip-tls-verify",
            "--multus-conf-file={root}/70-multus.conf",
        ]
    ),
    unique=True,
)


def digest(content):
    return hashlib.sha256(content).hexdigest()


digests = st.dictionaries(names, contents.map(digest), max_size=2)
books = st.builds(
    Book,
    st.none() | st.builds(Put, st.sampled_from(["00-multus.conf", "70-multus.conf"]), contents, st.just(0o600)),
    st.none() | st.builds(Renamed, names, contents.map(digest), digests),
    digests,
)


def lay_out(root, draw):
    """Put anything at all on a node; return it with the flags of its instance."""
    node = Node(root, *(flag.format(root=root) for flag in draw(flag_sets)))
    (root / "70-multus.conf").write_bytes(draw(contents))
    for suffix, most in (("", 3), (".old", 2)):
        for name, content in draw(st.dictionaries(names, contents, max_size=most)).items():
            (node.directory / f"{name}{suffix}").write_bytes(content)
    for name in draw(st.sets(st.sampled_from(["00-multus.conf", "00-multus.conflist", "70-multus.conf"]))):
        (node.directory / name).write_bytes(draw(contents))
    node.settings.kubeconfig_file.parent.mkdir()
    node.settings.ledger_file.write_bytes(draw(books.map(written) | st.just(BROKEN)))
    for path in (node.settings.kubeconfig_file, node.settings.binary_file):
        if draw(st.booleans()):
            path.write_bytes(draw(st.sampled_from([b"", b"\x7fELF mu1tus"])))
            path.chmod(draw(st.sampled_from([0o600, 0o755])))
    (root / "sa/token").write_text(draw(st.sampled_from(["t\n", " "])))
    if draw(st.booleans()):
        (root / "sa/token").unlink()
    node.configured = draw(st.booleans())
    return node


@given(st.data())
@hypothesis_settings(max_examples=150)
def test_deciding_again_on_the_node_that_the_steps_leave_behind_wishes_nothing(tmp_path_factory, data):
    node = lay_out(tmp_path_factory.mktemp("node"), data.draw)
    node.decide()
    node.now += data.draw(st.sampled_from([0, 2, 10]))
    node.do(node.steps(node.decide()))
    assert node.steps(node.decide()) == []
    decision, configured = node.rest(), node.configured
    before = snapshot(node.root)
    node.start()  # a restart of the pod changes nothing either
    node.configured = configured
    assert node.rest().ready == decision.ready
    assert snapshot(node.root) == before


directories = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(CONTENTS), max_size=5)


@given(
    directories,
    directories,
    st.sampled_from(MODES),
    st.sampled_from([None, 0o755, 0o644]),
    st.sampled_from([0o755, 0o755, 0o644]),
    st.sampled_from([each for each in CONTENTS if each is not None]),
)
@hypothesis_settings(max_examples=200)
def test_the_node_is_ready_exactly_when_a_pod_would_get_its_networks(
    tmp_path_factory, before, later, mode, binary, source, static
):
    root = tmp_path_factory.mktemp("node")
    node = Node(root, *(flag.format(root=root) for flag in mode))
    (root / "static").mkdir()
    for name in STATIC:
        (root / "static" / name).write_bytes(static)
    (root / "src/multus").chmod(source)
    if binary is not None:
        (root / "bin/multus").write_bytes(b"somebody's")
        (root / "bin/multus").chmod(binary)
    for files in (before, later):
        put(root / "net.d", files)
        try:
            decision = node.rest()
        except OSError:
            return  # a directory stands where the file must be: the program is not ready, and says so
        if any(fault.fatal or fault.at_start for wish in decision.wishes for fault in wish.faults):
            return  # it ends with exit code 1, and no pod of the DaemonSet is ready
        if decision.ready:
            assert works(root / "net.d", root / "bin"), decision
        elif works(root / "net.d", root / "bin"):
            # Not configured although pods would get networks: only for another configuration than the wanted one.
            assert decision.messages or decision.waits or decision.warnings, decision


# ---- what is done, in which order ----


def test_the_order_is_kubeconfig_binary_configuration_removal_rename(tmp_path):
    node = Node(tmp_path, "--rename-conf-file")
    node.put("10-a.conflist", CRIO)
    node.put("00-multus.conf", {})
    assert node.touched(node.decide()) == [
        "multus.kubeconfig",
        "multus",
        "00-multus.conflist",
        "00-multus.conf",
        "10-a.conflist",
    ]


def test_a_master_of_another_version_leaves_exactly_one_configuration(node):
    for content, name in ((FLANNEL, "00-multus.conf"), (CRIO, "00-multus.conflist"), (FLANNEL, "00-multus.conf")):
        node.put("10-a.conflist", content)
        node.settle()
        assert node.names() == [name, "10-a.conflist"]
        assert node.ledger.says.configuration.name == name


def test_nothing_is_written_into_a_directory_that_is_missing(node):
    (node.directory / "10-a.conflist").unlink()
    node.directory.rmdir()
    decision = node.decide()
    assert node.touched(decision) == ["multus"]
    assert not decision.ready
    assert "--cni-conf-dir" in decision.messages[0] and "volume mounted" in decision.messages[0]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"{"), lambda path: path.chmod(0o644)])
def test_what_somebody_did_to_it_is_put_right(node, damage):
    node.settle()
    path = node.directory / "00-multus.conf"
    content = path.read_bytes()
    damage(path)
    assert node.rest().ready
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (content, 0o600)


def test_a_directory_under_its_name_is_as_good_as_nothing_and_a_link_that_leads_away_is_not(node):
    (node.directory / "00-multus.conflist").mkdir()
    (node.directory / "00-multus.conf").symlink_to("/etc/passwd")
    assert node.touched(node.decide())[-1] == "00-multus.conf"
    assert node.settle().ready
    assert not (node.directory / "00-multus.conf").is_symlink()


def test_when_the_master_goes_the_configuration_stays_with_a_warning_and_is_not_in_use(node):
    node.settle()
    (node.directory / "10-a.conflist").unlink()
    node.now = 1e6
    decision = node.settle()
    assert (node.names(), decision.ready, decision.waits) == (["00-multus.conf"], False, None)
    assert "no usable master any more, the configuration stays as it is" in decision.warnings[0]
    node.put("10-a.conflist", FLANNEL)
    assert node.settle().ready


def test_with_cleanup_it_goes_with_the_master_at_once_and_comes_back_with_it_however_late(node):
    node.start(CLEANUP)
    node.settle()
    (node.directory / "10-a.conflist").unlink()
    node.settle()
    assert (node.names(), node.ledger.says.configuration) == ([], None)
    node.now = 1e6
    node.put("10-a.conflist", FLANNEL)
    assert node.settle().ready


@pytest.mark.parametrize(("flags", "left"), [((CLEANUP,), []), ((), ["00-multus.conflist"])])
def test_what_an_earlier_run_left_goes_only_with_cleanup(tmp_path, flags, left):
    node = Node(tmp_path, *flags)
    node.put("00-multus.conflist", {})
    node.settle()
    assert node.names() == left


def test_a_frozen_master_is_not_followed_but_repaired_and_not_written_back_by_who_takes_over(tmp_path):
    node = Node(tmp_path, "--skip-config-watch")
    node.put("10-a.conflist", FLANNEL)
    node.settle()
    node.put("05-b.conflist", CRIO)
    node.settle()
    (node.directory / "00-multus.conf").unlink()
    assert node.rest().ready and node.delegate["name"] == "cbr0"
    newer = Node(tmp_path, "--skip-config-watch")
    newer.settle()
    assert newer.delegate["name"] == "crio"
    node.ledger.forget()
    node.settle()
    assert node.delegate["name"] == "crio"


@pytest.mark.parametrize("mode", [(), ("--multus-conf-file={root}/70-multus.conf",)])
def test_it_waits_for_the_program_that_it_names_and_stays_when_that_goes(tmp_path, mode):
    (tmp_path / "70-multus.conf").write_bytes(b'{"name": "n", "type": "multus", "delegates": []}')
    node = Node(tmp_path, "--skip-multus-binary-copy", CLEANUP, *(flag.format(root=tmp_path) for flag in mode))
    node.put("10-a.conflist", FLANNEL)
    decision = node.settle()
    assert (node.names(), decision.ready) == (["10-a.conflist"], False)
    assert f"waiting for an executable file {node.settings.binary_file}" in decision.waits
    node.settings.binary_file.write_bytes(b"\x7fELF")
    node.settings.binary_file.chmod(0o755)
    (node.directory / "10-a.conflist").rename(node.directory / "99-a.conflist")
    assert node.settle().ready
    node.settings.binary_file.unlink()
    decision = node.settle()
    assert len(node.names()) == 2
    assert (decision.ready, decision.waits) == (False, None)
    assert "waiting for an executable file" in decision.messages[0]


def test_the_gate_keeps_it_back_once_until_the_indicator_is_there(tmp_path):
    node = usual(tmp_path, "--wait-for-readiness-indicator", "--readiness-indicator-file=/run/x/ready")
    decision = node.settle()
    indicator = tmp_path / "host/run/x/ready"
    assert (node.names(), decision.able) == (["10-a.conflist"], False)
    assert decision.waits == f"waiting for {indicator} (--wait-for-readiness-indicator)"
    assert node.settings.kubeconfig_file.exists()
    indicator.parent.mkdir(parents=True)
    indicator.touch()
    assert node.settle().ready
    indicator.unlink()
    (node.directory / "00-multus.conf").unlink()
    decision = node.rest()
    assert (decision.ready, decision.waits) == (False, None)  # every pod waits for it, and Multus's file is back
    assert "lets every pod wait for its readiness indicator" in decision.messages[0]
    assert node.names() == ["00-multus.conf", "10-a.conflist"]


def test_the_gate_is_looked_for_where_the_host_is_mounted(tmp_path):
    flags = ("--wait-for-readiness-indicator", "--readiness-indicator-file=/run/x")
    assert Node(tmp_path, *flags).settings.readiness_gate == Path("/host/run/x")
    assert usual(tmp_path, *flags).settings.readiness_gate == tmp_path / "host/run/x"
    assert Node(tmp_path, flags[1]).settings.readiness_gate is None


# ---- the verdict: by what stands ----


@pytest.mark.parametrize(
    ("there", "ours", "is_overtaken"),
    [
        (["00-multus.conf", "10-x.conf"], "00-multus.conf", False),
        (["00-calico.conflist", "00-multus.conf"], "00-multus.conf", True),
        (["00-a.json", "00-multus.conf"], "00-multus.conf", True),
        ([".conf", "00-multus.conf"], "00-multus.conf", True),
        (["00-a.conf.bak", "00-a.cfg", "00-multus.conf"], "00-multus.conf", False),
        (["00-multus.conf", "00-multus.conflist"], "00-multus.conflist", True),
        (["00-multus.cfg", "10-x.conf"], "00-multus.cfg", False),  # no runtime reads ours, and that is said elsewhere
    ],
)
def test_what_sorts_before_ours_is_read_first(there, ours, is_overtaken):
    assert (overtaken(Path("/d"), there, ours, b"", None) is not None) is is_overtaken


def test_one_file_sorts_and_two_sort_before_ours():
    one, two = (
        overtaken(Path("/d"), [*there, "m.conf"], "m.conf", b"", None) for there in (["a.conf"], ["a.conf", "b.conf"])
    )
    assert "'a.conf' in /d sorts before" in one
    assert "'a.conf', 'b.conf' in /d sort before" in two


@pytest.mark.parametrize("name", ["00-a.json", "00-a.conf", ".conf"])
def test_a_file_that_sorts_before_ours_is_in_the_way_whatever_is_in_it(node, name):
    node.settle()
    (node.directory / name).symlink_to("nowhere")
    decision = node.settle()
    assert not decision.ready
    assert repr(name) in decision.messages[0] and "remove or rename what stands before it" in decision.messages[0]
    (node.directory / name).unlink()
    assert node.settle().ready


def test_a_step_that_is_pending_changes_nothing_that_stands(node):
    node.settle()
    node.start("--rename-conf-file")
    decision = node.decide()
    assert (node.touched(decision), decision.ready) == (["10-a.conflist"], True)
    node.put("10-a.conflist", CRIO)
    decision = node.decide()
    assert node.touched(decision) == ["00-multus.conflist", "00-multus.conf", "10-a.conflist"]
    assert decision.ready  # until it is written pods have the older one


def test_what_is_not_ours_by_the_ledger_is_not_in_use_until_it_is_taken_over(node):
    node.settle()
    node.settings.ledger_file.unlink()
    node.start()
    decision = node.decide()
    assert (node.touched(decision), decision.ready) == ([], False)
    assert node.settle().ready
    assert node.ledger.says.configuration.master == "10-a.conflist"


def test_who_stands_by_says_of_whatever_the_newer_one_wrote_whether_it_works(node):
    newer = Node(node.root, f"--multus-conf-file={node.root}/70-multus.conf")
    (node.root / "70-multus.conf").write_bytes(b'{"name": "n", "type": "multus", "delegates": []}')
    assert not node.decide(standing_by=True).ready
    (node.directory / "10-a.conflist").unlink()
    newer.settle()
    assert node.decide(standing_by=True).ready
    (node.directory / "70-multus.conf").unlink()
    assert not node.decide(standing_by=True).ready


def test_who_takes_over_gives_no_mesh_time_for_what_it_has_not_seen_itself(tmp_path):
    node = Node(tmp_path)
    node.put("10-a.conflist", CRIO)
    node.settle()
    node.parts = parts(node.settings, node.ledger, clock=lambda: node.now)
    (node.directory / "00-multus.conflist").unlink()
    assert node.touched(node.decide()) == ["00-multus.conflist"]


def test_a_kubeconfig_that_is_named_and_not_there_is_in_the_way(tmp_path):
    node = usual(tmp_path, "--multus-kubeconfig-file-host=/etc/cni/net.d/own.kubeconfig")
    decision = node.settle()
    assert not decision.ready
    assert f"{node.directory}/own.kubeconfig does not exist" in decision.messages[0]
    (node.directory / "own.kubeconfig").symlink_to("/etc/kubernetes/only-on-the-host")
    assert node.settle().ready
    assert usual(tmp_path).settle().ready
    assert usual(tmp_path, "--multus-kubeconfig-file-host=/etc/unseen/kubeconfig").settle().ready


@pytest.mark.parametrize("key", ["kubeconfig", "readinessindicatorfile"])
def test_a_name_that_no_file_can_have_ends_nothing(tmp_path, key):
    node = usual(tmp_path)
    node.put("00-a.conf", {"name": "n", "type": "multus", key: "/run/nul\0/x"})
    assert "'00-a.conf'" in node.settle().messages[0]


def test_a_readiness_indicator_that_has_another_suffix_now_is_named(tmp_path):
    node = usual(tmp_path, "--readiness-indicator-file=/etc/cni/net.d/10-a.conf")
    decision = node.settle()
    assert not decision.ready
    assert "the network's file is called 10-a.conflist now" in decision.messages[0]
    for seen, flag in ((False, "/run/not/mounted"), (True, "/etc/cni/net.d/10-a.conflist")):
        assert usual(tmp_path, f"--readiness-indicator-file={flag}").settle().ready, seen


@pytest.mark.parametrize(
    ("source", "flags", "warned"),
    [
        ("/var/lib/rancher/k3s/agent/etc/cni/net.d", (), True),
        (
            "/var/lib/rancher/k3s/agent/etc/cni/net.d",
            ("--multus-kubeconfig-file-host=/var/lib/rancher/k3s/agent/etc/cni/net.d/multus.d/multus.kubeconfig",),
            False,
        ),
        ("/etc/cni/net.d", (), False),
        (None, (), False),
    ],
)
def test_a_kubeconfig_path_that_does_not_follow_the_mount_is_warned_of(tmp_path, monkeypatch, source, flags, warned):
    monkeypatch.setattr(configuration.mounts, "of", lambda directory: source)
    node = Node(tmp_path, *flags)
    node.put("10-a.conflist", FLANNEL)
    warnings = node.settle().warnings
    assert [f"is mounted from {source}" in each for each in warnings] == ([True] if warned else [])


# ---- leaving ----


def test_without_the_flag_nothing_goes_but_what_a_hook_had_removed(node):
    node.settle()
    assert node.leave() == []
    assert node.leave(hooked={node.directory / "00-multus.conf"}) == ["00-multus.conf"]


def test_what_is_ours_by_the_ledger_goes_whoever_wrote_or_touched_it(node):
    node.settle()
    node.start(CLEANUP)
    (node.directory / "00-multus.conf").chmod(0o644)
    assert node.leave() == ["00-multus.conf"]
    assert node.names() == ["10-a.conflist"]
    assert node.leave() == []


@pytest.mark.parametrize("content", [b"{}", b"", b'{"name": "n", "type": "multus", "delegates": []}'])
def test_another_content_is_a_successors(node, content):
    node.start(CLEANUP)
    node.settle()
    node.put("00-multus.conf", content)
    assert node.leave() == []


def test_what_cannot_be_read_is_not_cleaned_up(node, monkeypatch):
    node.start(CLEANUP)
    node.settle()
    failed = configuration.Absent("cannot be read: x", missing=False, failed=True)
    monkeypatch.setattr(configuration, "output", lambda path: failed)
    with pytest.raises(LookFailedError, match="cannot be read: x"):
        node.leave()


def test_a_mesh_s_list_around_ours_goes_as_ours(node):
    node.start(CLEANUP)
    node.settle()
    multus = {key: value for key, value in node.document().items() if key not in {"cniVersion", "name"}}
    converted = {"cniVersion": "0.3.0", "name": "k8s-pod-network", "plugins": [multus, {"type": "istio-cni"}]}
    node.put("00-multus.conflist", json.dumps(converted).encode())
    assert node.leave() == ["00-multus.conf", "00-multus.conflist"]
