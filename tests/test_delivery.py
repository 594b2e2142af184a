"""What cannot run here, the GitHub workflows and the end-to-end scripts: at least its form."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
FORMS = sorted(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml"))
SCRIPTS = sorted(ROOT.glob("tests/e2e/*.sh"))
STEPS = [path for path in SCRIPTS if path.name[0].isdigit()]


def name(path):
    return path.name


def scripts_of(workflow):
    """Yield the shell scripts that a workflow has in itself."""
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        yield from (step["run"] for step in job["steps"] if "run" in step)


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_a_workflow_has_a_trigger_few_rights_and_a_time_limit(path):
    document = yaml.safe_load(path.read_text())
    assert document["name"] == path.stem
    assert document[True]  # what YAML 1.1 makes of `on`
    assert document["permissions"] == {"contents": "read"}
    for job in document["jobs"].values():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), step


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_the_shell_of_a_workflow_is_well_formed(path):
    for script in scripts_of(path):
        subprocess.run(["bash", "-n"], input=re.sub(r"\$\{\{.*?\}\}", "x", script), text=True, check=True)


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_what_a_workflow_calls_is_there(path):
    targets = set(re.findall(r"^([\w./$()-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)) | {".venv/made"}
    for script in scripts_of(path):
        for called in re.findall(r"\bmake ((?:[\w./=$:-]+ ?)+)", script):
            for target in called.split():
                assert "=" in target or target in targets, target
        for file in re.findall(r"(?<![\w/])(?:tests|deployments|\.ci)/[\w./-]+(?![\w*])", script):
            assert (ROOT / file).exists(), file


def test_every_supported_python_is_tested():
    oldest = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text())[1]
    versions = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["python"]["strategy"]["matrix"]
    assert versions["python"] == [f"3.{minor}" for minor in range(int(oldest), 15)]


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_an_action_is_one_commit_with_its_version_beside_it(path):
    """A tag can be moved to other code; `make lint` lets zizmor look at the rest."""
    used = re.findall(r"uses: *(.*)", path.read_text())
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


@pytest.mark.parametrize("path", FORMS, ids=name)
def test_an_issue_form_asks_something(path):
    document = yaml.safe_load(path.read_text())
    if path.name == "config.yml":
        assert all({"name", "url", "about"} == set(link) for link in document["contact_links"])
        return
    assert {"name", "description", "body"} <= set(document)
    fields = [field for field in document["body"] if field["type"] != "markdown"]
    assert fields
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_a_script_is_well_formed_and_can_be_called(path):
    subprocess.run(["bash", "-n", path], check=True)
    assert path.name == "lib.sh" or path.stat().st_mode & 0o111 == 0o111


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    subprocess.run(
        ["shellcheck", "--external-sources", "--source-path=SCRIPTDIR", *SCRIPTS, ROOT / ".ci/run"], check=True
    )


@pytest.mark.parametrize("path", STEPS, ids=name)
@pytest.mark.parametrize("missing", ["KUBECONFIG", "IMAGE", "NODE_SHELL"])
def test_a_step_says_which_variable_it_needs(path, missing):
    variables = {
        "KUBECONFIG": "/nonexistent",
        "IMAGE": "example.com/x:1",
        "NODE_SHELL": "false",
        "PATH": "/usr/bin:/bin",
    }
    del variables[missing]
    ran = subprocess.run(["bash", path], env=variables, capture_output=True, text=True)
    assert ran.returncode != 0
    assert f"{missing}: " in ran.stderr


def test_the_page_of_the_steps_names_each():
    page = (ROOT / "tests/e2e/README.md").read_text()
    assert re.findall(r"^\| \[([\w.-]+)\]", page, re.MULTILINE) == [path.name for path in STEPS]


# ---- the steps, with a kubectl and a node that play along ----

KUBECTL = """#!/bin/bash
# A line at a time, as over a slow connection: who stops reading early is found out.
lines() { for line; do echo "$line"; sleep 0.02; done; }
echo "$*" >>"$STATE/calls"
case "$*" in
  *"delete daemonset"*) touch "$STATE/uninstalled" ;;
  kustomize*) exec "$KUBECTL" "$@" ;;
  *"apply -f -"*) { echo ---; cat; } >>"$STATE/applied" ;;
  *"label --local"*) cat >/dev/null; echo label ;;
  *"annotate --local"*stolen*) cat >/dev/null; echo annotation ;;
  *"annotate --local"*) cat >/dev/null; echo status ;;
  *"replace --raw"*)
    changed=$(cat)
    { [ "$changed" = status ] || [ -n "${HOLE-}" ] || ! grep -q AdmissionPolicy "$STATE/applied"; } && exit
    case "$*" in *elsewhere*) lines "Multus's token of node 'node-1' is for that node" ;; esac
    lines "must not change ${changed}s"
    exit 1
    ;;
  *"labels.stolen"*) lines ${LABELLED-yes} ;;
  *"rollout status"*"--timeout=20s"*) exit "${BAD_ROLLOUT-1}" ;;
  *"-- multus-entrypoint check"*) lines "${OWNER-warn     node.owner  a newer entrypoint keeps this node}" ;;
  *"exec during"*) lines eth0 lo net1 ;;
  *"patch poddisruptionbudget"*) touch "$STATE/allowed" ;;
  *"reason=NetworksMissing"*) lines ${REPORTED-bare without-1 without-2} ;;
  *"-l app=without -o name"*) lines pod/without-1 pod/without-2 ;;
  *"exec pod/without-"*) lines eth0 lo; [ ! -e "$STATE/allowed" ] || lines ${REPAIRED-net1} ;;
  *"exec bare"*) lines eth0 lo ${BARE-} ;;
  *"logs pod/kube-multus-ds"*)
    lines "not evicted yet: it would violate the pod's disruption budget" \
      "pod multus-e2e/bare (multus-e2e/second) lacks networks and is left as it is: nothing would make it again" ;;
  *"delete "*"-f -"*) cat >/dev/null ;;
  *"get events"*) lines ${FAILED_SANDBOX-} ;;
  *"jsonpath={range"*) lines node-1 node-2 ;;
  *"network-status"*) lines '[{"interface": "eth0"},' '{"interface": "'"${STATUS-net1}"'"}]' ;;
  *"get pods"*"-o name"*) lines pod/kube-multus-ds-x pod/kube-multus-ds-surge ;;
  *"exec text"*|*"exec rotated"*|*"exec come-and-go"*) lines eth0 lo ${NET1-net1} sit0 ;;
  *"exec json"*) lines eth0 lo uplink ;;
  *"exec plain"*) lines eth0 lo ${PLAIN-} ;;
  *"exec after"*|*"exec meanwhile"*) lines eth0 lo ;;
  *"logs -l name=multus-uninstall"*) lines "waiting: 1 pods of this node: ${WAITED_FOR-multus-e2e/staying}" ;;
esac
"""
NODE = """#!/bin/bash
shift
if [ -e "$STATE/uninstalled" ]; then
  [ -n "$KEEP" ] || rm -rf "$CONF_DIR/"* "$BIN_DIR/"*
else
  mkdir -p "$CONF_DIR/multus.d"
  echo "token: $(date +%s%N)" >"$CONF_DIR/multus.d/multus.kubeconfig"
  echo x | tee "$CONF_DIR/00-multus.conf" >"$BIN_DIR/multus"
fi
exec "$@"
"""


@pytest.fixture
def stage(tmp_path):
    """Run a step with programs that say yes to everything; return the process and what kubectl was asked."""
    for program, text in (("kubectl", KUBECTL), ("node", NODE)):
        (tmp_path / program).write_text(text)
        (tmp_path / program).chmod(0o755)
    for directory in ("conf", "bin"):
        (tmp_path / directory).mkdir()

    def run(step, **more):
        variables = {
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "KUBECONFIG": "/nonexistent",
            "IMAGE": "example.com/multus-entrypoint:test",
            "NODE_SHELL": str(tmp_path / "node"),
            "STATE": str(tmp_path),
            "CONF_DIR": str(tmp_path / "conf"),
            "BIN_DIR": str(tmp_path / "bin"),
            "PATIENCE": "2",
            "TOKEN_CACHED": "0",
            "KUBECTL": str(Path(sys.executable).parent / "kubectl"),
            **more,
        }
        command = ["bash", ROOT / "tests/e2e" / step]
        ran = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
        return ran, (tmp_path / "calls").read_text()

    return run


@pytest.mark.parametrize("path", STEPS, ids=name)
def test_a_step_goes_through_where_all_is_well(stage, path, tmp_path):
    ran, calls = stage(path.name)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "kube-multus-ds" in calls or path.name.startswith(("20", "35"))
    applied = (tmp_path / "applied").read_text() if (tmp_path / "applied").exists() else ""
    assert "ghcr.io" not in applied
    assert list(yaml.safe_load_all(applied)) or path.name.startswith("40")


def test_a_pod_without_its_interface_fails_the_step(stage):
    ran, _ = stage("20-attach.sh", NET1="")
    assert ran.returncode == 1
    assert "FAILED: pod text has no interface net1" in ran.stderr


def test_a_pod_whose_network_status_does_not_tell_of_its_interface_fails_the_step(stage):
    ran, _ = stage("20-attach.sh", STATUS="net2")
    assert ran.returncode == 1
    assert "FAILED: the pod's network-status does not tell of net1" in ran.stderr


def test_a_pod_that_asked_for_nothing_and_got_an_interface_fails_the_step(stage):
    ran, _ = stage("20-attach.sh", PLAIN="net1")
    assert ran.returncode == 1
    assert "FAILED: pod plain has an interface net1" in ran.stderr


def test_of_two_pods_on_a_node_the_first_is_checked(stage):
    ran, calls = stage("10-install.sh")
    assert ran.returncode == 0, ran.stderr
    assert calls.count("exec pod/kube-multus-ds-x -- multus-entrypoint check") == 2


def test_the_daemon_set_is_restarted_while_pods_come_and_go(stage):
    ran, calls = stage("50-restart.sh", RESTARTS="3", WORKERS="2")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert calls.count("rollout restart daemonset/kube-multus-ds") == calls.count("rollout status") == 3
    for node in ("node-1", "node-2"):
        for number in (1, 2):
            name = f"come-and-go-{node}-{number}"
            assert f"exec {name} -- ls" in calls
            assert f"delete pod {name}" in calls


def test_a_sandbox_that_failed_fails_the_step(stage):
    ran, _ = stage("50-restart.sh", FAILED_SANDBOX="come-and-go-node-1-1:Unauthorized")
    assert ran.returncode == 1
    assert (
        "FAILED: sandboxes that could not be made at the first attempt: come-and-go-node-1-1:Unauthorized" in ran.stderr
    )


def test_a_pod_that_comes_without_its_interface_fails_the_step(stage):
    ran, _ = stage("50-restart.sh", NET1="")
    assert ran.returncode == 1
    assert "FAILED: 6 workers saw a pod" in ran.stderr
    assert "has no interface net1" in ran.stdout


@pytest.mark.parametrize(
    ("play", "message"),
    [
        ({"HOLE": "1"}, "the refusal of a label on a pod that is elsewhere did not come"),
        ({"LABELLED": ""}, "the token cannot label a pod even without the policy: this step shows nothing"),
    ],
    ids=["the policy does not hold", "nothing to hold"],
)
def test_a_policy_that_was_not_seen_to_hold_fails_the_step(stage, play, message):
    ran, _ = stage("35-policy.sh", **play)
    assert ran.returncode == 1
    assert f"FAILED: {message}" in ran.stderr


@pytest.mark.parametrize(
    ("play", "message"),
    [
        ({"BAD_ROLLOUT": "0"}, "a rollout with a wrong flag went through"),
        ({"OWNER": "pass     node.owner"}, "the warning of check in a pod beside a newer one did not come"),
    ],
    ids=["goes through", "no warning"],
)
def test_a_bad_rollout_that_is_not_met_as_it_must_be_fails_the_step(stage, play, message):
    ran, _ = stage("55-bad-rollout.sh", **play)
    assert ran.returncode == 1
    assert f"FAILED: {message}" in ran.stderr


def test_each_bad_rollout_is_undone(stage):
    ran, calls = stage("55-bad-rollout.sh")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert calls.count("patch daemonset") == calls.count("rollout undo daemonset/kube-multus-ds") == 3


@pytest.mark.parametrize(
    ("play", "message"),
    [
        ({"REPORTED": "bare"}, "an Event on each of the three pods did not come"),
        ({"REPAIRED": ""}, "the second interface of the pods that were made again did not come"),
        ({"BARE": "net1"}, "pod bare has an interface net1"),
    ],
    ids=["not reported", "not repaired", "not left alone"],
)
def test_pods_that_are_not_treated_as_asked_fail_the_step(stage, play, message):
    ran, _ = stage("60-repair-pods.sh", **play)
    assert ran.returncode == 1
    assert f"FAILED: {message}" in ran.stderr


@pytest.mark.parametrize("manifest", ["multus-daemonset.yml", "k3s"])
def test_pods_are_repaired_with_the_rights_that_the_manifest_has_off(stage, tmp_path, manifest):
    ran, _ = stage("60-repair-pods.sh", MANIFEST=manifest)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    applied = [document for document in yaml.safe_load_all((tmp_path / "applied").read_text()) if document]
    modes = [
        flag.partition("=")[2]
        for document in applied
        if document["kind"] == "DaemonSet"
        for flag in document["spec"]["template"]["spec"]["containers"][0]["args"]
        if flag.startswith("--repair-pods")
    ]
    evictions = [
        any(rule["resources"] == ["pods/eviction"] for rule in document["rules"])
        for document in applied
        if document["kind"] == "ClusterRole"
    ]
    assert (modes, evictions) == (["report", "delete"], [True, True, False])


def test_an_uninstaller_that_does_not_wait_for_a_pod_fails_the_step(stage):
    ran, _ = stage("90-uninstall.sh", WAITED_FOR="")
    assert ran.returncode == 1
    assert "FAILED: word of the pod that is waited for did not come" in ran.stderr


def test_a_file_that_is_left_behind_fails_the_step(stage):
    stage("10-install.sh")
    ran, _ = stage("90-uninstall.sh", KEEP="1")
    assert ran.returncode == 1
    assert "FAILED: left on node-1" in ran.stderr


@pytest.mark.parametrize("manifest", ["multus-daemonset.yml", "k3s"])
def test_force_reaches_the_uninstaller(stage, tmp_path, manifest):
    stage("90-uninstall.sh", FORCE="1", MANIFEST=manifest)
    arguments = [
        container["args"]
        for document in yaml.safe_load_all((tmp_path / "applied").read_text())
        if document and document["kind"] == "DaemonSet"
        for container in document["spec"]["template"]["spec"]["initContainers"]
    ]
    assert arguments
    assert all("--force" in each for each in arguments)


def test_a_platform_is_installed_and_uninstalled_with_its_own_paths(stage, tmp_path):
    for step in ("10-install.sh", "90-uninstall.sh"):
        ran, _ = stage(step, MANIFEST="k3s")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        documents = list(yaml.safe_load_all((tmp_path / "applied").read_text()))
        (daemon_set,) = [document for document in documents if document and document["kind"] == "DaemonSet"]
        assert "/var/lib/rancher/k3s/data/cni" in str(daemon_set)
        (tmp_path / "applied").unlink()
