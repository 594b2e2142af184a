import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.node.ledger import Book, Ledger, Put, Renamed, parsed, written

NAMES = (
    st.text(st.characters(exclude_characters="/\0", codec="utf-8") | st.sampled_from("\udcff\udc80"), min_size=1)
    .filter(lambda name: name not in {".", ".."})
    .map(lambda name: os.fsdecode(os.fsencode(name)))
)
DIGESTS = st.dictionaries(NAMES, st.text("0123456789abcdef", max_size=4), max_size=3)
BOOKS = st.builds(
    Book,
    st.none() | st.builds(Put, NAMES, st.binary(max_size=40), st.integers(0, 0o7777), st.none() | NAMES),
    st.none() | st.builds(Renamed, NAMES, st.text(max_size=4), DIGESTS),
    DIGESTS,
    DIGESTS,
)
BOOK = Book(Put("00-multus.conf", b"{}", 0o600, "10-a.conf"), Renamed("10-a.conf", "d", {"11-b.conf": "e"}), {}, {})


@given(BOOKS)
def test_what_is_written_is_read_back_whatever_the_names_and_bytes(book):
    assert parsed(written(book)) == book


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged(draw):
    """A ledger in which a value is another, or is missing, or which is cut off."""
    document = json.loads(written(draw(BOOKS)))
    there = document
    for _ in range(draw(st.integers(0, 1))):
        inner = [value for value in there.values() if isinstance(value, dict) and value]
        there = draw(st.sampled_from(inner)) if inner else there
    key = draw(st.sampled_from(sorted(there)))
    if draw(st.booleans()):
        there[key] = draw(JSON)
    else:
        del there[key]
    content = json.dumps(document).encode()
    return content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content


@given(st.binary() | damaged() | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_stands_there_is_read_as_a_whole_book_or_as_none(content):
    """And what is read can be written, and names nothing outside the directories."""
    book = parsed(content)
    assert parsed(written(book)) == book
    names = [*book.earlier, *book.programs, *(each.name for each in book[:2] if each)]
    assert not any("/" in name or "\0" in name or name in {"", ".", ".."} for name in names)


@pytest.mark.parametrize(
    "change",
    [
        lambda book: book["configuration"].update(name="../10-a.conf"),
        lambda book: book["configuration"].update(master=".."),
        lambda book: book["configuration"].update(mode=True),
        lambda book: book["configuration"].update(mode=0o10000),
        lambda book: book["configuration"].update(mode=-1),
        lambda book: book["renamed"].update(name="a/b"),
        lambda book: book["renamed"].update(name="a\0"),
        lambda book: book["renamed"].update(digest=None),
        lambda book: book["renamed"].update(beside=["x"]),
        lambda book: book.update(programs={"../sh": "d"}),
        lambda book: book.update(earlier=None),
        lambda book: book.pop("renamed"),
    ],
)
def test_one_value_that_cannot_be_right_makes_nothing_ours(change):
    document = json.loads(written(BOOK))
    change(document)
    assert parsed(json.dumps(document).encode()) == Book()


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"[]", b"{}", b"null", b"\xff", b"\0" * 4096])
def test_what_is_no_ledger_makes_nothing_ours(content):
    assert parsed(content) == Book()


# ---- the file ----


@pytest.fixture
def ledger(tmp_path):
    found = Ledger(tmp_path / "multus.d/ledger.json")
    found.load()
    return found


def test_it_is_written_whole_with_mode_600_and_only_when_it_says_something_new(ledger):
    assert not ledger.save() and not ledger.path.exists()
    ledger.note(configuration=BOOK.configuration)
    assert ledger.save()
    before = ledger.path.stat()
    assert (before.st_mode & 0o777, parsed(ledger.path.read_bytes())) == (0o600, ledger.says)
    assert not ledger.save()
    assert ledger.path.stat() == before
    ledger.path.chmod(0o644)
    assert ledger.save() and ledger.path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(ledger.path.parent) == ["ledger.json"]


def test_when_nothing_is_ours_any_more_it_goes(ledger):
    ledger.note_program("multus", "d")
    ledger.save()
    ledger.note(programs={})
    assert ledger.save() and not ledger.path.exists()
    assert not ledger.save()


def test_what_another_instance_has_written_meanwhile_counts(ledger):
    ledger.note_program("multus", "d")
    ledger.save()
    ledger.note_program("macvlan", "e")  # noted and not saved
    ledger.load()
    assert ledger.says.programs == {"multus": "d", "macvlan": "e"} and not ledger.overwritten()
    other = Ledger(ledger.path)
    other.load()
    other.note_program("ipvlan", "f")
    other.save()
    assert ledger.overwritten()
    ledger.load()
    assert ledger.says.programs == {"multus": "d", "ipvlan": "f"} and not ledger.overwritten()


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"programs": {"mul'])
def test_what_is_lost_or_broken_meanwhile_is_no_news_until_it_is_forgotten(ledger, content):
    ledger.note_program("multus", "d")
    ledger.save()
    ledger.path.unlink() if content is None else ledger.path.write_bytes(content)
    ledger.load()
    assert ledger.says.programs == {"multus": "d"} and not ledger.stands()
    ledger.forget()
    ledger.load()
    assert ledger.says == Book()


def test_one_that_cannot_be_read_is_no_news_and_is_read_again(ledger, monkeypatch):
    ledger.note_program("multus", "d")
    ledger.save()
    ledger.forget()

    def fail(path, *args, **options):
        raise OSError(5, "Input/output error", path)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
        patch.setattr(os, "open", fail)
        ledger.load()
    assert ledger.says.programs == {"multus": "d"}  # as before
    ledger.load()
    assert ledger.says.programs == {"multus": "d"}


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/nowhere", path)])
def test_what_is_no_file_says_nothing(ledger, make):
    ledger.path.parent.mkdir()
    make(ledger.path)
    ledger.load()
    assert ledger.says == Book()


def test_what_others_have_taken_away_is_struck_out(ledger, tmp_path):
    ledger.note(configuration=BOOK.configuration, programs={"multus": "d", "macvlan": "e"})
    (tmp_path / "multus").touch()
    ledger.strike_out_what_is_gone(tmp_path, tmp_path)
    assert (ledger.says.configuration, ledger.says.programs) == (None, {"multus": "d"})
