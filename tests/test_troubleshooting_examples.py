"""What docs/troubleshooting.md says that the program prints, compared with what it does. `make docs` writes it anew."""

import re
import subprocess

import pytest

from tests import examples

pytestmark = pytest.mark.process

TEXT = examples.TROUBLESHOOTING.read_text("utf-8")
BLOCKS = list(examples.SCENARIO.finditer(TEXT))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block['kind']}-{block['name']}")
def test_what_a_page_shows_is_what_is_printed(block):
    assert block["body"] == examples.printed(block["kind"], block["name"])


def test_where_to_look_first_works_with_two_pods_on_the_node_one_of_which_crashes(tmp_path):
    """As in a rollout that is stuck: `kubectl` takes one pod, and says no to what it cannot do."""
    calls = tmp_path / "calls"
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f"""#!/bin/sh
        printf '%s|' "$@" >>'{calls}'; echo >>'{calls}'
        case "$*" in
          *"get pods"*"spec.nodeName=worker-1"*) echo pod/old; echo pod/new ;;
          *"exec pod/new"*|*"logs pod/old"*--previous*) exit 1 ;;
        esac
        """
    )
    kubectl.chmod(0o755)
    (script,) = re.findall(r"^```sh\n(NODE=.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["bash", "-euc", script], env=environ, cwd=tmp_path, check=True, capture_output=True)
    asked = [line.split("|")[2:4] for line in calls.read_text().splitlines()]
    pods = ["pod/old", "pod/new"]
    assert [verb_and_pod for verb_and_pod in asked if verb_and_pod[0] == "exec"] == [["exec", pod] for pod in pods]
    assert [each for each in asked if each[0] == "logs"] == [["logs", pod] for pod in pods for _ in range(2)]


def test_every_block_is_found_and_every_scenario_shown():
    assert len(BLOCKS) == TEXT.count("```text\n")
    assert {block["name"] for block in BLOCKS} == set(examples.SCENARIOS)
