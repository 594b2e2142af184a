"""What CONTRIBUTING.md promises to who changes something: a map that is whole, and to be told what is missing."""

import json
import re
import subprocess
import sys

import pytest

from entrypoint.cli.flags import ENTRYPOINT
from tests.manifests import CHART, ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
PACKAGE = ROOT / "entrypoint"
PEERS = {
    *("--cni-conf-dir", "--cni-bin-dir", "--multus-bin-file", "--multus-conf-file", "--multus-autoconfig-dir"),
    *("--multus-master-cni-file-name", "--multus-kubeconfig-file-host", "--multus-cni-conf-dir", "--cni-version"),
    *("--namespace-isolation", "--global-namespaces", "--multus-log-level", "--multus-log-file"),
    *("--multus-log-to-stderr", "--override-network-name", "--readiness-indicator-file", "--additional-bin-dir"),
    *("--skip-multus-binary-copy", "--rename-conf-file", "--cleanup-config-on-exit", "--restart-crio"),
    *("--skip-config-watch", "--skip-tls-verify"),
}
"""What the script of 3.9 and the program of 4.3 know."""
NOT_OF_THE_CHART = {
    "--cni-conf-dir",
    "--cni-bin-dir",
    "--multus-autoconfig-dir",
    "--ready-file",
    "--service-account-dir",
    "--plugin-bin-dir",
}
NOT_OF_THE_CHART |= {"--dry-run"}
"""What follows from the chart's mounts, and what is no way to run a DaemonSet."""
FLAGS = [flag for flag in ENTRYPOINT if not flag.hidden]
_COMMAND_LINE = ("contributing", "remarks", "settings", "help", "manifests", "chart")
EFFECTS = [
    path
    for path in sorted((ROOT / "tests").rglob("*.py"))
    if path.name not in {"flags.py", *(f"test_{name}.py" for name in _COMMAND_LINE)}
]
"""The tests that see what a flag does."""


def missing(flag):
    """Yield, for each place that does not know the flag yet, what to write there."""
    name = flag.opts[0]

    def known(path):
        return re.search(rf"{name}(?![\w-])", (ROOT / path).read_text("utf-8")) is not None

    if not any(re.search(rf"{name.removeprefix('--')}(?![\w-])", path.read_text("utf-8")) for path in EFFECTS):
        yield "test what it does: no file of tests/ names it beside those that only read the command line"
    if "NODE_NAME" in (flag.help or ""):
        manifest = (ROOT / "deployments/multus-daemonset.yml").read_text("utf-8")
        (rights,) = re.findall(r"^kind: ClusterRole$.*?^---$", manifest, re.MULTILINE | re.DOTALL)
        if name not in rights:
            yield "it asks the API server: give it a rule in the ClusterRole of deployments/multus-daemonset.yml"
        if name.removeprefix("--") not in (CHART / "templates/_helpers.tpl").read_text("utf-8"):
            yield "it asks the API server: give it a rule in errandsRules of the chart's templates/_helpers.tpl"
    page = (ROOT / "docs/flags.md").read_text("utf-8")
    if f"\n| `{name}` |" not in page:
        yield "run `make docs`, which writes it into the tables of docs/flags.md"
    if not re.search(rf"^(# |\$ multus-entrypoint ).*{name}(?![\w-])", page, re.MULTILINE):
        yield (
            "show its effect in docs/flags.md: a block ```diff that begins with '# " + name + "=...', then `make docs`"
        )
    schema = json.loads((CHART / "values.schema.json").read_text())
    if name not in NOT_OF_THE_CHART and name.removeprefix("--") not in schema["properties"]["flags"]["properties"]:
        yield "give it a type under `flags` in deployments/helm/multus-entrypoint/values.schema.json"
    for page in ("CHANGELOG.md", "docs/migrating.md") if name not in PEERS else ():
        if not known(page):
            yield f"neither 3.9 nor 4.3 has it: name it among what is new in {page}"


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.opts[0])
def test_a_flag_is_known_in_every_place(flag):
    left = list(missing(flag))
    assert not left, "\n".join([f"{flag.opts[0]} is not known everywhere yet (CONTRIBUTING.md, 'A new flag'):", *left])


def test_every_target_of_the_makefile_is_explained():
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    table = PAGE.partition("## Getting going")[2].partition("The first command")[0]
    explained = {word for names in re.findall(r"`make ([a-z -]+)`", table) for word in names.split()}
    assert set(targets) - explained == {"help", "clean"}


def test_what_ci_installs_is_in_the_table_of_what_the_tests_need():
    needed = set(re.findall(r"packages\+=\(([\w-]+)\)", (ROOT / ".ci/run").read_text()))
    table = PAGE.partition("### What the tests need")[2].partition("## ")[0]
    assert needed
    assert {package for package in needed if f"| `{package}` |" not in table} == set()


def test_ci_runs_the_targets_that_the_page_names():
    run = re.findall(r"^make (.*)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    said = PAGE.partition("`.ci/run` has")[2].partition("\n\n")[0]
    assert [f"make {targets}" for targets in run] == re.findall(r"`(make [^`]*)`", said)


def test_a_function_that_a_page_names_by_its_module_is_there():
    modules = {}
    for path in PACKAGE.rglob("*.py"):
        modules.setdefault(path.stem, []).append(path.read_text("utf-8"))
    named = [
        (page, module, name)
        for page in ("CONTRIBUTING.md", "docs/architecture.md")
        for module, name in re.findall(r"`(\w+)\.(\w+)`", (ROOT / page).read_text("utf-8"))
        if module in modules and name != "py"
    ]
    assert ("CONTRIBUTING.md", "files", "write") in named
    gone = [
        f"{page}: {module}.{name}"
        for page, module, name in named
        if not any(re.search(rf"\b(def|class) {name}\b", text) for text in modules[module])
    ]
    assert gone == []


@pytest.mark.process
def test_the_calls_that_run_one_test_find_some():
    calls = re.findall(r"^\.venv/bin/python (-m pytest .*)$", PAGE, re.MULTILINE)
    assert len(calls) > 1
    for call in calls:
        ran = subprocess.run([sys.executable, *call.split(), "--collect-only", "-q"], cwd=ROOT, capture_output=True)
        assert ran.returncode == 0, call
