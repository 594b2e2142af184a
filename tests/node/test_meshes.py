"""What meshes chain behind our configuration: what shall be there, whose it is, and the time that they are given."""

import json
from pathlib import Path

import pytest

from entrypoint.disk.looks import Absent, File, signature
from entrypoint.node import meshes
from entrypoint.node.configuration import overtaken
from entrypoint.node.ledger import Put
from entrypoint.node.meshes import Output, taken_apart
from tests.meshes import CONVERTED_NAME
from tests.node import CONF, LIST, Node

NETWORK = {"cniVersion": "0.3.1", "name": "cbr0", "plugins": [{"type": "flannel"}, {"type": "portmap"}]}
MULTUS = {"type": "multus", "kubeconfig": "/k", "delegates": [NETWORK]}
LEVEL = {"cniVersion": "0.3.1", "name": "multus-cni-network"}
CONVERTED = {"cniVersion": "0.3.0", "name": CONVERTED_NAME}
ISTIO, LINKERD = {"type": "istio-cni", "log_level": "info"}, {"type": "linkerd-cni"}


def file(document, mode=0o644, number=1):
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return File(content, mode, (1, number, 0))


def listed(*following, level=LEVEL, multus=MULTUS):
    return {**level, "plugins": [multus, *following]}


def single(multus=MULTUS):
    return {**LEVEL, **multus}


def output(document, master="10-flannel.conflist"):
    name = LIST if "plugins" in document else CONF
    return Put(name, json.dumps(document).encode(), 0o600, master)


def delegate(*plugins):
    return {**MULTUS, "delegates": [{**NETWORK, "plugins": list(plugins)}]}


def standing(name, look):
    return meshes.standing({CONF: Output(CONF, Absent()), name: taken_apart(name, look)})


def settled(wanted, document, name=LIST):
    """What shall be there, as a document, and what was left out; None in place of the first for what stands."""
    look = file(document)
    found, left_out = meshes.settled(wanted, standing(name, look))
    if found.document == look.content:
        assert (found.name, found.mode) == (name, look.mode)
        return None, left_out
    assert found.mode == 0o600
    return (found.name, json.loads(found.document)), left_out


# ---- what shall be there ----


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        pytest.param(single(), listed(ISTIO, level=CONVERTED), id="a mesh made a list of it"),
        pytest.param(single(), listed(ISTIO, LINKERD, level=CONVERTED), id="two meshes"),
        pytest.param(single(), listed(level=CONVERTED), id="a mesh has left it"),
        pytest.param(single(), listed(ISTIO), id="our own carrying over, below 1.0.0"),
        pytest.param(single(), listed(ISTIO, level=CONVERTED, multus=single()), id="Istio keeps the name inside"),
        pytest.param(listed(), listed(ISTIO), id="a list"),
        pytest.param(listed(), listed({"type": "whatever", "x": [1.5]}), id="something unknown"),
        pytest.param(listed(), listed(), id="nothing chained"),
        pytest.param(single(), listed(ISTIO, level=CONVERTED, multus=dict(reversed(MULTUS.items()))), id="other order"),
    ],
)
def test_a_list_that_begins_with_ours_is_as_it_must_be(wanted, there):
    assert settled(output(wanted), there) == (None, [])


@pytest.mark.parametrize(
    ("wanted", "there", "following"),
    [
        pytest.param(single(), listed(ISTIO, multus={**MULTUS, "logLevel": "debug"}), [ISTIO], id="ours is another"),
        pytest.param(single(), listed(ISTIO, level={**LEVEL, "cniVersion": "1.0.0"}), [ISTIO], id="another version"),
        pytest.param(listed(), listed(ISTIO, level=CONVERTED), [ISTIO], id="no list that a mesh would make"),
        pytest.param(listed(), listed(ISTIO, ISTIO), [ISTIO], id="twice"),
        pytest.param(listed(), listed(ISTIO, MULTUS), [ISTIO], id="Multus again"),
        pytest.param(listed(), listed(ISTIO, {"type": ""}, {"x": 1}), [ISTIO], id="no plugins"),
        pytest.param(listed(), listed(LINKERD, ISTIO, multus=delegate()), [LINKERD, ISTIO], id="their order stays"),
    ],
)
def test_what_follows_ours_is_carried_over(wanted, there, following):
    level = {key: wanted[key] for key in ("cniVersion", "name")}
    assert settled(output(wanted), there) == ((LIST, {**level, "plugins": [MULTUS, *following]}), [])


def test_a_network_that_nests_deeply_is_not_blown_up():
    """With indentation, 60 kB of it were 20 MB: more than is read back, and than the container may take."""
    deep = [0] * 10_000
    for _ in range(380):
        deep = [deep]
    wanted = output(single(delegate({"type": "flannel", "x": deep})))
    stands = standing(LIST, file(listed(ISTIO)))
    found, _ = meshes.settled(wanted, stands)
    assert json.loads(found.document)["plugins"][1] == ISTIO
    assert len(found.document) < len(wanted.document) + 1000


@pytest.mark.parametrize(
    "there",
    [
        listed(multus={**MULTUS, "logLevel": "debug"}),
        {**LEVEL, "plugins": [ISTIO, MULTUS]},
        {**LEVEL, "plugins": [{"type": "flannel"}, ISTIO]},
        {**LEVEL, "plugins": []},
        {**LEVEL, "plugins": [MULTUS, "x"]},
        {**LEVEL, "plugins": {"0": MULTUS}},
        {**LEVEL, "plugins": [{"type": ["multus"]}]},
        [],
        b"{",
        b"",
    ],
)
def test_anything_else_is_replaced(there):
    assert settled(output(single()), there) == ((CONF, single()), [])


@pytest.mark.parametrize(
    ("inside", "following", "left"),
    [
        ([{"type": "flannel"}, LINKERD], [LINKERD], [{"type": "flannel"}]),
        ([{"type": "flannel"}, {**LINKERD, "old": True}, {"type": "portmap"}], [LINKERD], None),
        ([{"type": "flannel"}, {"type": "tuning", "a": 1}], [{"type": "tuning", "a": 1.0, "name": "n"}], "first"),
    ],
)
def test_what_is_chained_as_well_is_left_out_of_the_copy(inside, following, left):
    kept = (
        {None: [{"type": "flannel"}, {"type": "portmap"}], "first": inside[:1]}.get(left)
        if not isinstance(left, list)
        else left
    )
    before = listed(*following, level=CONVERTED, multus=delegate(*inside))
    (name, found), left_out = settled(output(single(delegate(*inside))), before)
    assert (name, found["plugins"]) == (LIST, [delegate(*kept), *following])
    assert left_out == [following[0]["type"]]
    assert settled(output(single(delegate(*inside))), {**found, **CONVERTED}) == (None, left_out)


@pytest.mark.parametrize(
    "inside",
    [
        pytest.param([LINKERD, {"type": "portmap"}], id="the first makes the network"),
        pytest.param([{"type": "flannel"}, {"type": "tuning", "a": 2}], id="another tuning does something else"),
    ],
)
def test_what_only_looks_alike_stays_in_the_copy(inside):
    there = listed(LINKERD, {"type": "tuning", "a": 1}, multus=delegate(*inside))
    assert settled(output(single(delegate(*inside))), there) == (None, [])


def test_in_a_static_list_only_meshes_are_others():
    """What else was in it is the operator's, who may take it out."""
    own = {"type": "tuning", "a": 1}
    assert settled(output(listed(), master=None), listed(own))[0] == (LIST, listed())
    assert settled(output(listed(own), master=None), listed(own, ISTIO)) == (None, [])
    assert settled(output(listed({**own, "a": 2}), master=None), listed(own, ISTIO))[0] == (
        LIST,
        listed({**own, "a": 2}, ISTIO),
    )


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"type": "flannel"}', b'{"plugins": []}'])
def test_a_static_configuration_without_multus_is_taken_as_it_is(content):
    wanted = Put("70-multus.conf", content, 0o644, None)
    assert meshes.settled(wanted, standing("70-multus.conflist", file(listed(ISTIO)))) == (wanted, [])


STRANGE = [
    {**MULTUS, "delegates": [{"plugins": [{"type": ["x"]}, {"type": {}}]}]},
    {**MULTUS, "delegates": [{"plugins": [{"type": "flannel"}, 1, None]}]},
    {**MULTUS, "delegates": [{"plugins": {}}]},
    {**MULTUS, "delegates": {"plugins": []}},
    {**MULTUS, "delegates": [[]]},
    {**MULTUS, "delegates": json.loads("[" * 900 + "]" * 900)},
]


# ---- whose it is ----


@pytest.mark.parametrize(
    ("written", "there", "ours"),
    [
        (single(), single(), True),
        (single(), listed(ISTIO, level=CONVERTED), True),
        (listed(ISTIO), listed(), True),
        (listed(), listed(ISTIO, LINKERD), True),
        (single(), listed(ISTIO, level=CONVERTED, multus={**MULTUS, "logLevel": "debug"}), False),
        (listed(), listed(ISTIO, level={**LEVEL, "cniVersion": "1.0.0"}), False),
        (single(), NETWORK, False),
    ],
)
def test_what_a_mesh_has_rewritten_is_ours_still(written, there, ours):
    assert meshes.is_ours(json.dumps(there).encode(), json.dumps(written).encode()) is ours


def test_without_anything_written_nothing_is_ours():
    assert not meshes.is_ours(json.dumps(single()).encode(), None)


# ---- a file of the mesh's own, before ours ----


@pytest.mark.parametrize(
    ("name", "document", "message"),
    [
        ("00-istio.conflist", listed(ISTIO, level={**LEVEL, "name": "x"}), None),
        ("00-istio.conflist", listed(ISTIO, multus={**MULTUS, "logLevel": "debug"}), "older form"),
        ("00-istio.conflist", NETWORK, "will not use Multus"),
        ("00-istio.conf", listed(ISTIO), "will not use Multus"),
        ("00-istio.conflist", b"{", "will not use Multus"),
    ],
)
def test_a_list_of_a_mesh_s_own_that_begins_with_ours_is_as_good(name, document, message):
    ours = json.dumps(single()).encode()
    said = overtaken(Path("/net.d"), [name, CONF], CONF, ours, taken_apart(name, file(document)))
    assert said is None if message is None else message in said


def test_another_file_before_both_is_in_the_way(tmp_path):
    ours, names = json.dumps(single()).encode(), ["00-istio.conflist", CONF, "00-a.conf"]
    assert "00-a.conf" in overtaken(tmp_path, names, CONF, ours, taken_apart("00-istio.conflist", file(listed(ISTIO))))


# ---- on a node ----


class Meshed(Node):
    """A node on which Multus is in use, and where others write what a test says."""

    def __init__(self, root, *flags):
        super().__init__(root, *flags)
        self.put("10-flannel.conflist", NETWORK)
        self.rest()
        self.own = self.document()
        self.at(200.0)

    def at(self, now, **documents):
        """Write what others do under our names at a time, `conf=None` removes; return what is decided then."""
        self.now = now
        for key, document in documents.items():
            path = self.directory / f"00-multus.{key}"
            if document is None:
                path.unlink(missing_ok=True)
            else:
                self.put(path.name, document)
        return self.decide()

    def network(self, *more):
        self.put("10-flannel.conflist", {**NETWORK, "plugins": [*NETWORK["plugins"], *more]})

    def converted(self, *following):
        multus = {key: value for key, value in self.own.items() if key != "cniVersion"}
        return {**CONVERTED, "plugins": [multus, *following]}


@pytest.fixture
def node(tmp_path):
    return Meshed(tmp_path)


def held(node, decision):
    """Return until when a mesh is left alone."""
    assert (node.touched(decision), decision.ready) == ([], True)  # as it was
    return node.until(decision)


def written(node, decision):
    """Return the configuration that is to be written."""
    (step,) = [step for step in node.steps(decision) if hasattr(step, "content")]
    return json.loads(step.content)


def test_a_converted_list_is_left_alone_and_is_ours(node):
    decision = node.at(200.0, conf=None, conflist=node.converted(ISTIO))
    assert (node.touched(decision), decision.ready, node.until(decision)) == ([], True, None)
    node.settle()
    assert node.ledger.says.configuration.name == LIST


@pytest.mark.parametrize(
    "standing",
    [
        pytest.param({"conf": "converted"}, id="Istio has not renamed it yet"),
        pytest.param({"conflist": "converted"}, id="Linkerd has not removed the other yet"),
        pytest.param({"conflist": b'{"plug'}, id="a script is writing it"),
        pytest.param({"conflist": b""}, id="a script has made it"),
    ],
)
def test_a_mesh_that_converts_has_a_second_to_end(node, standing):
    documents = {key: node.converted(ISTIO) if value == "converted" else value for key, value in standing.items()}
    assert held(node, node.at(200.0, **documents)) == held(node, node.at(200.5)) == 200.0 + meshes.HANDOVER
    node.at(201.0)
    assert node.once()
    assert node.settle().ready and len(node.names()) == 2


def test_a_list_that_is_gone_or_cut_off_is_awaited_for_a_moment(node):
    for state in (None, b"", b'{"cni'):
        node.at(190.0, conf=None, conflist=node.converted(ISTIO))
        assert held(node, node.at(200.0, conflist=state)) == held(node, node.at(200.1)) == 200.0 + meshes.REWRITE
        assert written(node, node.at(200.3)) == node.own


def test_a_single_configuration_that_is_gone_is_put_back_as_soon_as_it_cannot_be_one_that_is_moved(node):
    assert held(node, node.at(200.0, conf=None)) == 200.0 + meshes.MOVE
    assert written(node, node.at(200.0 + meshes.MOVE)) == node.own


def test_one_that_is_gone_again_before_it_was_seen_is_dated_anew(node):
    """Otherwise it would be taken for one that has been gone since before it was written."""
    node.at(200.0, conf=None)
    node.at(200.1)
    node.once()
    decision = node.at(300.0, conf=None)
    assert (node.touched(decision), node.until(decision)) == ([], 300.0 + meshes.MOVE)


def test_a_list_that_is_moved_before_it_was_seen_is_awaited(tmp_path):
    """Linkerd's old script answers the very first write: what is put back meanwhile would be written twice."""
    node = Node(tmp_path)
    node.put("10-flannel.conflist", {**NETWORK, "cniVersion": "1.0.0"})
    node.do(node.steps(node.decide()))
    (node.directory / LIST).unlink()
    decision = node.decide()
    assert (node.touched(decision), node.until(decision)) == ([], node.now + meshes.REWRITE)
    node.now += meshes.REWRITE
    assert node.touched(node.decide()) == [LIST]


@pytest.mark.parametrize("state", [b"", b'{"cni', {"type": "flannel"}])
def test_a_single_configuration_that_is_broken_is_put_right_at_once(node, state):
    assert written(node, node.at(200.0, conf=state)) == node.own


def test_a_list_with_another_first_plugin_is_replaced_at_once(node):
    node.at(190.0, conf=None, conflist=node.converted(ISTIO))
    other = {**node.converted(ISTIO), "plugins": [{"type": "flannel"}]}
    assert written(node, node.at(200.0, conflist=other)) == node.own


def test_a_mesh_on_its_way_through_both_files_has_a_second_from_the_later(node):
    node.network(LINKERD)  # and ours is without it still
    assert held(node, node.at(200.0)) == held(node, node.at(200.2)) == 201.0
    assert held(node, node.at(200.7, conf=None, conflist=node.converted())) == 201.7
    assert node.touched(node.at(201.1, conflist=node.converted(LINKERD))) == []


def test_a_mesh_that_is_in_both_is_left_out_of_the_copy_when_it_has_come_to_rest(node):
    """Until then the other mesh may come, too, and each write is answered by both."""
    node.network(ISTIO, LINKERD)
    node.rest()
    node.own = node.document()
    assert held(node, node.at(300.0, conf=None, conflist=node.converted(LINKERD))) == 301.0
    decision = node.at(301.0)
    multus, following = written(node, decision)["plugins"]
    assert ([each["type"] for each in multus["delegates"][0]["plugins"]][2:], following) == (["istio-cni"], LINKERD)
    assert "linkerd-cni of 10-flannel.conflist is chained behind Multus as well" in decision.warnings[0]


def test_a_mesh_that_stays_in_the_network_s_file_is_wrapped_after_a_second(node):
    node.network(ISTIO)
    assert held(node, node.at(200.0)) == 201.0
    assert written(node, node.at(201.0))["delegates"][0]["plugins"][-1] == ISTIO


def test_any_other_change_of_the_network_is_followed_at_once_and_what_follows_ours_carried_over(node):
    node.at(190.0, conf=None, conflist=node.converted(ISTIO))
    node.network({"type": "bandwidth"})
    decision = node.at(200.0)
    assert written(node, decision)["plugins"][1:] == [ISTIO]
    # And never over what the mesh has written since.
    assert node.steps(decision)[-1].over == signature((node.directory / LIST).stat())


@pytest.mark.parametrize("changed", [{"capabilities": {"portMappings": True}}, {"log_level": "debug"}])
def test_a_plugin_of_the_network_that_changes_is_followed_at_once(node, changed):
    node.network(ISTIO)
    node.rest()
    node.network({**ISTIO, **changed})
    assert node.touched(node.at(300.0)) == [CONF]


@pytest.mark.parametrize("multus", STRANGE)
@pytest.mark.parametrize("name", [CONF, LIST])
def test_nothing_that_stands_there_is_too_strange_to_be_replaced(node, name, multus):
    document = listed({"type": ["y"]}, LINKERD, multus=multus) if name == LIST else single(multus)
    node.at(200.0, conf=None)
    node.at(200.0, **{name.rpartition(".")[2]: document})
    ours = json.dumps(node.own).encode()
    assert not meshes.is_ours(json.dumps(document).encode(), ours)
    assert overtaken(Path("/d"), ["00-a.conflist", CONF], CONF, ours, taken_apart("00-a.conflist", file(document)))
    assert node.rest().ready
    assert node.delegate == NETWORK


def test_who_looks_once_takes_every_file_for_what_it_is(node):
    from entrypoint.node.decision import decide_once

    node.at(200.0, conflist=node.converted(ISTIO))
    assert node.touched(decide_once(node.settings, running=True)) == [CONF]
