import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md"), *ROOT.glob("tests/**/*.md")})
LINK = re.compile(r"\]\(([^)\s]+)\)")


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """Return the fragments that GitHub makes of a page's headings."""
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *$", without_code(page.read_text("utf-8")), re.MULTILINE):
        words = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower()
        fragment = re.sub(r"[^\w -]", "", words).replace(" ", "-")
        found.add(next(name for number in range(99) if (name := f"{fragment}-{number}" if number else fragment) not in found))
    return found


def test_the_tables_of_flags_are_the_command_lines():
    subprocess.run([sys.executable, ROOT / "tools/flags_table.py", "--check"], check=True, cwd=ROOT)


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


def test_links_to_upstream_reports_are_well_formed():
    for page in PAGES:
        for link in LINK.findall(page.read_text("utf-8")):
            if "multus-cni/issues" in link:
                assert re.fullmatch(r"https://github\.com/k8snetworkplumbingwg/multus-cni/issues/\d+", link), link


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
