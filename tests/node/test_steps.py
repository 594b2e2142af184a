import dataclasses
import os

import pytest

from entrypoint.disk import files, programs
from entrypoint.node.ledger import Book, Ledger, Put, Renamed
from entrypoint.node.steps import Compare, Copy, Doing, GiveBack, Note, Remove, Retire, StepError, Write, attempted

PUT = Put("00-multus.conf", b"{}", 0o600, "10-a.conf")


@pytest.fixture
def doing(tmp_path):
    ledger = Ledger(tmp_path / "multus.d/ledger.json")
    ledger.load()
    return Doing(ledger, lambda: False)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            lambda root: Write(root / "gone/x", b"", 0o600, put=PUT),
            "cannot write .*/gone/x: No such .* hostPath volume",
        ),
        (lambda root: Copy(root / "gone/x", root / "source"), "cannot install .*/gone/x"),
        (lambda root: Copy(root / "x", root / "none"), "cannot install .*/x: .*/none cannot be read: No such file"),
        (lambda root: Remove(root / "directory", ""), "cannot remove .*/directory"),
        (lambda root: Retire(root / "gone", root / "x", Renamed("gone", "d")), "cannot rename .*/gone"),
        (lambda root: GiveBack(root / "gone", root / "x"), "cannot rename .*/gone"),
    ],
)
def test_a_step_that_fails_says_what_where_and_why_and_notes_nothing(tmp_path, doing, step, message):
    (tmp_path / "source").touch()
    (tmp_path / "directory").mkdir()
    doing.ledger.note(configuration=PUT, programs={"x": "d"})
    before = doing.ledger.says
    with pytest.raises(StepError, match=message):
        attempted(step(tmp_path), doing)
    assert doing.ledger.says == before


def test_what_was_put_there_is_noted_and_forgotten_when_it_is_taken_away(tmp_path, doing):
    path = tmp_path / "00-multus.conf"
    Write(path, b"{}", 0o600, put=PUT).do(doing)
    assert doing.ledger.says.configuration == PUT
    Remove(tmp_path / "00-multus.conflist", "", "configuration").do(doing)  # the other name, or a mesh's list
    assert doing.ledger.says.configuration == PUT
    Remove(path, "", "configuration").do(doing)
    assert doing.ledger.says == Book()
    Remove(path, "", "configuration").do(doing)  # gone already is fine


def test_a_file_that_somebody_else_has_written_meanwhile_is_left_and_not_noted(tmp_path, doing):
    path = tmp_path / "00-multus.conflist"
    path.write_text("theirs")
    with pytest.raises(files.ReplacedError):
        Write(path, b"{}", 0o600, (1, 2, 3), PUT).do(doing)
    assert (path.read_text(), doing.ledger.says) == ("theirs", Book())


def test_a_comparison_notes_only_what_is_the_same_and_ours(tmp_path, doing):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    told = []
    for path, ours in (("b", False), ("c", True), ("b", True)):
        Compare(tmp_path / path, tmp_path / "a", lambda same, digest: told.append(same), ours).do(doing)
        assert doing.ledger.says.programs.keys() == ({"b"} if told == [True, False, True] else set())
    assert told == [True, False, True]


def test_a_note_touches_nothing_else(tmp_path, doing):
    Note(tmp_path / "x", {"configuration": PUT}).do(doing)
    assert (doing.ledger.says.configuration, os.listdir(tmp_path)) == (PUT, [])


# ---- renaming, killed in between ----


class KilledError(BaseException):
    pass


def killed(*_, **__):
    raise KilledError


@pytest.fixture
def retire(tmp_path):
    (tmp_path / "10-b.conf").write_text("b")
    return Retire(tmp_path / "10-b.conf", tmp_path / "10-b.conf.old", Renamed("10-b.conf", "db", {"11-c.conf": "dc"}))


def on_disk(doing):
    ledger = Ledger(doing.ledger.path)
    ledger.load()
    return ledger.says


def test_the_ledger_is_on_disk_before_the_master_is_renamed(tmp_path, doing, retire, monkeypatch):
    """Otherwise nobody would know whose NAME.old is, be it what is renamed or what had that name until then."""
    doing.ledger.note(renamed=Renamed("05-a.conf", "da"), earlier={"10-b.conf": "d0"})
    monkeypatch.setattr(files, "rename", killed)
    with pytest.raises(KilledError):
        retire.do(doing)
    assert (on_disk(doing).renamed, on_disk(doing).earlier) == (
        retire.renamed,
        {"05-a.conf": "da", "10-b.conf": "d0"},
    )
    assert (tmp_path / "10-b.conf").exists()
    monkeypatch.undo()
    retire.do(doing)
    assert (doing.ledger.says.renamed, doing.ledger.says.earlier) == (retire.renamed, {"05-a.conf": "da"})


@pytest.mark.parametrize("fails", ["ledger", "rename", "flush"])
def test_a_rename_that_could_not_be_done_has_not_happened(tmp_path, doing, retire, monkeypatch, fails):
    before = doing.ledger.says

    def fail(path, *args, **options):
        raise OSError(28, "No space left on device", path)

    if fails == "flush":  # the name has changed all the same
        renamed = (tmp_path / "10-b.conf.old").exists
        monkeypatch.setattr(files, "flush_directory", lambda path: fail(path) if renamed() else None)
    else:
        monkeypatch.setattr(files, "write" if fails == "ledger" else "rename", fail)
    with pytest.raises(OSError, match="No space left"):
        retire.do(doing)
    assert (tmp_path / "10-b.conf").exists() is (fails != "flush")
    assert doing.ledger.says == (before._replace(renamed=retire.renamed) if fails == "flush" else before)


def test_another_file_of_that_name_is_in_the_way_unless_it_is_ours(tmp_path, doing, retire):
    (tmp_path / "10-b.conf.old").write_text("mine")
    with pytest.raises(FileExistsError):
        retire.do(doing)
    assert ((tmp_path / "10-b.conf.old").read_text(), doing.ledger.says) == ("mine", Book())
    dataclasses.replace(retire, over=True).do(doing)
    assert (tmp_path / "10-b.conf.old").read_text() == "b"


@pytest.mark.parametrize("at", ["link", "unlink", "flush"])
def test_giving_back_is_finished_after_a_kill_at_any_point(tmp_path, doing, retire, monkeypatch, at):
    retire.do(doing)
    give_back = GiveBack(retire.to, retire.path)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        if at == "flush":
            patch.setattr(files, "flush_directory", killed)
        else:
            patch.setattr(os, at, killed)
            patch.setattr(type(retire.path), "unlink", killed)
        give_back.do(doing)
    assert on_disk(doing).renamed == retire.renamed
    if retire.to.exists():
        give_back.do(doing)
        assert doing.ledger.says.renamed is None
    assert (retire.path.read_text(), retire.to.exists()) == ("b", False)


def test_a_live_file_that_has_taken_the_name_keeps_it(tmp_path, doing, retire):
    retire.do(doing)
    retire.path.write_text("live")
    GiveBack(retire.to, retire.path).do(doing)
    assert (retire.path.read_text(), retire.to.read_text()) == ("live", "b")
    assert doing.ledger.says.renamed == retire.renamed


def test_a_cancelled_copy_leaves_what_was_there(tmp_path, doing):
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / "multus").write_bytes(b"old")
    with pytest.raises(programs.CancelledError):
        Copy(tmp_path / "multus", tmp_path / "source").do(doing._replace(cancelled=lambda: True))
    assert (tmp_path / "multus").read_bytes() == b"old"
