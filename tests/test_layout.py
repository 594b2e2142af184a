"""The house: imports run downward only, and the resident process stays small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "entrypoint"

MAY_IMPORT = {
    "settings": set(),
    "validation": {"cniconf", "settings"},
    "logs": set(),
    "wakeup": set(),
    "memory": set(),
    "masking": set(),
    "mounts": set(),
    "cniconf": {"gojson", "settings"},
    "runtime": {"cniconf", "gojson"},
    "gojson": set(),
    "mergepatch": {"gojson"},
    "node": {"cniconf"},
    "render": {"cniconf", "gojson", "mergepatch", "settings"},
    "verdict": {"chained", "mounts", "node", "runtime", "settings"},
    "chained": {"cniconf", "gojson", "node"},
    "handover": {"chained", "gojson", "node"},
    "renaming": {"chained", "cniconf", "gojson", "node"},
    "choose": {"cniconf", "node", "renaming", "settings"},
    "needed": {"node", "render", "settings"},
    "wanted": {"choose", "cniconf", "gojson", "mergepatch", "node", "renaming", "render", "settings"},
    "plan": {"chained", "cniconf", "handover", "needed", "node", "renaming", "settings", "verdict", "wanted"},
    "report": {"logs", "node"},
    "files": {"node"},
    "programs": {"files"},
    "moving": {"files"},
    "throttle": {"node"},
    "readiness": {"files"},
    "alive": {"files"},
    "presence": {"alive", "files"},
    "leaving": {"files", "host", "logs", "moving", "node", "plan", "report", "settings", "ways"},
    "ways": set(),
    "signals": {"wakeup"},
    "dryrun": {"host", "logs", "masking", "node", "plan", "settings"},
    "watch": {"logs", "wakeup", "ways"},
    "looks": {"files", "node"},
    "candidates": {"cniconf", "looks", "node", "runtime", "settings"},
    "places": {"alive", "cniconf", "runtime", "settings"},
    "host": {
        "candidates",
        "cniconf",
        "files",
        "looks",
        "mounts",
        "moving",
        "node",
        "places",
        "programs",
        "runtime",
        "settings",
    },
    "cluster": {"memory"},
    "install": {"files", "programs"},
    "lists": {"cluster"},
    "podnetworks": {"gojson", "lists"},
    "options": set(),
    "running": {"flags", "options"},
    "flags": {"options", "settings"},
    "remarks": {"flags", "options", "validation"},
    "errands.child": {"logs"},
    "errands.crio": {"errands.child"},
    "errands.patience": {"cluster", "settings"},
    "errands.taint": {"cluster", "errands.child", "errands.patience", "settings"},
    "errands.events": {"cluster", "errands.patience", "podnetworks"},
    "errands.evictions": {"cluster", "errands.patience", "podnetworks"},
    "errands.repair": {
        "cluster",
        "errands.child",
        "errands.events",
        "errands.evictions",
        "errands.patience",
        "lists",
        "podnetworks",
    },
    "errands.errands": {"errands.child", "logs", "settings"},
    "daemon": {
        "errands.child",
        "errands.errands",
        "files",
        "host",
        "leaving",
        "logs",
        "node",
        "places",
        "plan",
        "presence",
        "programs",
        "readiness",
        "report",
        "settings",
        "signals",
        "throttle",
        "wakeup",
        "watch",
    },
    "check.findings": {"logs"},
    "check.plugins": set(),
    "check.reading": {"cluster"},
    "check.networks": {"check.findings", "check.plugins", "cluster", "gojson", "lists"},
    "check.pods": {"check.findings", "cluster", "lists", "podnetworks"},
    "check.questions": {"check.networks", "check.pods", "cluster", "settings"},
    "check.node": {
        "chained",
        "check.findings",
        "check.plugins",
        "cniconf",
        "gojson",
        "node",
        "runtime",
        "settings",
        "verdict",
    },
    "check.kubeconfig": {
        "chained",
        "check.findings",
        "check.node",
        "check.reading",
        "cluster",
        "node",
        "settings",
        "verdict",
    },
    "check.cluster": {
        "check.findings",
        "check.networks",
        "check.plugins",
        "check.pods",
        "check.questions",
        "cluster",
        "errands.taint",
        "settings",
    },
    "check.looking": {
        "alive",
        "check.cluster",
        "check.findings",
        "check.kubeconfig",
        "check.node",
        "check.owner",
        "check.plugins",
        "host",
        "looks",
        "node",
        "plan",
        "settings",
    },
    "check.owner": {"alive", "check.findings"},
    "uninstall.access": {"alive", "host", "needed", "node", "settings"},
    "uninstall.deciding": {"chained", "cniconf", "gojson", "node", "renaming", "settings"},
    "uninstall.records": {"gojson", "looks", "node"},
    "uninstall.waiting": {"uninstall.access", "uninstall.records", "wakeup", "watch"},
    "uninstall.doing": {
        "cniconf",
        "files",
        "host",
        "install",
        "looks",
        "moving",
        "node",
        "places",
        "presence",
        "programs",
        "runtime",
        "settings",
        "uninstall.access",
        "uninstall.deciding",
        "uninstall.waiting",
    },
}
EVERYBODY = {"cli", "__main__"}
PURE = {
    "choose",
    "masking",
    "mergepatch",
    "mounts",
    "places",
    "settings",
    "validation",
    "verdict",
    "cniconf",
    "gojson",
    "runtime",
    "node",
    "render",
    "renaming",
    "plan",
    "needed",
    "wanted",
    "uninstall.deciding",
}
PURE |= {
    "lists",
    "podnetworks",
    "check.networks",
    "check.pods",
    "check.findings",
    "check.plugins",
    "check.reading",
    "check.node",
    "check.kubeconfig",
}


def tree(module):
    return ast.parse(PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text())


def imported(module):
    packages = {"entrypoint", "entrypoint.check", "entrypoint.errands", "entrypoint.uninstall"}
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module in packages:
            yield from (f"{node.module}.{alias.name}".removeprefix("entrypoint.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("entrypoint."):
            yield node.module.removeprefix("entrypoint.")


def test_every_module_has_its_place_in_the_house():
    there = {".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    assert {each for each in there if not each.endswith("__init__")} == MAY_IMPORT.keys() | EVERYBODY


@pytest.mark.parametrize("module", sorted(MAY_IMPORT))
def test_imports_run_downward_only(module):
    assert set(imported(module)) <= MAY_IMPORT[module]


@pytest.mark.parametrize("module", sorted(PURE))
def test_what_decides_neither_looks_nor_writes(module):
    calls = {
        node.func.attr for node in ast.walk(tree(module)) if isinstance(node, ast.Call) and hasattr(node.func, "attr")
    }
    disk = {"open", "write_bytes", "write_text", "unlink", "rename", "stat", "lstat", "listdir", "exists", "is_dir"}
    assert not calls & disk


def test_the_resident_process_does_not_load_the_kubernetes_client():
    program = "import sys; from entrypoint import cli;print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert {"click", "jinja2", "watchdog"} <= set(loaded)
    assert not {"kubernetes", "yaml", "ssl", "urllib3", "jeepney"} & set(loaded)
