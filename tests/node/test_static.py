import json

import pytest

from entrypoint.node.decision import parts
from tests.meshes import CONVERTED_NAME
from tests.node import CRIO, FLANNEL, Node, settings_for

PLUGIN = {"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus", "delegates": []}
STATIC = json.dumps(PLUGIN).encode()
ISTIO = {"type": "istio-cni"}


class Static(Node):
    """A node with a static configuration, which is called and holds what a test says."""

    def __init__(self, root, content=STATIC, name="70-multus.conf", *flags):
        self.source = root / "images" / name
        self.source.parent.mkdir()
        self.source.write_bytes(content)
        self.source.chmod(0o640)
        super().__init__(root, f"--multus-conf-file={self.source}", *flags)

    def wish(self):
        return self.decide().wishes[2]


def converted(*following, **changes):
    multus = {key: value for key, value in PLUGIN.items() if key not in {"cniVersion", "name"}}
    return {"cniVersion": "0.3.0", "name": CONVERTED_NAME, "plugins": [{**multus, **changes}, *following]}


def test_it_is_copied_under_its_name_with_its_mode_and_again_when_it_changes(tmp_path):
    node = Static(tmp_path)
    assert node.settle().ready
    copy = node.directory / "70-multus.conf"
    assert (copy.read_bytes(), copy.stat().st_mode & 0o777) == (STATIC, 0o640)
    node.source.write_bytes(STATIC + b"\n")
    node.source.chmod(0o644)
    assert node.settle().ready
    assert (copy.read_bytes(), copy.stat().st_mode & 0o777) == (STATIC + b"\n", 0o644)


@pytest.mark.parametrize("content", [b'{"x": ', b" " * ((1 << 20) + 1), None, "directory"])
def test_one_that_is_no_good_ends_a_start_and_later_leaves_what_stands_and_the_node_ready(tmp_path, content):
    node = Static(tmp_path)
    node.settle()
    node.source.unlink()
    if content == "directory":
        node.source.mkdir()
    elif content is not None:
        node.source.write_bytes(content)
    decision = node.decide()
    (fault,) = decision.wishes[2].faults
    assert fault.at_start and str(fault).startswith(f"--multus-conf-file={node.source}")
    assert (node.touched(decision), decision.ready) == ([], True)
    (node.directory / "70-multus.conf").unlink()
    node.rest()
    assert (node.directory / "70-multus.conf").read_bytes() == STATIC


def test_with_a_file_that_the_runtime_reads_first_the_node_is_not_configured(tmp_path):
    node = Static(tmp_path)
    node.put("10-flannel.conflist", b"whatever is in it")
    node.put("80-later.conf", b"")
    decision = node.settle()
    (fault,) = decision.wishes[2].faults
    assert not decision.ready
    assert "'10-flannel.conflist'" in fault.found and "80-later" not in fault.found
    assert "remove or rename" in fault.todo


def test_one_that_the_runtime_would_not_read_first_takes_the_place_of_none_that_works(tmp_path):
    node = Node(tmp_path)
    node.put("10-flannel.conflist", FLANNEL)
    assert node.settle().ready
    (tmp_path / "70-multus.conf").write_bytes(STATIC)
    node.start(f"--multus-conf-file={tmp_path}/70-multus.conf")
    for _ in range(2):
        decision = node.settle()
        assert (node.names(), decision.ready, decision.able) == (["00-multus.conf", "10-flannel.conflist"], True, False)
        assert "'10-flannel.conflist'" in decision.messages[0] and "before 70-multus.conf" in decision.messages[0]
        assert decision.warnings == ["00-multus.conf stays until 70-multus.conf would be read first"]
        node.start()
    (node.directory / "10-flannel.conflist").unlink()
    assert node.settle().able
    assert node.names() == ["70-multus.conf"]


def test_who_stands_by_is_ready_with_what_a_newer_one_wrote_and_has_not_noted_yet(tmp_path):
    node = Static(tmp_path)
    node.put("10-flannel.conflist", FLANNEL)
    node.put("00-multus.conf", STATIC)
    assert node.decide(standing_by=True).wishes[2].in_use


def test_of_who_takes_over_with_another_name_it_is_put_back_although_it_was_gone_before_it_was_seen(tmp_path):
    node = Node(tmp_path)
    node.put("10-flannel.conflist", FLANNEL)
    node.settle()
    (tmp_path / "05-own.conf").write_bytes(STATIC)
    node.settings = settings_for(tmp_path, f"--multus-conf-file={tmp_path}/05-own.conf")
    node.parts = parts(node.settings, node.ledger, clock=lambda: node.now)  # of one that had put something before
    node.do(node.steps(node.decide()))
    (node.directory / "05-own.conf").unlink()
    assert node.rest().ready
    assert node.names() == ["05-own.conf", "10-flannel.conflist"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("00-multus.cfg", STATIC, "no CNI runtime reads"),
        ("00-multus.conf", b'{"name": "n", "plugins": [{"type": "multus"}]}', "only read from a .conflist"),
        ("00-multus.conflist", STATIC, "must hold a list"),
        ("00-multus.conf", b'{"name": "n", "type": "bridge"}', "runs 'bridge' and not Multus"),
        ("00-multus.conf", b'{"name": "n", "type": "multus-shim"}', "runs 'multus-shim' and not the 'multus'"),
        ("00-multus.conf", b'{"type": "multus"}', "has no 'name'"),
        ("00-multus.conf", b"[]", "found a list"),
    ],
)
def test_one_that_no_runtime_uses_is_copied_and_leaves_the_node_not_configured(tmp_path, name, content, why):
    node = Static(tmp_path, content, name)
    decision = node.rest()
    assert (node.directory / name).read_bytes() == content
    assert not decision.ready
    assert why in str(decision.wishes[2].faults)


def test_what_a_mesh_makes_of_it_is_as_it_must_be_and_what_follows_is_carried_over(tmp_path):
    node = Static(tmp_path)
    node.settle()
    (node.directory / "70-multus.conf").unlink()
    node.put("70-multus.conflist", converted(ISTIO))
    decision = node.rest()
    assert (node.names(), decision.ready) == (["70-multus.conflist"], True)
    node.source.write_bytes(json.dumps({**PLUGIN, "logLevel": "debug"}).encode())
    node.rest()
    assert node.names() == ["70-multus.conflist"]
    multus, following = node.document("70-multus.conflist")["plugins"]
    assert (multus["logLevel"], following) == ("debug", ISTIO)
    assert node.uninstall()[0] == "70-multus.conflist"


def test_one_that_is_its_own_source_is_the_operators_and_is_never_removed(tmp_path):
    node = Node(tmp_path, f"--multus-conf-file={tmp_path}/net.d/05-own.conf", "--cleanup-config-on-exit")
    node.put("05-own.conf", STATIC)
    assert node.settle().ready
    assert node.ledger.says.configuration is None
    assert node.leave() == []
    assert "05-own.conf" not in node.uninstall()
    assert (node.directory / "05-own.conf").read_bytes() == STATIC


def test_our_copy_is_the_operators_once_it_is_named_as_its_own_source(tmp_path):
    node = Static(tmp_path)
    node.settle()
    node.start(f"--multus-conf-file={node.directory}/70-multus.conf", "--cleanup-config-on-exit")
    assert node.settle().ready
    assert node.ledger.says.configuration is not None
    assert node.leave() == []


def test_the_generated_file_of_an_earlier_run_goes_and_an_operators_of_that_name_stays(tmp_path):
    node = Node(tmp_path)
    node.put("10-a.conflist", CRIO)
    node.settle()
    assert node.names() == ["00-multus.conflist", "10-a.conflist"]
    (tmp_path / "00-static.conf").write_bytes(STATIC)
    node.start(f"--multus-conf-file={tmp_path}/00-static.conf")
    assert node.settle().ready
    assert node.names() == ["00-static.conf", "10-a.conflist"]
    node.put("00-multus.conflist", CRIO)
    node.settle()
    assert (node.directory / "00-multus.conflist").read_bytes() == CRIO


def test_while_nobody_can_read_it_all_stays_as_it_is(tmp_path, monkeypatch):
    node = Static(tmp_path)
    node.settle()
    from entrypoint.disk import looks
    from entrypoint.node import static

    failed = looks.Absent("cannot be read: Input/output error", missing=False, failed=True)
    monkeypatch.setattr(static, "read", lambda path: failed)
    decision = node.decide()
    assert node.touched(decision) == []
    (error,) = decision.failed
    assert error.at_start and "Input/output error" in str(error)
