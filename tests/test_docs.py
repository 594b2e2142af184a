import json
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from entrypoint.cli.flags import CHECK, ENTRYPOINT, INSTALL, UNINSTALL

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("bench/*.md"),
        *ROOT.glob("tests/**/*.md"),
        *ROOT.glob("deployments/**/*.md"),
    }
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """Return the fragments that GitHub makes of a page's headings."""
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *$", without_code(page.read_text("utf-8")), re.MULTILINE):
        words = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower()
        fragment = re.sub(r"[^\w -]", "", words).replace(" ", "-")
        found.add(
            next(name for number in range(99) if (name := f"{fragment}-{number}" if number else fragment) not in found)
        )
    return found


def test_the_tables_of_flags_are_the_command_lines():
    subprocess.run([sys.executable, ROOT / "tools/flags_table.py", "--check"], check=True, cwd=ROOT)


@pytest.mark.parametrize(("command", "declared"), [("check", CHECK), ("uninstall", UNINSTALL), ("install", INSTALL)])
def test_the_table_of_subcommands_has_the_flags_of_each(command, declared):
    (row,) = re.findall(rf"^\| `{command}` \|(.*?) \|", (ROOT / "docs/flags.md").read_text("utf-8"), re.MULTILINE)
    own = {flag.opts[0] for flag in declared} - {flag.opts[0] for flag in ENTRYPOINT}
    assert set(re.findall(r"--[\w-]+", row)) == own


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(without_code(page.read_text("utf-8"))):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if fragment:
            assert fragment in anchors(target), f"{link}: {sorted(anchors(target))}"


def blocks(language):
    pattern = rf"^```{language}\n(.*?)^```$"
    return [
        (page, block)
        for page in PAGES
        for block in re.findall(pattern, page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.parametrize(("page", "block"), blocks("sh"))
def test_commands_and_objects_in_the_pages_are_well_formed_and_name_what_is_there(page, block):
    subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    for path in re.findall(r"(?<![\w/.-])(?:deployments|tests|demo|bench)/[\w./-]+", block):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"^make ([\w-]+)", block, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
    known = {"--help", "--version", *(name for flag in [*ENTRYPOINT, *CHECK, *UNINSTALL] for name in flag.opts)}
    for line in re.findall(r"multus-entrypoint (.*)", block):
        assert {word.partition("=")[0] for word in line.split() if word.startswith("--")} <= known, line
    for content in re.findall(r"<<'EOF'\n(.*?)^EOF$", block, re.MULTILINE | re.DOTALL):
        for document in yaml.safe_load_all(content):  # JSON is YAML too
            assert "apiVersion" in document or "cniVersion" in document
            if document.get("kind") == "Pod":
                kubernetes_validate.validate(document, "1.37", strict=True)
            config = document.get("spec", {}).get("config")
            assert config is None or {"cniVersion", "type"} <= set(json.loads(config))


@pytest.mark.parametrize(("page", "block"), blocks("sh"))
def test_who_follows_a_page_applies_no_image_that_is_not_published(page, block):
    applied = re.findall(r"kubectl apply -f (deployments/\S+)", block)
    if any("image:" in (ROOT / path).read_text("utf-8") for path in applied):
        assert "kind load" in block, (
            f"{page}: put an image of one's own into the manifest, as the page on installing does"
        )


def test_every_page_is_reached_from_the_readme():
    reached, pending = set(), [ROOT / "README.md"]
    while pending:
        page = pending.pop()
        reached.add(page)
        for link in LINK.findall(without_code(page.read_text("utf-8"))):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.is_dir():
                target /= "README.md"
            if target.suffix == ".md" and target.exists() and target not in reached:
                pending.append(target)
    assert set(PAGES) - reached == set()


def test_no_file_names_a_package_registry():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    hosts = ("pypi" + ".org", "files.python" + "hosted.org", "registry.npm" + "js.org", "deb.debian" + ".org")
    for name in tracked or [str(path) for path in ROOT.glob("*.txt")]:
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        assert not any(host.encode() in content for host in hosts), name


def test_what_commands_of_the_pages_name_in_the_cluster_is_in_the_manifests():
    paths = [ROOT / f"deployments/multus-{name}.yml" for name in ("daemonset", "uninstall")]
    there = [each for path in paths for each in yaml.safe_load_all(path.read_text("utf-8"))]
    daemon_sets = {each["metadata"]["name"]: each["spec"]["template"] for each in there if each["kind"] == "DaemonSet"}
    labels = {template["metadata"]["labels"]["name"] for template in daemon_sets.values()}
    named, selected = set(), set()
    for _, block in blocks("sh"):
        for line in re.findall(r"^kubectl -n kube-system .*", block.replace("\\\n", ""), re.MULTILINE):
            named |= set(re.findall(r"daemonset[/ ]([\w-]+)", line))
            selected |= set(re.findall(r"-l name=([\w-]+)", line))
    assert named == set(daemon_sets)
    assert selected <= labels
