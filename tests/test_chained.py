import json
import math
from pathlib import Path

import pytest
from entrypoint.node.plan import decide, decide_removal
from entrypoint.node.values import Output
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.cni.document import equal
from entrypoint.disk.looks import Absent, File
from entrypoint.node import chained, handover, verdict
from tests.meshes import CONVERTED_NAME, go_format, go_parse
from tests.node import START, after, master, seen, settings_for

NETWORK = {"cniVersion": "0.3.1", "name": "cbr0", "plugins": [{"type": "flannel"}, {"type": "portmap"}]}
MULTUS = {"type": "multus", "kubeconfig": "/k", "delegates": [NETWORK]}
LEVEL = {"cniVersion": "0.3.1", "name": "multus-cni-network"}
CONVERTED = {"cniVersion": "0.3.0", "name": CONVERTED_NAME}
ISTIO, LINKERD = {"type": "istio-cni", "log_level": "info"}, {"type": "linkerd-cni"}
CONF, LIST = "00-multus.conf", "00-multus.conflist"


def file(document, mode=0o644, number=1):
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return File(content, mode, (1, number, 0))


def listed(*following, level=LEVEL, multus=MULTUS):
    return {**level, "plugins": [multus, *following]}


def single(multus=MULTUS):
    return {**LEVEL, **multus}


def output(document, master="10-flannel.conflist", name=None):
    name = name or (LIST if "plugins" in document else CONF)
    return Output(name, json.dumps(document).encode(), 0o600, master)


def delegate(*plugins):
    return {**MULTUS, "delegates": [{**NETWORK, "plugins": list(plugins)}]}


def settled(wanted, document, name=LIST):
    """What shall be there, as a document, and what was left out; None in place of the first for what stands."""
    look = file(document)
    found, left_out = chained.settled(wanted, chained.standing({CONF: Absent(), LIST: Absent(), name: look}))
    if found.content == look.content:
        assert (found.file_name, found.mode) == (name, look.mode)
        return None, left_out
    assert found.mode == 0o600
    return (found.file_name, json.loads(found.content)), left_out


# ---- equality ----

documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Go's parser and ours differ in nothing else that a document may hold.
    | st.text(st.characters(codec="utf-8") | st.sampled_from("\ud800\udc00<>&\u2028"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab<\u00e9", max_size=2), inner, max_size=3),
    max_leaves=12,
)


@given(documents)
def test_what_an_installer_written_in_go_has_rewritten_is_equal(document):
    assert equal(document, json.loads(go_format(go_parse(json.dumps(document).encode()))))


@given(documents, documents)
def test_what_is_equal_is_the_same_to_go(one, other):
    same = go_format(go_parse(json.dumps(one).encode())) == go_format(go_parse(json.dumps(other).encode()))
    assert equal(one, other) == same


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ([1, 2], [2, 1], False),
        (1, 1.0, True),
        (True, 1, False),
        (False, 0, False),
        (None, False, False),
        (None, [None], False),
        (True, [True], False),
        ("1", 1, False),
        (2**53, 2**53 + 1, True),
        (2**53, 2**53 + 2, False),
        ("\ud800", "\ufffd", True),
        ("\ud83d\ude00", "\U0001f600", True),
        ({"a": None}, {}, False),
        (math.pi, 3, False),
    ],
)
def test_equal_as_go_sees_it(one, other, same):
    assert equal(one, other) is same
    assert equal({"x": [one]}, {"x": [other]}) is same


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
    stands = chained.standing({LIST: file(listed(ISTIO))})
    found, _ = chained.settled(wanted, stands)
    assert json.loads(found.content)["plugins"][1] == ISTIO
    assert len(found.content) < len(wanted.content) + 1000


def test_what_stands_under_the_wrong_name_is_carried_over_too():
    found, _ = settled(output(single()), listed(ISTIO, level=CONVERTED), name=CONF)
    assert found == (LIST, {**LEVEL, "plugins": [MULTUS, ISTIO]})


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
    wanted = Output("70-multus.conf", content, 0o644, None)
    assert chained.settled(wanted, chained.standing({"70-multus.conflist": file(listed(ISTIO))})) == (wanted, [])


STRANGE = [
    {**MULTUS, "delegates": [{"plugins": [{"type": ["x"]}, {"type": {}}]}]},
    {**MULTUS, "delegates": [{"plugins": [{"type": "flannel"}, 1, None]}]},
    {**MULTUS, "delegates": [{"plugins": {}}]},
    {**MULTUS, "delegates": {"plugins": []}},
    {**MULTUS, "delegates": [[]]},
    {**MULTUS, "delegates": json.loads("[" * 900 + "]" * 900)},
]


@pytest.mark.parametrize("multus", STRANGE)
@pytest.mark.parametrize("name", [CONF, LIST])
def test_nothing_that_stands_there_is_too_strange_to_be_replaced(tmp_path, name, multus):
    document = listed({"type": ["y"]}, LINKERD, multus=multus) if name == LIST else single(multus)
    wanted = settings_for(tmp_path)
    looks = {CONF: Absent(), LIST: Absent(), name: file(document)}
    node = seen(wanted, candidates=(master("10-flannel.conflist", NETWORK),), outputs=looks)
    write = decide(wanted, node, START).configuration
    assert chained.wraps(write.content, NETWORK)
    assert not chained.is_ours(looks[name].content, write.content)
    assert verdict.overtaken(tmp_path, ["00-a.conflist", CONF], CONF, write.content, ("00-a.conflist", looks[name]))


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
    assert chained.is_ours(json.dumps(there).encode(), json.dumps(written).encode()) is ours


def test_without_anything_written_nothing_is_ours():
    assert not chained.is_ours(json.dumps(single()).encode(), None)


@pytest.mark.parametrize(
    ("content", "wraps"),
    [
        (single(), True),
        (listed(LINKERD, level=CONVERTED), True),
        (single(delegate({"type": "flannel"})), False),
        (NETWORK, False),
        (single({"type": "multus"}), False),
        (single({"type": "multus", "delegates": ["x"]}), False),
    ],
)
def test_a_master_is_known_again_without_what_is_chained(content, wraps):
    assert chained.wraps(json.dumps(content).encode(), NETWORK) is wraps
    with_mesh = {**NETWORK, "plugins": [*NETWORK["plugins"], LINKERD]}
    chains = LINKERD in content.get("plugins", [])
    assert chained.wraps(json.dumps(content).encode(), with_mesh) is (wraps and chains)


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
    said = verdict.overtaken(Path("/net.d"), [name, CONF], CONF, ours, (name, file(document)))
    assert said is None if message is None else message in said


def test_another_file_before_both_is_in_the_way(tmp_path):
    ours, names = json.dumps(single()).encode(), ["00-istio.conflist", CONF, "00-a.conf"]
    assert "00-a.conf" in verdict.overtaken(tmp_path, names, CONF, ours, ("00-istio.conflist", file(listed(ISTIO))))


# ---- in a plan ----


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


class Node:
    """A node whose outputs are put there by hand, and the plans for it."""

    def __init__(self, root, *flags):
        self.settings = settings_for(root, *flags)
        self.memory = START
        self.seen = seen(self.settings, candidates=(master("10-flannel.conflist", NETWORK, since=0.0),))
        self.carry_out(self.plan())
        self.own = json.loads(self.seen.outputs[CONF].content)

    def plan(self, at=200.0):
        plan = decide(self.settings, self.seen._replace(now=at), self.memory)
        self.memory = plan.memory
        return plan

    def carry_out(self, plan):
        self.seen = after(self.settings, self.seen, plan)

    def put(self, at=0.0, **documents):
        """Put what others write under our names; `conf=None` removes."""
        for key, document in documents.items():
            name = {"conf": CONF, "list": LIST}[key]
            self.seen.outputs[name] = Absent() if document is None else file(document)
            self.seen = self.seen._replace(since={**self.seen.since, name: at})

    def network(self, *more, at=0.0):
        changed = {**NETWORK, "plugins": [*NETWORK["plugins"], *more]}
        self.seen = self.seen._replace(candidates=(master("10-flannel.conflist", changed, since=at),))

    def converted(self, *following):
        multus = {key: value for key, value in self.own.items() if key != "cniVersion"}
        return {**CONVERTED, "plugins": [multus, *following]}


def held(plan):
    assert (plan.configuration, plan.removals, plan.rename) == (None, (), None)
    return plan.deadline


def test_a_converted_list_is_left_alone(node):
    node.put(conf=None, list=node.converted(ISTIO))
    plan = node.plan()
    assert plan.steps == ()
    assert plan.satisfied
    assert plan.deadline is None
    assert plan.accepted == node.seen.outputs[LIST].content


@pytest.mark.parametrize(
    "standing",
    [
        pytest.param({"conf": "converted"}, id="Istio has not renamed it yet"),
        pytest.param({"list": "converted"}, id="Linkerd has not removed the other yet"),
        pytest.param({"list": b'{"plug'}, id="a script is writing it"),
        pytest.param({"list": b""}, id="a script has made it"),
    ],
)
def test_a_mesh_that_converts_has_a_second_to_end(node, standing):
    documents = {key: node.converted(ISTIO) if value == "converted" else value for key, value in standing.items()}
    node.put(at=200.0, **documents)
    plan = node.plan(at=200.5)
    assert held(plan) == 201.0
    assert plan.satisfied  # as it was
    plan = node.plan(at=201.0)
    assert plan.steps
    node.carry_out(plan)
    assert node.plan(at=201.0).steps == ()


def test_a_list_that_is_gone_or_cut_off_is_awaited_for_a_moment(node):
    for state in (None, b"", b'{"cni'):
        node.put(conf=None, list=node.converted(ISTIO))
        node.plan()
        node.put(at=200.0, list=state)
        assert held(node.plan(at=200.0)) == held(node.plan(at=200.1)) == 200.0 + handover.REWRITE
        plan = node.plan(at=200.3)
        assert json.loads(plan.configuration.content) == node.own


def test_a_single_configuration_that_is_gone_is_put_back_as_soon_as_it_cannot_be_one_that_is_moved(node):
    node.put(at=200.0, conf=None)
    assert held(node.plan(at=200.0)) == 200.0 + handover.MOVE
    assert json.loads(node.plan(at=200.0 + handover.MOVE).configuration.content) == node.own


@pytest.mark.parametrize("state", [b"", b'{"cni', {"type": "flannel"}])
def test_a_single_configuration_that_is_broken_is_put_right_at_once(node, state):
    node.put(at=200.0, conf=state)
    assert json.loads(node.plan(at=200.0).configuration.content) == node.own


def test_a_list_with_another_first_plugin_is_replaced_at_once(node):
    node.put(conf=None, list=node.converted(ISTIO))
    node.plan()
    node.put(at=200.0, list={**node.converted(ISTIO), "plugins": [{"type": "flannel"}]})
    assert json.loads(node.plan(at=200.0).configuration.content) == node.own


def test_a_mesh_on_its_way_through_both_files_has_a_second_from_the_later(node):
    node.network(LINKERD, at=200.0)  # and ours is without it still
    assert held(node.plan(at=200.2)) == 201.0
    node.put(at=200.7, conf=None, list=node.converted())
    assert held(node.plan(at=200.8)) == 201.7
    node.put(at=201.1, list=node.converted(LINKERD))
    assert node.plan(at=201.1).steps == ()


def test_a_mesh_that_is_in_both_is_left_out_of_the_copy_when_it_has_come_to_rest(node):
    """Until then the other mesh may come, too, and each write is answered by both."""
    node.network(ISTIO, LINKERD)
    node.carry_out(node.plan(at=199.0))
    node.own = json.loads(node.seen.outputs[CONF].content)
    node.put(at=200.0, conf=None, list=node.converted(LINKERD))
    assert held(node.plan(at=200.1)) == 201.0
    write = node.plan(at=201.0).configuration
    multus, following = json.loads(write.content)["plugins"]
    assert ([each["type"] for each in multus["delegates"][0]["plugins"]][2:], following) == (["istio-cni"], LINKERD)


def test_a_mesh_that_stays_in_the_network_s_file_is_wrapped_after_a_second(node):
    node.network(ISTIO, at=200.0)
    plan = node.plan(at=201.0)
    assert json.loads(plan.configuration.content)["delegates"][0]["plugins"][-1] == ISTIO


def test_any_other_change_of_the_network_is_followed_at_once(node):
    node.put(conf=None, list=node.converted(ISTIO))
    node.network({"type": "bandwidth"}, at=200.0)
    assert node.plan(at=200.0).configuration is not None


@pytest.mark.parametrize("changed", [{"capabilities": {"portMappings": True}}, {"log_level": "debug"}])
def test_a_plugin_of_the_network_that_changes_is_followed_at_once(node, changed):
    node.network(ISTIO)
    node.carry_out(node.plan(at=200.0))
    node.network({**ISTIO, **changed}, at=300.0)
    assert node.plan(at=300.0).configuration is not None


def test_what_is_carried_over_is_written_over_the_file_that_it_was_read_from(node):
    node.put(conf=None, list=node.converted(ISTIO))
    node.network({"type": "bandwidth"})
    write = node.plan().configuration
    assert write.over == node.seen.outputs[LIST].identity
    assert json.loads(write.content)["plugins"][1:] == [ISTIO]


def test_a_list_that_cannot_be_looked_at_is_not_overtaken(node):
    node.seen.outputs[LIST] = Absent("cannot be read: I/O error", missing=False, failed=True)
    node.network({"type": "bandwidth"})
    plan = node.plan()
    assert (plan.configuration, plan.removals) == (None, ())


def test_the_list_is_cleaned_up_as_ours_with_or_without_the_other(node):
    written = node.seen.outputs[CONF].content
    node.put(list=node.converted(ISTIO))
    _, removals = decide_removal(node.settings, node.seen, node.memory, written)
    assert [each.path.name for each in removals] == [CONF, LIST]
    node.put(conf=None)
    _, removals = decide_removal(node.settings, node.seen, node.memory, written)
    assert [each.path.name for each in removals] == [LIST]


def test_who_looks_once_takes_every_file_for_what_it_is(node):
    node.put(at=200.0, list=node.converted(ISTIO))
    plan = decide(node.settings, node.seen._replace(now=200.0).settled(), node.memory)
    assert [step.path.name for step in plan.steps] == [CONF]


# ---- a static configuration ----


def static(root, document, **outputs):
    settings = settings_for(root, "--multus-conf-file=/images/70-multus.conf")
    looks = {"70-multus.conf": Absent(), "70-multus.conflist": Absent()}
    looks.update({f"70-multus.{key}": file(value) for key, value in outputs.items()})
    return settings, seen(settings, static=file(document, number=7), outputs=looks)


def test_what_a_mesh_makes_of_a_static_configuration_is_as_it_must_be(tmp_path):
    settings, node = static(tmp_path, single(), conflist=listed(ISTIO, level=CONVERTED))
    plan = decide(settings, node, START)
    assert plan.configuration is None
    assert plan.removals == ()
    changed = node._replace(static=file(single({**MULTUS, "logLevel": "debug"})))
    plan = decide(settings, changed, START)
    assert plan.configuration.path.name == "70-multus.conflist"
    assert json.loads(plan.configuration.content)["plugins"][1:] == [ISTIO]


def test_a_file_beside_a_static_one_that_no_mesh_made_of_it_stays(tmp_path):
    settings, node = static(tmp_path, single(), conflist=NETWORK)
    plan = decide(settings, node, START)
    assert plan.configuration.path.name == "70-multus.conf"
    assert plan.removals == ()
