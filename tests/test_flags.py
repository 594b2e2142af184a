"""Each flag in each form: joined, apart, in the environment, empty, invalid.

There are hundreds of cases, so the command line runs in this process; `tests/process/test_flags.py` starts the program.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from entrypoint.cli.commands import cli
from entrypoint.disk.wakeup import ENDING
from tests.process.scratch import ScratchHost

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
    "startup-taint": ["key:Never", ":NoSchedule", "a b", "key:", "node.kubernetes.io/unschedulable:NoSchedule"],
    "multus-master-cni-file-name": ["/etc/passwd", "../x.conf", "00-multus.conf"],
    **{flag: ["maybe", "2", "truee", "on"] for flag in BOOLEANS},
}


def variable(flag):
    return "ENTRYPOINT_" + flag.upper().replace("-", "_")


def planned(said):
    """Return the configuration that a dry run said it would write."""
    lines = []
    for line in said.partition("00-multus.conf, mode 600:\n")[2].splitlines():
        if not line.startswith("    "):
            break
        lines.append(line)
    return json.loads("\n".join(lines))


@contextmanager
def handlers_kept():
    """Undo what the command line does to this process's signals."""
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.fixture
def host(tmp_path):
    made = ScratchHost(tmp_path)
    made.master()
    return made


def run(host, *flags, env=None):
    """Run the command line; return its exit code and what it said on stdout and stderr."""
    with patch.dict(os.environ, host.environment(env), clear=True), handlers_kept():
        outcome = CliRunner().invoke(cli, [*host.flags(), *flags], prog_name="multus-entrypoint")
    return outcome.exit_code, outcome.stdout, outcome.stderr


def document(host, *flags, env=None):
    """Return the configuration that these flags ask for."""
    code, said, complaint = run(host, "--dry-run", *flags, env=env)
    assert code == 0, complaint
    return planned(said)


@pytest.mark.parametrize("flag", VISIBLE)
def test_a_flag_works_joined_apart_and_from_the_environment(host, flag):
    name, _, value = flag.partition("=")
    forms = [([f"--{flag}"], None), ([], {variable(name): value or "true"})]
    if value and name not in BOOLEANS:
        forms.append(([f"--{name}", value], None))
    expected = VISIBLE[flag].items()
    for arguments, env in forms:
        assert expected <= document(host, *arguments, env=env).items()


@pytest.mark.parametrize("flag", VISIBLE)
def test_the_command_line_wins_over_the_environment(host, flag):
    name, _, value = flag.partition("=")
    env = {variable(name): "true" if value == "false" else "false" if name in BOOLEANS else "0.1.0"}
    if name == "multus-log-level":
        env = {variable(name): "panic"}
    assert VISIBLE[flag].items() <= document(host, f"--{flag}", env=env).items()


@pytest.mark.parametrize("words", [("true", "false"), ("T", "F"), ("1", "0"), ("Yes", "nO"), ("TRUE", "FALSE")])
def test_a_boolean_takes_every_word_in_any_case(host, words):
    yes, no = words
    assert "namespaceIsolation" in document(host, f"--namespace-isolation={yes}")
    assert "namespaceIsolation" not in document(host, f"--namespace-isolation={no}")
    assert document(host, f"--multus-log-to-stderr={no}")["logToStderr"] is False
    assert "logToStderr" not in document(host, env={variable("multus-log-to-stderr"): yes})


def test_an_empty_value_means_the_default(host):
    plain = document(host)
    flags = [flag for flag in [*BOOLEANS, *OTHERS] if flag != "dry-run"]
    joined = [([f"--{flag}="], None) for flag in flags]
    apart = [([f"--{flag}", ""], None) for flag in OTHERS]
    env = [([], {variable(flag): ""}) for flag in [*flags, *PATHS]]
    together = [([f"--{flag}=" for flag in flags], {"SKIP_TLS_VERIFY": "", "KUBECONFIG_MODE": "", "KUBE_CA_FILE": ""})]
    for arguments, variables in [*joined, *apart, *env, *together]:
        assert document(host, *arguments, env=variables) == plain, (arguments, variables)


def test_an_invalid_value_is_wrong_usage_on_the_command_line_and_in_the_environment(host):
    before = host.snapshot()
    for flag, values in INVALID.items():
        forms = [(value, [f"--{flag}={value}"], None) for value in values]
        forms.append((values[0], [], {variable(flag): values[0]}))
        for value, arguments, env in forms:
            code, _, complaint = run(host, *arguments, env=env)
            assert code == 2, (flag, value, complaint)
            said = " ".join(complaint.split())
            assert f"--{flag}" in said
            assert value in said
    assert host.snapshot() == before
