"""`--rename-conf-file` decides by the ledger and by what is in files: single cases, and random orders of events."""

import json
import os
import shutil

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from entrypoint.disk import files
from tests.node import Node

RENAME, CLEANUP = "--rename-conf-file", "--cleanup-config-on-exit"


class KilledError(BaseException):
    pass


class Renaming(Node):
    """A node whose networks are numbers."""

    def put(self, name, number):
        super().put(name, {"name": "n", "cniVersion": "0.3.1", "type": "t", "n": number})

    def number(self, name):
        return json.loads((self.directory / name).read_text())["n"]

    def once(self, *, killed=False):
        """Make one pass; a run that is `killed` dies when its ledger says already what it is about to rename."""
        if not killed:
            return super().once()

        def kill(*_, **__):
            raise KilledError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "rename", kill)
            try:
                return super().once()
            except KilledError:
                self.start()
                return True

    @property
    def wrapped(self):
        return self.delegate["n"]

    def networks(self):
        return [name for name in self.names() if not name.startswith("00-multus.")]


@pytest.fixture
def node(tmp_path):
    return Renaming(tmp_path, RENAME)


def test_the_master_is_renamed_behind_the_write_and_stands_in_the_ledger_with_what_stood_beside_it(node):
    node.put("05-a.conf", 1)
    node.put("10-b.conf", 2)
    assert node.touched(node.decide())[-2:] == ["00-multus.conf", "05-a.conf"]
    assert node.settle().ready
    says = node.ledger.says
    assert (says.renamed.name, list(says.renamed.beside), says.configuration.master) == (
        "05-a.conf",
        ["10-b.conf"],
        "05-a.conf",
    )
    assert (node.networks(), node.wrapped) == (["05-a.conf.old", "10-b.conf"], 1)


def test_killed_between_the_ledger_and_the_rename_it_goes_on_where_it_was(node):
    node.put("05-a.conf", 1)
    node.put("10-b.conf", 2)
    node.once(killed=True)
    assert node.networks() == ["05-a.conf", "10-b.conf"]
    node.settle()
    assert (node.networks(), node.wrapped) == (["05-a.conf.old", "10-b.conf"], 1)


def test_killed_there_twice_it_still_knows_the_old_file_that_is_to_make_way(node):
    node.put("05-a.conf", 1)
    node.settle()
    node.put("05-a.conf", 2)
    node.once(killed=True)
    node.once(killed=True)
    node.settle()
    assert (node.networks(), node.wrapped, node.number("05-a.conf.old")) == (["05-a.conf.old"], 2, 2)


def test_one_that_could_not_read_what_stands_beside_it_renames_nothing_yet(node, monkeypatch):
    node.put("05-a.conf", 1)
    node.put("10-b.conf", 2)
    real = os.open
    with monkeypatch.context() as patch:

        def fail(path, *args, **options):
            if os.fspath(path).endswith("10-b.conf"):
                raise OSError(5, "Input/output error", path)
            return real(path, *args, **options)

        patch.setattr(os, "open", fail)
        decision = node.settle()
        assert (node.wrapped, node.networks(), decision.ready) == (1, ["05-a.conf", "10-b.conf"], True)
        assert "keeps its name: 10-b.conf, which stands beside it, cannot be read" in decision.warnings[0]
    node.settle()
    assert node.networks() == ["05-a.conf.old", "10-b.conf"]
    assert (node.wrapped, node.settle().ready) == (1, True)


@pytest.mark.parametrize(
    ("name", "flags", "why"),
    [
        ("x" * 247 + ".conf", (), "longer than 255 bytes"),
        (
            "05-a.conf",
            ("--readiness-indicator-file=/var/lib/rancher/k3s/agent/etc/cni/net.d/05-a.conf",),
            "without which",
        ),
    ],
)
def test_what_must_keep_its_name_is_wrapped_all_the_same(tmp_path, name, flags, why):
    node = Renaming(tmp_path, RENAME, *flags)
    node.put(name, 1)
    decision = node.settle()
    assert (node.networks(), node.wrapped) == ([name], 1)
    assert why in decision.warnings[0]


def test_a_name_that_just_fits_is_renamed(node):
    name = "x" * 246 + ".conf"
    node.put(name, 1)
    node.settle()
    assert node.networks() == [f"{name}.old"]


# ---- getting the name back ----


def test_leaving_gives_no_name_to_an_earlier_master_nor_to_an_operators_file(tmp_path):
    node = Renaming(tmp_path, RENAME, CLEANUP)
    for name, number in (("05-mine.conf.old", 9), ("10-a.conf", 1)):
        node.put(name, number)
    node.settle()
    node.put("20-b.conf", 2)
    node.settle()
    assert node.leave() == ["20-b.conf.old", "00-multus.conf"]
    assert node.names() == ["05-mine.conf.old", "10-a.conf.old", "20-b.conf"]


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
        st.tuples(st.just("restart without a ledger")),
        st.tuples(st.just("kill before the rename"), names, numbers),
    ),
    max_size=14,
)


class Model:
    """What should be: the master that was renamed, what stood beside it, and whose NAME.old is. It knows no times."""

    def __init__(self, node):
        self.node = node
        self.renamed, self.beside, self.earlier = None, {}, {}

    def live(self):
        return {each: self.node.number(each) for each in self.node.networks() if not each.endswith(".old")}

    def old(self, name):
        return self.node.number(f"{name}.old") if (self.node.directory / f"{name}.old").exists() else None

    def known(self):
        return self.earlier | ({self.renamed[0]: self.renamed[1]} if self.renamed else {})

    def chosen(self):
        """Return the name and number of what should be wrapped now, and whether it is live; None for nothing."""
        live = self.live()
        name, number = self.renamed or (None, None)
        if name is None or (self.old(name) is None and name not in live):
            return next(((each, live[each], True) for each in sorted(live)), None)
        bystanders = [each for each in sorted(live) if self.beside.get(each) == live[each] and each != name]
        order = [each for each in sorted(live) if each not in bystanders]
        if order:
            return order[0], live[order[0]], True
        if self.old(name) == number:
            return name, number, False
        return next(((each, live[each], True) for each in bystanders), None)

    def blocked(self, name):
        """Say whether NAME.old is somebody else's."""
        return self.old(name) is not None and self.known().get(name) != self.old(name)

    def happened(self, name, number):
        """Learn that a master was renamed; its own name is among the live ones no more."""
        known = self.known()
        self.earlier = {each: known[each] for each in known if each != name}
        self.renamed, self.beside = (name, number), {**self.earlier, **self.live()}
        self.beside.pop(name, None)


@given(events)
@example([("copy", "10-b.conf"), ("remove old", "05-a.conf"), ("put", "20-c.conf", 1), ("remove", "10-b.conf")])
@example([("put", "20-c.conf", 1), ("kill before the rename", "20-c.conf", 2)])
@example([("kill before the rename", "20-c.conf", 3)])
@example([("kill before the rename", "05-a.conf", 2), ("put", "05-a.conf", 3)])
@example([("remove", "10-b.conf"), ("put", "20-c.conf", 2), ("remove old", "20-c.conf"), ("restart",)])
@hypothesis_settings(max_examples=40)
def test_whatever_happens_in_whatever_order_contents_decide_and_nobodys_file_is_lost(tmp_path_factory, happening):
    node = Renaming(tmp_path_factory.mktemp("node"), RENAME)
    model, mine = Model(node), {}
    node.put("05-a.conf", 1)
    node.put("10-b.conf", 2)
    _settle(node, model)
    for what, *arguments in happening:
        path = node.directory / arguments[0] if arguments else None
        old = path.with_name(path.name + ".old") if path else None
        if what.startswith(("put", "kill")):
            node.put(*arguments)
            if what == "put with an old time":
                os.utime(path, (1e9, 1e9))
        elif what == "copy" and path.exists() and not old.exists():
            shutil.copy2(path, old)
            mine |= {old: path.read_bytes()} if model.blocked(path.name) else {}
        elif what == "touch" and path.exists():
            os.utime(path)
        elif what == "remove":
            path.unlink(missing_ok=True)
        elif what == "remove old" and old not in mine:
            old.unlink(missing_ok=True)
        elif what.startswith("restart"):
            node.start()
            if what.endswith("ledger"):
                node.settings.ledger_file.unlink(missing_ok=True)
                model = Model(node)
                mine |= {each: each.read_bytes() for each in node.directory.glob("*.old")}
        _settle(node, model, killed=what.startswith("kill"))
        assert {each: each.read_bytes() for each in mine} == mine
    assert not any(each.name.endswith(".tmp") for each in node.directory.iterdir())


def _settle(node, model, *, killed=False):
    expected = model.chosen()
    blocked = expected is not None and expected[2] and model.blocked(expected[0])
    if killed:
        node.once(killed=True)
    decision = node.settle()
    if expected is None:
        assert not decision.ready
        return
    name, number, live = expected
    assert (node.wrapped, decision.ready) == (number, True)
    assert (name in model.live()) == blocked
    assert any("keeps its name" in warning for warning in decision.warnings) == blocked
    if live and not blocked:
        model.happened(name, number)
    node.start()
    before = node.settings.ledger_file.stat()
    node.settle()
    assert node.settings.ledger_file.stat() == before, "a restart changes something"
    assert node.wrapped == number
