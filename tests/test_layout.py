"""The house: imports run downward only, and the resident process stays small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "entrypoint"

MAY_IMPORT = {
    "settings": set(),
    "logs": set(),
    "cniconf": {"settings"},
    "node": {"cniconf"},
    "compiled": set(),
    "render": {"cniconf", "compiled", "settings"},
    "choose": {"cniconf", "node", "settings"},
    "plan": {"choose", "cniconf", "node", "render", "settings"},
    "report": {"node"},
    "files": {"node"},
    "throttle": {"node"},
    "wakeup": set(),
    "watch": {"logs", "wakeup"},
    "host": {"cniconf", "files", "node", "settings"},
    "child": {"logs"},
    "errands": {"child", "node", "settings"},
    "memory": set(),
    "cluster": {"memory"},
    "crio": {"child"},
    "taint": {"child", "cluster", "settings"},
    "findings": set(),
    "kubeconfig": {"cluster"},
    "questions": {"cluster", "settings"},
    "nodecheck": {"cniconf", "findings", "node", "settings"},
    "kubeconfigcheck": {"cluster", "findings", "kubeconfig", "node", "nodecheck", "settings"},
    "clustercheck": {"cluster", "findings", "questions", "settings", "taint"},
    "check": {
        "clustercheck",
        "cniconf",
        "findings",
        "host",
        "kubeconfigcheck",
        "node",
        "nodecheck",
        "plan",
        "settings",
    },
    "install": {"files"},
    "uninstall": {"cniconf", "node", "settings"},
    "uninstaller": {"cniconf", "files", "host", "install", "node", "settings", "uninstall"},
}
PURE = {"choose", "settings", "cniconf", "node", "compiled", "render", "plan", "report"}
PURE |= {"findings", "kubeconfig", "nodecheck", "kubeconfigcheck", "uninstall"}


def imported(module):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "entrypoint":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("entrypoint."):
            yield node.module.removeprefix("entrypoint.")


@pytest.mark.parametrize("module", sorted(MAY_IMPORT))
def test_imports_run_downward_only(module):
    assert set(imported(module)) <= MAY_IMPORT[module]


@pytest.mark.parametrize("module", sorted(PURE))
def test_what_decides_neither_looks_nor_writes(module):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    calls = {node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and hasattr(node.func, "attr")}
    disk = {"open", "write_bytes", "write_text", "unlink", "rename", "stat", "lstat", "listdir", "exists", "is_dir"}
    assert not calls & disk


def test_the_resident_process_loads_neither_the_command_line_nor_the_kubernetes_client():
    program = (
        "import sys; from entrypoint import daemon, watch;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert "watchdog" in loaded
    assert not {"click", "jinja2", "kubernetes", "yaml", "asyncio", "ssl", "_hashlib"} & set(loaded)
