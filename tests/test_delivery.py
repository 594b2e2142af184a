"""What cannot run here, the GitHub workflows and the end-to-end scripts: at least its form."""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from tests.manifests import ROOT

WORKFLOWS = {path.stem: path for path in sorted(ROOT.glob(".github/workflows/*.yml"))}
JOBS = {name: yaml.safe_load(path.read_text())["jobs"] for name, path in WORKFLOWS.items()}
SCRIPTS = sorted(ROOT.glob("tests/e2e/*.sh"))
STEPS = [path for path in SCRIPTS if path.name[0].isdigit()]


def scripts_of(name):
    """Yield the shell scripts that a workflow has in itself."""
    for job in JOBS[name].values():
        yield from (step["run"] for step in job["steps"] if "run" in step)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_few_rights_a_time_limit_and_actions_that_are_one_commit(name):
    """A tag can be moved to other code; `make lint` lets zizmor look at the rest."""
    text = WORKFLOWS[name].read_text()
    document = yaml.safe_load(text)
    assert document["name"] == name
    assert document["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 60 for job in document["jobs"].values())
    used = re.findall(r"uses: *(.*)", text)
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_shell_of_a_workflow_is_well_formed_and_what_it_calls_is_there(name):
    targets = set(re.findall(r"^([\w./$()-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)) | {".venv/made"}
    for script in scripts_of(name):
        subprocess.run(["bash", "-n"], input=re.sub(r"\$\{\{.*?\}\}", "x", script), text=True, check=True)
        for called in re.findall(r"\bmake ((?:[\w./=$:-]+ ?)+)", script):
            for target in called.split():
                assert "=" in target or target in targets, target
        for file in re.findall(r"(?<![\w/])(?:tests|deployments|\.ci)/[\w./-]+(?![\w*])", script):
            assert (ROOT / file).exists(), file


def test_every_supported_python_is_tested():
    oldest = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text())[1]
    versions = JOBS["test"]["python"]["strategy"]["matrix"]["python"]
    assert versions == [f"3.{minor}" for minor in range(int(oldest), 15)]


def test_the_end_to_end_scripts_are_well_formed_can_be_called_and_are_all_on_their_page():
    for path in SCRIPTS:
        subprocess.run(["bash", "-n", path], check=True)
        assert path.name == "lib.sh" or path.stat().st_mode & 0o111 == 0o111, path
    page = (ROOT / "tests/e2e/README.md").read_text()
    assert re.findall(r"^\| \[([\w.-]+)\]", page, re.MULTILINE) == [path.name for path in STEPS]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    command = [
        "shellcheck",
        "--external-sources",
        "--source-path=SCRIPTDIR",
        *SCRIPTS,
        *ROOT.glob("tools/*.sh"),
        ROOT / ".ci/run",
    ]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("missing", ["KUBECONFIG", "IMAGE", "NODE_SHELL"])
def test_a_step_says_which_variable_it_needs(missing):
    variables = {"KUBECONFIG": "/nonexistent", "IMAGE": "example.com/x:1", "NODE_SHELL": "false"}
    del variables[missing]
    for path in STEPS:
        environ = {**variables, "PATH": os.defpath}
        ran = subprocess.run(["bash", path], env=environ, capture_output=True, text=True)
        assert ran.returncode != 0
        assert f"{missing}: " in ran.stderr, path
