"""JSON merge patch: every example of RFC 7386, and what `--multus-conf-patch` needs beside them."""

import copy
import json

import pytest

from tests.node import DATA

mergepatch = pytest.importorskip("entrypoint.mergepatch", reason="--multus-conf-patch is not implemented yet")

EXAMPLES = json.loads((DATA / "merge-patch.json").read_text())


@pytest.mark.parametrize(
    ("target", "patch", "result"), [each[1:] for each in EXAMPLES], ids=[each[0] for each in EXAMPLES]
)
def test_the_examples_of_the_rfc(target, patch, result):
    assert mergepatch.merged(target, patch) == result


@pytest.mark.parametrize(("target", "patch"), [each[1:3] for each in EXAMPLES], ids=[each[0] for each in EXAMPLES])
def test_neither_the_target_nor_the_patch_is_changed(target, patch):
    before = copy.deepcopy((target, patch))
    mergepatch.merged(target, patch)
    assert (target, patch) == before


def test_true_and_one_are_two_values():
    assert mergepatch.merged({"compress": True}, {"compress": 1})["compress"] is not True


def test_what_was_there_keeps_its_place_and_what_is_new_comes_last():
    assert list(mergepatch.merged({"a": 1, "b": 2, "c": 3}, {"d": 4, "b": 5, "a": None})) == ["b", "c", "d"]
