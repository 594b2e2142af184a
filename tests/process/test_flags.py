"""How flags are said to the real program, and wrong usage; `tests/test_settings.py` has each flag in each form."""

from __future__ import annotations

import json
import shutil

import pytest

from entrypoint.cli.flags import ENTRYPOINT
from tests.flags import BOOLEANS, variable
from tests.process.scratch import FLANNEL, MULTUS, overwrite

VISIBLE = {
    "--namespace-isolation": {"namespaceIsolation": True},
    "--override-network-name": {"name": "cbr0"},
    "--multus-kubeconfig-file-host=/k/config": {"kubeconfig": "/k/config"},
    "--multus-cni-conf-dir=/host/etc/cni/multus/net.d": {"confDir": "/etc/cni/multus/net.d"},
    "--cni-version=0.3.0": {"cniVersion": "0.3.0"},
    "--global-namespaces=a,b": {"globalNamespaces": "a,b"},
    "--multus-log-level=Verbose": {"logLevel": "verbose"},
    "--multus-log-file=/var/log/x": {"logFile": "/var/log/x"},
    "--multus-log-to-stderr=false": {"logToStderr": False},
    "--readiness-indicator-file=/run/r": {"readinessindicatorfile": "/run/r"},
    "--additional-bin-dir=/opt/b": {"binDir": "/opt/b"},
}


def planned(said):
    """Return the configuration that a dry run said it would write."""
    lines = said.partition("00-multus.conf, mode 600:\n")[2].splitlines()
    return json.loads("\n".join(line for line in lines if line.startswith("    ")))


@pytest.fixture
def ready_host(host):
    host.master()
    return host


def test_flags_work_joined_apart_and_from_the_environment(ready_host):
    values = [flag.partition("=") for flag in VISIBLE]
    apart = [f"{name}={value}" if name in BOOLEANS else f"{name} {value}" for name, _, value in values if value]
    apart = [name for name, _, value in values if not value] + " ".join(apart).split()
    env = {variable(name): value or "true" for name, _, value in values}
    expected = {key: value for keys in VISIBLE.values() for key, value in keys.items()}
    for arguments, variables in ((VISIBLE, None), (apart, None), ([], env)):
        outcome = ready_host.run("--dry-run", *arguments, env=variables)
        assert outcome.returncode == 0, outcome.stderr
        assert expected.items() <= planned(outcome.stdout).items()


@pytest.mark.parametrize(
    ("arguments", "env", "words"),
    [
        ("--multus-log-level=chatty", {}, ("--multus-log-level", "chatty")),
        ("", {"ENTRYPOINT_NAMESPACE_ISOLATION": "maybe"}, ("--namespace-isolation", "maybe")),
        ("--dry-run --namespace-isolation false", {}, ("--namespace-isolation=false",)),
        ("--multus-master-cni-file-name=/etc/x", {}, ("--multus-master-cni-file-name", "/etc/x")),
        ("", {"KUBECONFIG_MODE": "888"}, ("KUBECONFIG_MODE", "888")),
        ("", {"SKIP_TLS_VERIFY": "maybe"}, ("SKIP_TLS_VERIFY", "maybe")),
        ("check --timeout=1e10", {}, ("--timeout", "1e10")),
        ("--multus-conf-fil=auto", {}, ("--multus-conf-file",)),
        ("surplus", {}, ("surplus",)),
        ("surplus --dry-run", {}, ("surplus",)),
    ],
)
def test_wrong_usage_names_what_is_wrong_and_nothing_is_written(ready_host, arguments, env, words):
    before = ready_host.snapshot()
    outcome = ready_host.run(*arguments.split(), env=env)
    assert outcome.returncode == 2
    assert all(word in outcome.stderr for word in words), outcome.stderr
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


def test_every_boolean_works_bare_and_does_not_swallow_what_follows(ready_host):
    bare = [flag for flag in BOOLEANS if flag not in {"--restart-crio", "--wait-for-readiness-indicator"}]
    shutil.copy(ready_host.multus, ready_host.installed)  # --skip-multus-binary-copy: somebody else's
    before = ready_host.snapshot()
    outcome = ready_host.run(*bare, "--multus-log-level", "debug")
    assert outcome.returncode == 0, outcome.stderr
    assert '"logLevel": "debug"' in outcome.stdout
    assert ready_host.snapshot() == before  # --dry-run was among them


@pytest.mark.parametrize("flag", ["-h", "--help", "--version"])
def test_help_and_version_end_with_0_and_write_to_stdout(ready_host, flag):
    outcome = ready_host.run(flag)
    assert outcome.returncode == 0
    assert outcome.stdout
    assert not outcome.stderr
    if flag != "--version":
        for each in ENTRYPOINT:
            assert (each.opts[0] in outcome.stdout) is not each.hidden


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
