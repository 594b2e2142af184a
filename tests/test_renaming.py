"""`--rename-conf-file` decides by what is in files: single cases, and random orders of events on a real disk."""

import json
import os
import shutil

import pytest
from entrypoint.node.host import Host
from entrypoint.node.plan import decide
from entrypoint.node.values import Candidate, Memory, Record, Rename
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from entrypoint.cni.document import Unread
from entrypoint.disk.looks import Absent, File
from entrypoint.node import renaming
from tests.node import CRIO, FLANNEL, START, after, master, scratch, seen, settings_for

RENAME = "--rename-conf-file"


class Node:
    """A scratch node on which one instance runs, and may be killed and started anew."""

    def __init__(self, root):
        self.root = scratch(root)
        self.directory = root / "net.d"
        self.settings = settings_for(root, RENAME)
        self.restart()

    def restart(self):
        self.host = Host(self.settings)
        self.memory = Memory(started=0.0)
        self.plan = None

    def once(self, *, killed_before=()):
        """Make one pass; a run that is killed before a step of this kind starts anew. Return whether it wrote."""
        self.plan = decide(self.settings, self.host.observe(), self.memory)
        self.memory = self.plan.memory
        for step in self.plan.steps:
            if isinstance(step, killed_before):
                self.restart()
                return True
            self.host.apply(step)
        return bool(self.plan.steps)

    def settle(self):
        for _ in range(4):
            if not self.once():
                return
        raise AssertionError("it never comes to rest")

    def put(self, name, number):
        (self.directory / name).write_text(json.dumps({"name": "n", "cniVersion": "0.3.1", "type": "t", "n": number}))

    def number(self, path):
        return json.loads((self.directory / path).read_text())["n"]

    @property
    def wrapped(self):
        return json.loads((self.directory / "00-multus.conf").read_text())["delegates"][0]["n"]

    def names(self):
        return sorted(each for each in os.listdir(self.directory) if each[:2] not in {"00", "mu"})


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def test_the_record_says_what_was_renamed_and_what_stood_beside_it(node):
    node.put("05-a.conf", 1)
    node.put("10-b.conf", 2)
    node.settle()
    path = node.settings.record_file
    assert path.parent == node.settings.kubeconfig_file.parent
    assert not path.name.endswith((".conf", ".conflist", ".json"))
    assert path.stat().st_mode & 0o777 == 0o600
    record = json.loads(path.read_text())
    assert (list(record["renamed"]), list(record["beside"])) == (["05-a.conf"], ["10-b.conf"])


def test_killed_between_the_record_and_the_rename_it_goes_on_where_it_was(node):
    node.put("05-a.conf", 1)
    node.put("10-b.conf", 2)
    assert node.once(killed_before=Rename)
    assert node.settings.record_file.exists()
    assert node.names() == ["05-a.conf", "10-b.conf"]
    node.settle()
    assert (node.names(), node.wrapped) == (["05-a.conf.old", "10-b.conf"], 1)


def test_killed_between_the_record_and_the_next_rename_the_older_file_is_still_known_as_ours(node):
    node.put("05-a.conf", 1)
    node.settle()
    node.put("05-a.conf", 2)
    assert node.once(killed_before=Rename)
    node.put("05-a.conf", 3)
    node.settle()
    assert (node.names(), node.wrapped) == (["05-a.conf.old"], 3)


def test_a_master_that_is_gone_leaves_the_network_to_the_one_renamed_before_it_and_not_to_a_bystander(node):
    node.put("10-a.conf", 1)
    node.put("11-crio.conf", 2)
    node.settle()
    node.put("20-b.conf", 3)
    node.settle()
    assert node.wrapped == 3
    (node.directory / "20-b.conf.old").unlink()
    node.settle()
    assert (node.names(), node.wrapped) == (["10-a.conf.old", "11-crio.conf"], 1)


def test_a_file_that_takes_the_new_name_just_before_the_rename_is_not_overwritten(node):
    node.put("05-a.conf", 1)
    plan = decide(node.settings, node.host.observe(), node.memory)
    (node.directory / "05-a.conf.old").write_text("mine")
    with pytest.raises(Exception, match=r"cannot rename .*05-a\.conf: File exists"):
        for step in plan.steps:
            node.host.apply(step)
    node.restart()
    node.settle()
    assert (node.directory / "05-a.conf.old").read_text() == "mine"
    assert any("05-a.conf.old is there" in warning for warning in node.plan.warnings)


def test_an_older_instance_does_not_undo_what_a_newer_one_remembers(tmp_path):
    older = Node(tmp_path)
    older.put("05-a.conf", 1)
    older.settle()
    newer = Host(older.settings)
    older.put("10-b.conf", 2)
    plan = decide(older.settings, newer.observe(), Memory(started=0.0))
    for step in plan.steps:
        newer.apply(step)
    before = older.settings.record_file.stat()
    assert not older.once()
    assert older.settings.record_file.stat() == before


def test_an_operators_copy_that_is_all_there_is_becomes_the_master_and_is_not_overwritten_later(node):
    node.put("05-a.conf.old", 1)
    node.settle()
    assert node.wrapped == 1
    node.restart()
    node.settle()
    node.put("05-a.conf", 2)
    node.settle()
    assert node.wrapped == 2
    assert node.number("05-a.conf.old") == 1


def test_a_record_that_cannot_be_read_is_left_and_nothing_is_renamed_without_it(tmp_path):
    wanted = settings_for(tmp_path, RENAME)
    unread = Absent("cannot be read: x", missing=False, failed=True)
    there = seen(wanted, candidates=(master("05-a.conf", FLANNEL),), record=unread)
    plan = decide(wanted, there, START)
    assert plan.satisfied
    assert plan.deadline == there.now + 1
    assert (plan.rename, plan.record) == (None, None)
    assert plan.configuration is not None
    assert any("renamed-masters" in warning and "cannot be read: x" in warning for warning in plan.warnings)


def test_what_stood_beside_and_could_not_be_read_is_no_news_when_it_can_be_and_is_remembered_then(tmp_path):
    wanted = settings_for(tmp_path, RENAME)
    unread = Candidate("10-b.conf", Unread("cannot be read: x"), 0.0)
    before = seen(wanted, candidates=(master("05-a.conf", FLANNEL), unread))
    node = after(wanted, before, decide(wanted, before, START))
    for _ in range(2):
        node = node._replace(candidates=(unread,))
        assert decide(wanted, node, START).steps == ()
        node = node._replace(candidates=(master("10-b.conf", CRIO),))
        node = after(wanted, node, decide(wanted, node, START))
        assert [each.name for each in node.candidates] == ["10-b.conf"]
    plan = decide(wanted, node._replace(candidates=(master("10-b.conf", FLANNEL),)), START)
    assert plan.memory.output.master == "10-b.conf"


def test_the_record_survives_names_that_are_not_utf_8():
    record = Record({os.fsdecode(b"05-\xff.conf"): ("d",)}, {os.fsdecode(b"\xfe.conf"): "e"})
    assert renaming.from_file(File(renaming.as_file(record), 0o600, (1, 1, 0))) == record


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"renamed": [], "beside": {}}', '{"renamed": {"a": [1]}, "beside": {}}', '{"renamed": {}}'],
)
def test_what_is_no_record_is_as_good_as_none(content):
    assert renaming.from_file(File(content.encode(), 0o600, (1, 1, 0))) is None


def test_with_a_version_that_was_put_in_the_renamed_master_is_still_found_in_the_configuration(tmp_path):
    wanted = settings_for(tmp_path, RENAME)
    versionless = {"name": "n", "type": "t"}
    before = seen(wanted, candidates=(master("05-a.conf", versionless), master("10-b.conf", CRIO)))
    left = after(wanted, before, decide(wanted, before, START))._replace(record=Absent())
    assert decide(wanted, left, START).memory.output.master == "05-a.conf"


# ---- random orders of events ----

names = st.sampled_from(["05-a.conf", "10-b.conf", "20-c.conf"])
numbers = st.integers(1, 3)
events = st.lists(
    st.one_of(
        st.tuples(st.just("put"), names, numbers),
        st.tuples(st.just("put with an old time"), names, numbers),
        st.tuples(st.just("copy"), names),
        st.tuples(st.just("touch"), names),
        st.tuples(st.just("remove"), names),
        st.tuples(st.just("remove old"), names),
        st.tuples(st.just("restart")),
        st.tuples(st.just("restart without a record")),
        st.tuples(st.just("kill before the rename"), names, numbers),
    ),
    max_size=14,
)


class Model:
    """What should be: live files, the master that was renamed, and what stood beside it. It knows of no times."""

    def __init__(self, node):
        self.node = node
        self.mine = {}
        """An operator's own NAME.old, and what is in it."""
        self.beside = {}
        self.renamed = []

    def live(self):
        return {each: self.node.number(each) for each in self.node.names() if not each.endswith(".old")}

    def chosen(self):
        """Return the name and number of what should be wrapped now, and whether it is live; None for nothing."""
        live = self.live()
        renamed = [each for each in self.renamed if (self.node.directory / f"{each}.old").exists()]
        beside = {name for name, number in self.beside.items() if live.get(name) == number and name not in renamed[:1]}
        news = [each for each in sorted(live) if not renamed or each not in beside]
        if news:
            return news[0], live[news[0]], True
        if renamed:
            return renamed[0], self.node.number(f"{renamed[0]}.old"), False
        if self.mine:
            name = min(self.mine).removesuffix(".old")
            self.renamed, self.beside = [name, *self.renamed], live
            return name, self.node.number(f"{name}.old"), False
        return None

    def has_one_master(self):
        """Say whether the configuration alone tells which file is the renamed master."""
        old = [each.removesuffix(".old") for each in self.node.names() if each.endswith(".old")]
        return len(old) == 1 and old[0] in self.renamed and old[0] not in self.live()

    def happened(self, before):
        """Learn what was renamed."""
        for name in set(before) - set(self.live()):
            earlier = [each for each in self.renamed if each != name and f"{each}.old" in self.node.names()]
            self.beside = {each: self.node.number(f"{each}.old") for each in earlier} | self.live()
            self.renamed = [name, *earlier]


@given(events)
@example([("copy", "10-b.conf"), ("remove old", "05-a.conf"), ("put", "20-c.conf", 1), ("remove", "10-b.conf")])
@hypothesis_settings(max_examples=60)
def test_whatever_happens_in_whatever_order_contents_decide_and_nobodys_file_is_lost(tmp_path_factory, happening):
    node = Node(tmp_path_factory.mktemp("node"))
    model = Model(node)
    node.put("05-a.conf", 1)
    node.put("10-b.conf", 2)
    _settle(node, model)
    for what, *arguments in happening:
        path = node.directory / arguments[0] if arguments else None
        old = path.with_name(path.name + ".old") if path else None
        killed = ()
        if what.startswith(("put", "kill")):
            node.put(*arguments)
            if what == "put with an old time":
                os.utime(path, (1e9, 1e9))
            killed = Rename if what.startswith("kill") else ()
        elif what == "copy" and path.exists() and not old.exists():
            shutil.copy2(path, old)
            model.mine[old.name] = path.read_bytes()
        elif what == "touch" and path.exists():
            os.utime(path)
        elif what == "remove":
            path.unlink(missing_ok=True)
        elif what == "remove old" and old.name not in model.mine:
            old.unlink(missing_ok=True)
        elif what.startswith("restart"):
            node.restart()
            if what.endswith("record") and model.has_one_master():
                node.settings.record_file.unlink()
                model.beside = model.live()
        _settle(node, model, killed)
    assert not any(each.name.endswith(".tmp") for each in node.directory.iterdir())


def _settle(node, model, killed_before=()):
    expected, before = model.chosen(), model.live()
    if killed_before:
        node.once(killed_before=killed_before)
    node.settle()
    if expected is None:
        assert not node.plan.satisfied
        return
    name, number, live = expected
    assert node.wrapped == number
    blocked = live and f"{name}.old" in model.mine
    assert (name in model.live()) == blocked
    assert any("keeps its name" in warning for warning in node.plan.warnings) == blocked
    model.happened(before)
    for own, content in model.mine.items():
        assert (node.directory / own).read_bytes() == content
    node.restart()
    assert not node.once(), "a restart changes something"
    assert node.wrapped == number
