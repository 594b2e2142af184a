"""What docs/troubleshooting.md says that the program prints, compared with what it does. `make docs` writes it anew."""

import pytest

from tests import examples

pytestmark = pytest.mark.process

TEXT = examples.TROUBLESHOOTING.read_text("utf-8")
BLOCKS = list(examples.SCENARIO.finditer(TEXT))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block['kind']}-{block['name']}")
def test_what_a_page_shows_is_what_is_printed(block):
    assert block["body"] == examples.printed(block["kind"], block["name"])


def test_every_block_is_found_and_every_scenario_shown():
    assert len(BLOCKS) == TEXT.count("```text\n")
    assert {block["name"] for block in BLOCKS} == set(examples.SCENARIOS)
