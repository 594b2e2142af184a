"""How flags are said to the real program, and what is wrong usage; `tests/test_flags.py` has each flag in each form."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from tests.process.scratch import FLANNEL, MULTUS, overwrite
from tests.test_flags import BOOLEANS, INVALID, OTHERS, PATHS, VISIBLE, planned, variable


@pytest.fixture
def ready_host(host):
    host.master()
    return host


def test_flags_work_joined_apart_and_from_the_environment(ready_host):
    joined = [f"--{flag}" for flag in VISIBLE if "hosted" not in flag]
    values = [flag.removeprefix("--").partition("=") for flag in joined]
    apart = [f"--{name}={value}" if name in BOOLEANS else f"--{name} {value}" for name, _, value in values if value]
    apart = [f"--{name}" for name, _, value in values if not value] + " ".join(apart).split()
    env = {variable(name): value or "true" for name, _, value in values}
    expected = {key: value for flag in joined for key, value in VISIBLE[flag.removeprefix("--")].items()}
    for arguments, variables in ((joined, None), (apart, None), ([], env)):
        outcome = ready_host.run("--dry-run", *arguments, env=variables)
        assert outcome.returncode == 0, outcome.stderr
        assert expected.items() <= planned(outcome.stdout).items()


def test_invalid_values_are_wrong_usage_and_nothing_is_written(ready_host):
    before = ready_host.snapshot()
    for flag in ("multus-log-level", "namespace-isolation"):
        for outcome in (
            ready_host.run(f"--{flag}={INVALID[flag][0]}"),
            ready_host.run(env={variable(flag): INVALID[flag][0]}),
        ):
            assert outcome.returncode == 2, outcome.stderr
            assert f"--{flag}" in outcome.stderr
    assert ready_host.snapshot() == before


def test_a_flag_before_the_subcommand_wins_over_the_environment(ready_host):
    with ready_host.configured() as program:
        program.stop()
    other = ready_host.root / "other"
    other.mkdir()
    (other / "00-multus.conf").write_bytes(ready_host.conf.read_bytes())
    env = {variable("cni-conf-dir"): str(other)}
    outcome = ready_host.run("uninstall", "--force", env=env)  # --cni-conf-dir stands before it
    assert outcome.returncode == 0, outcome.stderr
    assert not ready_host.conf.exists()
    assert (other / "00-multus.conf").exists()


def test_every_boolean_works_bare(ready_host):
    bare = [f"--{flag}" for flag in BOOLEANS if flag != "restart-crio"]
    shutil.copy(ready_host.multus, ready_host.installed)  # --skip-multus-binary-copy: somebody else's
    before = ready_host.snapshot()
    outcome = ready_host.run(*bare)
    assert outcome.returncode == 0, outcome.stderr
    assert ready_host.snapshot() == before  # --dry-run was among them
    outcome = ready_host.run(*bare, "--multus-log-level", "debug")  # and does not swallow what follows
    assert '"logLevel": "debug"' in outcome.stdout


def test_a_word_behind_a_bare_boolean_is_not_its_value(ready_host):
    outcome = ready_host.run("--dry-run", "--namespace-isolation", "false")
    assert outcome.returncode == 2
    assert "--namespace-isolation=false" in outcome.stderr


@pytest.mark.parametrize("flag", PATHS)
def test_an_empty_path_means_the_default(ready_host, flag):
    if os.path.exists(PATHS[flag]):
        pytest.skip(f"{PATHS[flag]} is there")
    outcome = ready_host.run(f"--{flag}=")
    assert outcome.returncode == 1
    assert PATHS[flag] in outcome.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KUBECONFIG_MODE", "rw"),
        ("KUBECONFIG_MODE", "888"),
        ("SKIP_TLS_VERIFY", "maybe"),
        ("KUBERNETES_SERVICE_PROTOCOL", "foo"),
    ],
)
def test_an_invalid_variable_is_wrong_usage_that_names_it(ready_host, name, value):
    before = ready_host.snapshot()
    outcome = ready_host.run(env={name: value})
    assert outcome.returncode == 2
    assert name in outcome.stderr
    assert value in outcome.stderr
    assert ready_host.snapshot() == before


def test_an_unknown_flag_is_wrong_usage_that_suggests_the_nearest(ready_host):
    before = ready_host.snapshot()
    outcome = ready_host.run("--multus-conf-fil=auto")
    assert outcome.returncode == 2
    assert "--multus-conf-file" in outcome.stderr
    assert ready_host.run("surplus").returncode == 2
    assert ready_host.snapshot() == before


@pytest.mark.parametrize("flag", ["-h", "--help", "--version"])
def test_help_and_version_end_with_0_and_write_to_stdout(ready_host, flag):
    outcome = ready_host.run(flag)
    assert outcome.returncode == 0
    assert outcome.stdout
    assert not outcome.stderr
    if flag != "--version":
        for name in [*BOOLEANS, *OTHERS, *PATHS]:
            assert (f"--{name}" in outcome.stdout) is (name != "force-cni-version")


def test_a_dry_run_touches_nothing_and_masks_the_token(ready_host):
    before = ready_host.snapshot()
    outcome = ready_host.run("--dry-run")
    assert outcome.returncode == 0
    assert ready_host.snapshot() == before
    assert "token-1" not in outcome.stdout + outcome.stderr
    for path in (ready_host.kubeconfig, ready_host.installed, ready_host.conf):
        assert str(path) in outcome.stdout


@pytest.mark.parametrize("static", [False, True], ids=["auto", "static"])
def test_a_dry_run_masks_what_is_secret_in_the_default_networks_configuration(host, static):
    calico = {"type": "calico", "policy": {"type": "k8s", "k8s_auth_token": "hush"}, "etcd_password": "hush"}
    flags = []
    if static:
        path = host.image / "70-multus.conf"
        overwrite(path, json.dumps({**MULTUS, "delegates": [{**FLANNEL, "plugins": [calico]}]}))
        flags = [f"--multus-conf-file={path}"]
    else:
        host.master(plugins=[calico])
    outcome = host.run("--dry-run", *flags)
    assert outcome.returncode == 0, outcome.stderr
    assert "hush" not in outcome.stdout
    assert outcome.stdout.count('"(masked)"') == 3  # and the token of the kubeconfig
    assert '"type": "k8s"' in outcome.stdout


def test_a_dry_run_of_a_configured_node_has_nothing_to_do(ready_host):
    with ready_host.configured() as program:
        program.stop()
    outcome = ready_host.run("--dry-run")
    assert (outcome.returncode, "nothing to do" in outcome.stdout) == (0, True)


def test_a_dry_run_that_could_not_do_its_work_says_why(host):
    before = host.snapshot()
    outcome = host.run("--dry-run")
    assert outcome.returncode == 1
    assert "waiting for a CNI configuration" in outcome.stderr
    overwrite(host.multus, "")
    host.multus.unlink()
    outcome = host.run("--dry-run")
    assert outcome.returncode == 1
    assert "--multus-bin-file" in outcome.stderr
    assert host.snapshot() == before


def test_every_line_of_a_json_log_is_json(ready_host):
    with ready_host.configured("--log-format=json") as program:
        (ready_host.conf_dir / "10-flannel.conflist").unlink()
        program.says("no usable master")
        program.stop()
        records = [json.loads(line) for line in program.log.splitlines()]
    assert {record["level"] for record in records} >= {"info", "warning"}
