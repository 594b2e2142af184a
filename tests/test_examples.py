"""The examples of the pages, run through the real program. `make docs` writes them anew."""

import re
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml

from entrypoint.cli.flags import ENTRYPOINT
from tests import examples
from tests.manifests import DEPLOYMENTS, containers, documents, only, parse

pytestmark = pytest.mark.process

TEXT = "\n".join(page.read_text("utf-8") for page in examples.PAGES)
BLOCKS = list(examples.BLOCK.finditer(TEXT))
RECIPES = re.findall(r"<!-- recipe: (\S+) -->\n```yaml\nargs:\n((?:  - .*\n)+)```\n", TEXT)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block["flags"] or block["command"])
def test_an_example_is_what_the_program_prints(block):
    assert block["body"] == examples.actual(block)


def test_every_example_is_found():
    assert len(BLOCKS) == TEXT.count("```diff\n") + TEXT.count("```text\n$ multus-entrypoint")
    assert len(RECIPES) == TEXT.count("<!-- recipe:")
    assert (examples.ROOT / "docs/recipes.md").read_text("utf-8").count("```yaml\nargs:") == len(RECIPES)


def test_every_flag_has_an_example():
    shown = " ".join(f"{block['flags']} {block['command']}" for block in BLOCKS)
    assert [flag.opts[0] for flag in ENTRYPOINT if not re.search(rf"{flag.opts[0]}(?![\w-])", shown)] == []


@pytest.mark.parametrize(("master", "lines"), RECIPES)
def test_the_flags_of_a_recipe_configure_a_node_with_that_network(master, lines, tmp_path):
    flags = re.findall(r'^  - "(.*)"$', lines, re.MULTILINE)
    assert len(flags) == lines.count("\n")
    node = examples.Node(tmp_path, master)
    (tmp_path / "host/etc/cni/net.d/20-calico.conflist").unlink()
    code, said = node.said(" ".join([*flags, "NODE_NAME=worker-1", "--dry-run"]))
    assert code == 0, said
    assert "would write /host/etc/cni/net.d/00-multus.conf" in said


def test_the_scratch_node_leaves_no_path_of_this_machine_in_an_example():
    assert tempfile.gettempdir() == "/" or not re.search(r"/tmp/(?!multus)", TEXT)
    assert str(Path.home()) not in TEXT or str(Path.home()) == "/"


def test_the_pod_for_a_dry_run_has_the_mounts_of_the_manifest_and_prints_what_the_page_shows():
    (text,) = re.findall(r"<<'EOF'\n([^<]*?\n  name: multus-dry-run\n.*?)^EOF$", TEXT, re.MULTILINE | re.DOTALL)
    pod = yaml.safe_load(text)["spec"]
    (container,) = pod["containers"]
    (installer,) = containers(daemon_set := only(documents(DEPLOYMENTS / "multus-daemonset.yml"), "DaemonSet"))
    there = {volume["name"]: volume.get("hostPath") for volume in daemon_set["spec"]["template"]["spec"]["volumes"]}
    for volume in pod["volumes"]:
        assert volume["hostPath"]["path"] == there[volume["name"]]["path"]
    mounted = {mount["name"]: mount["mountPath"] for mount in installer["volumeMounts"]}
    for mount in container["volumeMounts"]:
        assert (mount["mountPath"], mount["readOnly"]) == (mounted[mount["name"]], True)
    assert (container["image"], container["command"]) == (installer["image"], installer["command"])
    (shown,) = (block["body"] for block in BLOCKS if block["command"] == " ".join(container["args"]))
    assert examples.outcome(" ".join(container["args"])) == (0, shown)


def test_the_commands_of_the_pages_put_an_image_of_ones_own_into_the_manifest():
    """What stands between the image's name and kubectl."""
    pages = [examples.ROOT / "README.md", *examples.PAGES]
    script = re.compile(r"^(IMAGE=.*\n)(?:.+\n)*?(sed .*) \| kubectl apply -f -$", re.MULTILINE)
    found = [(page.name, each) for page in pages for each in script.findall(page.read_text("utf-8"))]
    assert len(found) > 2
    for name, lines in found:
        command = ["bash", "-euc", "".join(lines)]
        ran = subprocess.run(command, cwd=examples.ROOT, capture_output=True, text=True, check=True)
        images = {container["image"] for container in containers(only(parse(ran.stdout), "DaemonSet"))}
        assert images == {"registry.example.com/infra/multus-entrypoint:v0.1.0"}, name
