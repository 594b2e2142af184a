"""The house: a folder imports only folders below it, and the resident process stays small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "entrypoint"
BELOW = {
    "cli": {"node", "check", "uninstall", "install", "cni", "disk", "telling", "settings", "__init__"},
    "check": {"node", "owner", "errands", "cluster", "telling", "cni", "disk", "settings"},
    "uninstall": {"node", "owner", "telling", "cni", "disk", "settings", "install"},
    "node": {"owner", "errands", "telling", "cni", "disk", "settings"},
    "errands": {"cluster", "telling", "settings", "cni", "disk"},
    "cluster": {"cni", "telling"},
    "owner": {"disk", "telling"},
    "install": {"disk"},
    "telling": {"disk"},
    "settings": {"cni"},
    "cni": set(),
    "disk": set(),
    "__main__": {"cli"},
}
"""Which rooms of the first floor each may import; what stands alone beside the folders is one, too."""


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "entrypoint":
            yield from (alias.name for alias in node.names if not alias.name.startswith("__"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("entrypoint."):
            yield node.module.split(".")[1]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_folder_imports_only_what_is_below_it(path):
    assert set(imported(path)) <= BELOW.get(room(path), set()) | {room(path)}


def test_the_resident_process_does_not_load_the_kubernetes_client():
    program = (
        "import sys; from entrypoint.cli import commands; from entrypoint.node import loop; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert {"click", "jinja2", "watchdog"} <= set(loaded)
    assert not {"kubernetes", "yaml", "ssl", "urllib3", "jeepney"} & set(loaded)
