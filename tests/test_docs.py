import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md")]


def test_the_table_of_flags_in_the_readme_is_the_command_lines():
    subprocess.run([sys.executable, ROOT / "tools/flags_table.py", "--check"], check=True, cwd=ROOT)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)[^)]*\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_no_file_names_a_package_registry():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    hosts = ("pypi" + ".org", "files.python" + "hosted.org", "registry.npm" + "js.org", "deb.debian" + ".org")
    for name in tracked or [str(path) for path in ROOT.glob("*.txt")]:
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        assert not any(host.encode() in content for host in hosts), name
