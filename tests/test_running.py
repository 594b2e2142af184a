"""The entrypoint that is process 1 of the container: its flags and its environment are taken over."""

import json
import os
from pathlib import Path

import pytest

from entrypoint.cli import resident
from entrypoint.cli.commands import cli
from tests.opshost import OpsHost, run_here
from tests.waiting import until

PYTHON = "/opt/multus-entrypoint/bin/python3"
SCRIPT = [PYTHON, "/usr/local/bin/multus-entrypoint"]
NOBODY = ({}, "no entrypoint is process 1")
THEIRS = "the flags are those of process 1 in this container: "


@pytest.fixture(autouse=True)
def proc(tmp_path, monkeypatch):
    """A /proc that a test makes up, and an environment of our own that is as good as empty."""
    for name in [name for name in os.environ if name.startswith(("ENTRYPOINT_", "KUBE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(resident, "PROC", tmp_path)
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/mnt").symlink_to("mnt:[1]")
    return tmp_path


@pytest.fixture
def process_1(proc):
    """Have a process 1 with this command line."""

    def made(*words, namespace="mnt:[1]", **environ):
        (proc / "1/ns").mkdir(parents=True)
        (proc / "1/ns/mnt").symlink_to(namespace)
        (proc / "1/cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in words))
        (proc / "1/environ").write_bytes(b"".join(f"{name}={value}\0".encode() for name, value in environ.items()))

    return made


def taken():
    values, told = resident.process_1()
    return values, told.partition(" of this")[0]


def in_check(*arguments):
    """Return the flags that `check` has beside process 1."""
    running = resident.process_1()
    return cli.commands["check"].make_context("check", [*arguments], default_map=dict(running.values)).params


@pytest.mark.parametrize(
    "words",
    [
        [*SCRIPT],
        [PYTHON, "/entrypoint.sh"],
        ["/usr/bin/python3.13", "-I", "/usr/src/multus-cni/bin/thin_entrypoint"],
        ["python", "-m", "entrypoint"],
    ],
)
def test_it_is_found_under_every_name_with_its_flags(process_1, words):
    process_1(*words, "stray", "--multus-conf-file=auto", "--cni-version", "1.0.0", "--rename-conf-file", "--dry-run")
    values, told = taken()
    assert (values["multus_conf_file"], values["cni_version"], values["rename_conf_file"]) == ("auto", "1.0.0", True)
    assert "dry_run" not in values  # that is asked for anew
    assert told == f"{THEIRS}stray --multus-conf-file=auto --cni-version 1.0.0 --rename-conf-file --dry-run"


@pytest.mark.parametrize(
    "words",
    [
        [],  # a zombie
        ["/pause"],
        ["/bin/sh", "-c", "/entrypoint.sh --multus-conf-file=auto; sleep 1"],
        ["/bin/sh", "/entrypoint.sh", "--multus-conf-file=auto"],  # the script of Multus 3.9 itself
        ["/thin_entrypoint", "--multus-conf-file=auto"],  # the Go program of 4.3
        [PYTHON, "/install_multus", "-t", "thin"],
        [PYTHON, "-m", "entrypoint.errands.taint", "{}"],
        [PYTHON],
        *([*SCRIPT, "--cni-version=1.0.0", *words] for words in (["uninstall", "--wait"], ["check"], ["--help"])),
        [*SCRIPT, "--no-such-flag"],
        [*SCRIPT, "--cni-version"],
    ],
)
def test_any_other_program_is_not_taken_for_it(process_1, words):
    process_1(*words)
    assert taken() == NOBODY


def test_what_sees_other_files_is_in_another_container(process_1):
    process_1(*SCRIPT, namespace="mnt:[2]")
    assert taken() == NOBODY


def test_neither_this_process_nor_one_that_may_not_be_looked_at_is_meant(process_1, proc, monkeypatch):
    assert taken() == NOBODY  # no /proc as of Linux
    process_1(*SCRIPT)
    (proc / "1/environ").rename(proc / "environ")
    assert taken() == NOBODY
    (proc / "environ").rename(proc / "1/environ")
    assert taken() != NOBODY
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert taken() == NOBODY


def test_a_peers_name_brings_the_peers_defaults(process_1):
    process_1(PYTHON, "/thin_entrypoint")
    assert taken()[0]["multus_conf_file"] == "auto"
    assert taken()[1] == f"{THEIRS}no flags"


def test_a_flag_on_the_own_command_line_wins_and_the_others_are_taken_all_the_same(process_1):
    process_1(*SCRIPT, "--multus-conf-file=auto", "--cni-version=1.0.0", "--skip-config-watch", "--log-format", "json")
    found = in_check("--cni-version=0.4.0", "--skip-config-watch=false")
    assert (found["cni_version"], found["skip_config_watch"]) == ("0.4.0", False)
    assert (found["multus_conf_file"], found["log_format"]) == ("auto", "json")
    assert in_check("--cni-version=")["cni_version"] is None


def test_the_environment_of_process_1_counts_and_its_command_line_more(process_1):
    """A script around it may have set what `kubectl exec` does not see."""
    os.environ.update(ENTRYPOINT_CNI_VERSION="0.4.0", NODE_NAME="x", ENTRYPOINT_STARTUP_TAINT="a/b")
    set_there = {"ENTRYPOINT_CNI_VERSION": "1.0.0", "NODE_NAME": "node-1", "ENTRYPOINT_MULTUS_LOG_LEVEL": "debug"}
    process_1(*SCRIPT, "--multus-log-level=error", SKIP_TLS_VERIFY="true", **set_there)
    found = in_check()
    assert (found["cni_version"], found["multus_log_level"], found["skip_tls_verify"]) == ("1.0.0", "error", True)
    assert (os.environ["NODE_NAME"], str(found["startup_taint"])) == ("node-1", "a/b")
    told = taken()[1]
    assert told == f"{THEIRS}ENTRYPOINT_CNI_VERSION=1.0.0 ENTRYPOINT_MULTUS_LOG_LEVEL=debug --multus-log-level=error"


@pytest.mark.process
def test_check_dry_run_and_uninstall_need_no_flags_beside_the_running_program(tmp_path, monkeypatch):
    host = OpsHost(tmp_path / "host")
    host.master()
    host.plugins()
    flags = ["--multus-conf-file=auto", "--rename-conf-file", "--override-network-name"]

    def alone(*arguments):
        return run_here(arguments, {"PATH": os.environ["PATH"]})

    with host.running(flags=flags, executed=True) as process:
        until(host.ready.exists)
        monkeypatch.setattr(resident, "PROC", Path("/proc"))
        monkeypatch.setattr(resident, "PID", process.pid)
        ran = alone("check", "--output=json")
        assert f"those of process {process.pid} in this" in ran.stderr and "--cni-conf-dir=" in ran.stderr
        findings = {each["id"]: each for each in json.loads(ran.stdout)["findings"]}
        assert [name for name, each in findings.items() if each["status"] == "fail"] == ["cluster.reachable"]
        assert "wraps 10-flannel.conflist" in findings["configuration.current"]["found"]
        ran = alone("--dry-run")
        assert (ran.returncode, ran.stdout) == (0, "nothing to do: the node is as it must be\n"), ran.stderr
        ran = alone("uninstall", "--dry-run", f"--multus-data-dir={host.data_dir}")
        assert "would rename" in ran.stdout
        assert f"would remove {host.binary}" in ran.stdout
        monkeypatch.setattr(resident, "PID", os.getpid())
        ran = alone("check")
        assert "info: no entrypoint is process 1 of this container: all flags have their defaults" in ran.stderr
        assert "/usr/src/multus-cni/images/70-multus.conf" in ran.stdout
