"""The examples of docs/usage.md, run through the real program. `make docs` writes them anew."""

import re
import tempfile
from pathlib import Path

import pytest

from entrypoint.flags import ENTRYPOINT
from tests import examples

pytestmark = pytest.mark.process

TEXT = examples.USAGE.read_text("utf-8")
BLOCKS = list(examples.BLOCK.finditer(TEXT))
RECIPES = re.findall(r"<!-- recipe: (\S+) -->\n```yaml\nargs:\n((?:  - .*\n)+)```\n", TEXT)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block["flags"] or block["command"])
def test_an_example_is_what_the_program_prints(block):
    assert block["body"] == examples.actual(block)


def test_every_example_is_found():
    assert len(BLOCKS) == TEXT.count("```diff\n") + TEXT.count("```text\n$ multus-entrypoint")
    assert len(RECIPES) == TEXT.count("```yaml\nargs:") == TEXT.count("<!-- recipe:")


def test_every_flag_has_an_example():
    shown = " ".join(f"{block['flags']} {block['command']}" for block in BLOCKS)
    assert [flag.opts[0] for flag in ENTRYPOINT if not re.search(rf"{flag.opts[0]}(?![\w-])", shown)] == []


@pytest.mark.parametrize(("master", "lines"), RECIPES)
def test_the_flags_of_a_recipe_configure_a_node_with_that_network(master, lines, tmp_path):
    flags = re.findall(r'^  - "(.*)"$', lines, re.MULTILINE)
    assert len(flags) == lines.count("\n")
    node = examples.Node(tmp_path, master)
    (tmp_path / "host/etc/cni/net.d/20-calico.conflist").unlink()
    code, said = node.run(" ".join([*flags, "NODE_NAME=worker-1", "--dry-run"]))
    assert code == 0, said
    assert "would write /host/etc/cni/net.d/00-multus.conf" in said


def test_the_scratch_node_leaves_no_path_of_this_machine_in_an_example():
    assert tempfile.gettempdir() == "/" or not re.search(r"/tmp/(?!multus)", TEXT)
    assert str(Path.home()) not in TEXT or str(Path.home()) == "/"
