"""How flags are said: forms, empty values, environment, and what is wrong usage."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.process.scratch import FLANNEL, MULTUS, overwrite

BOOLEANS = [
    "namespace-isolation",
    "multus-log-to-stderr",
    "override-network-name",
    "skip-multus-binary-copy",
    "rename-conf-file",
    "cleanup-config-on-exit",
    "restart-crio",
    "skip-config-watch",
    "skip-tls-verify",
    "force-cni-version",
    "dry-run",
]
PATHS = {
    "cni-conf-dir": "/host/etc/cni/net.d",
    "cni-bin-dir": "/host/opt/cni/bin",
    "multus-bin-file": "/usr/src/multus-cni/bin/multus",
    "multus-conf-file": "/usr/src/multus-cni/images/70-multus.conf",
    "service-account-dir": "/var/run/secrets/kubernetes.io/serviceaccount",
}
OTHERS = [
    "multus-autoconfig-dir",
    "multus-master-cni-file-name",
    "multus-kubeconfig-file-host",
    "multus-cni-conf-dir",
    "cni-version",
    "global-namespaces",
    "multus-log-level",
    "multus-log-file",
    "readiness-indicator-file",
    "additional-bin-dir",
    "wait-timeout",
    "startup-taint",
    "log-format",
    "ready-file",
]
VISIBLE = {
    "namespace-isolation": {"namespaceIsolation": True},
    "override-network-name": {"name": "cbr0"},
    "multus-kubeconfig-file-host=/k/config": {"kubeconfig": "/k/config"},
    "multus-cni-conf-dir=/host/etc/cni/multus/net.d": {"confDir": "/etc/cni/multus/net.d"},
    "multus-cni-conf-dir=/hosted/net.d": {"confDir": "/hosted/net.d"},
    "cni-version=0.3.0": {"cniVersion": "0.3.0"},
    "global-namespaces=a,b": {"globalNamespaces": "a,b"},
    "multus-log-level=Verbose": {"logLevel": "verbose"},
    "multus-log-file=/var/log/x": {"logFile": "/var/log/x"},
    "multus-log-to-stderr=false": {"logToStderr": False},
    "readiness-indicator-file=/run/r": {"readinessindicatorfile": "/run/r"},
    "additional-bin-dir=/opt/b": {"binDir": "/opt/b"},
}
INVALID = {
    "multus-log-level": ["chatty", "debugg", "info"],
    "cni-version": ["one", "1.2.3.4", "v1.0.0", "1.", "-1", " "],
    "wait-timeout": ["soon", "-1", "nan", "inf", "10x", "1d"],
    "additional-bin-dir": ["opt/bin"],
    "multus-log-file": ["multus.log"],
    "log-format": ["xml"],
    "startup-taint": ["key:Never", ":NoSchedule", "a b", "key:"],
    "multus-master-cni-file-name": ["/etc/passwd", "../x.conf", "00-multus.conf"],
    **{flag: ["maybe", "2", "truee", "on"] for flag in BOOLEANS},
}


def variable(flag):
    return "ENTRYPOINT_" + flag.upper().replace("-", "_")


def in_parallel(function, items):
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(function, items))


def planned(host, *flags, env=None):
    """Return the configuration that a dry run with these flags would write."""
    outcome = host.run("--dry-run", *flags, env=env)
    assert outcome.returncode == 0, outcome.stderr
    block = outcome.stdout.partition("00-multus.conf, mode 600:\n")[2].splitlines()
    lines = []
    for line in block:
        if not line.startswith("    "):
            break
        lines.append(line)
    return json.loads("\n".join(lines))


@pytest.fixture
def ready_host(host):
    host.master()
    return host


@pytest.mark.parametrize("flag", VISIBLE)
def test_a_flag_works_joined_apart_and_from_the_environment(ready_host, flag):
    name, _, value = flag.partition("=")
    forms = [([f"--{flag}"], None), ([], {variable(name): value or "true"})]
    if value and name not in BOOLEANS:
        forms.append(([f"--{name}", value], None))
    expected = VISIBLE[flag].items()
    for document in in_parallel(lambda form: planned(ready_host, *form[0], env=form[1]), forms):
        assert expected <= document.items()


@pytest.mark.parametrize("flag", VISIBLE)
def test_the_command_line_wins_over_the_environment(ready_host, flag):
    name, _, value = flag.partition("=")
    env = {variable(name): "true" if value == "false" else "false" if name in BOOLEANS else "0.1.0"}
    if name == "multus-log-level":
        env = {variable(name): "panic"}
    assert VISIBLE[flag].items() <= planned(ready_host, f"--{flag}", env=env).items()


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


@pytest.mark.parametrize("words", [("true", "false"), ("T", "F"), ("1", "0"), ("Yes", "nO"), ("TRUE", "FALSE")])
def test_a_boolean_takes_every_word_in_any_case(ready_host, words):
    yes, no = words
    assert "namespaceIsolation" in planned(ready_host, f"--namespace-isolation={yes}")
    assert "namespaceIsolation" not in planned(ready_host, f"--namespace-isolation={no}")
    assert planned(ready_host, f"--multus-log-to-stderr={no}")["logToStderr"] is False
    assert "logToStderr" not in planned(ready_host, env={variable("multus-log-to-stderr"): yes})


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


def test_an_empty_value_means_the_default(ready_host):
    plain = planned(ready_host)
    flags = [flag for flag in [*BOOLEANS, *OTHERS] if flag != "dry-run"]
    joined = [([f"--{flag}="], None) for flag in flags]
    apart = [([f"--{flag}", ""], None) for flag in OTHERS]
    env = [([], {variable(flag): ""}) for flag in [*flags, *PATHS]]
    together = [([f"--{flag}=" for flag in flags], {"SKIP_TLS_VERIFY": "", "KUBECONFIG_MODE": "", "KUBE_CA_FILE": ""})]
    for document in in_parallel(
        lambda form: planned(ready_host, *form[0], env=form[1]), [*joined, *apart, *env, *together]
    ):
        assert document == plain


@pytest.mark.parametrize("flag", PATHS)
def test_an_empty_path_means_the_default(ready_host, flag):
    if os.path.exists(PATHS[flag]):
        pytest.skip(f"{PATHS[flag]} is there")
    outcome = ready_host.run(f"--{flag}=")
    assert outcome.returncode == 1
    assert PATHS[flag] in outcome.stderr


def test_an_invalid_value_is_wrong_usage_on_the_command_line_and_in_the_environment(ready_host):
    before = ready_host.snapshot()
    cases = [(flag, value, "flag") for flag, values in INVALID.items() for value in values]
    cases += [(flag, values[0], "env") for flag, values in INVALID.items()]

    def one(case):
        flag, value, form = case
        if form == "flag":
            return ready_host.run(f"--{flag}={value}")
        return ready_host.run(env={variable(flag): value})

    for (flag, value, _form), outcome in zip(cases, in_parallel(one, cases), strict=True):
        assert outcome.returncode == 2, (flag, value, outcome.stderr)
        said = " ".join(outcome.stderr.split())
        assert f"--{flag}" in said
        assert value in said
    assert ready_host.snapshot() == before


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
