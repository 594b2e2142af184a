"""JSON merge patch: every example of RFC 7386, and what `--multus-conf-patch` needs beside them."""

import copy
import json

import pytest

from entrypoint.cni import mergepatch
from tests.node import DATA

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


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[]", "expected a JSON object"),
        (b'{"x": ', "not JSON"),
        (b'{"x": NaN}', "no JSON number"),
        (b'{"type": "x", "name": null}', "type, name: what this program decides itself"),
        (b'{"delegates": []}', "delegates"),
        (b'{"Type": "x", "CNIVERSION": "1.0.0"}', "Type, CNIVERSION: what this program"),  # Go ignores the case
        (b'{"cniVersion": "1.0.0"}', "cniVersion"),
        (b'{"x": "__NODE_NAME__"}', "needs the environment variable NODE_NAME"),
        (b'{"auxiliaryCNIChainName": "vendor"}', "every pod fails with it"),
        (b'{"x": ' + b"[" * 500 + b"]" * 500 + b"}", "nested more than"),
    ],
)
def test_a_patch_that_cannot_be_applied_says_why(content, why):
    with pytest.raises(mergepatch.InvalidPatchError, match=why):
        mergepatch.read(content, None)


@pytest.mark.parametrize(
    "content",
    [b'["' + b'__NODE_NAME__","' * 10_000 + b'"]', b'["' + "\u00e9".encode() * 60_000 + b'"]'],
    ids=["names of nodes", "escapes"],
)
def test_a_patch_that_grows_too_large_when_it_is_filled_in_and_written_is_refused(content):
    """The configuration would be larger than what is read back, and would be written for ever."""
    assert len(content) < 256 << 10
    with pytest.raises(mergepatch.InvalidPatchError, match="262144 are the most"):
        mergepatch.read(b'{"x": ' + content + b"}", "n" * 200)


def test_the_name_of_the_node_is_filled_in_wherever_it_stands_in_a_value():
    content = b'{"logFile": "/var/log/__NODE_NAME__.log", "x": {"y": ["__NODE_NAME__", 1, null]}}'
    assert mergepatch.read(content, "node-1") == {"logFile": "/var/log/node-1.log", "x": {"y": ["node-1", 1, None]}}
