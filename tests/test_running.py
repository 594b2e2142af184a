"""The entrypoint that runs in the same container: found by its process, and its flags taken over."""

import json
import os
import subprocess
from unittest import mock

import pytest

from entrypoint.cli import commands, options
from entrypoint.cli import resident as running
from tests.opshost import OpsHost, run_here
from tests.waiting import until

PYTHON = "/opt/multus-entrypoint/bin/python3"
SCRIPT = [PYTHON, "/usr/local/bin/multus-entrypoint"]


class Proc:
    """A /proc of processes that a test makes up."""

    def __init__(self, root):
        self.root = root
        self.process(os.getpid(), [*SCRIPT, "check"], parent=0)
        (root / "self").symlink_to(str(os.getpid()))

    def process(self, pid, words, *, parent=1, namespace="mnt:[1]", root="/", environ=None):
        directory = self.root / str(pid)
        (directory / "ns").mkdir(parents=True)
        (directory / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in words))
        pairs = (environ or {"PATH": "/bin"}).items()
        (directory / "environ").write_bytes(b"".join(f"{name}={value}\0".encode() for name, value in pairs))
        (directory / "stat").write_text(f"{pid} (a) b) S {parent} 1 1 0\n")
        (directory / "ns/mnt").symlink_to(namespace)
        (directory / "root").symlink_to(root)
        return directory

    def found(self):
        return [(each.pid, each.name, list(each.arguments)) for each in running.processes(self.root)]


@pytest.fixture
def proc(tmp_path):
    return Proc(tmp_path)


FLAGS = ["--multus-conf-file=auto", "--cni-version", "1.0.0"]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([PYTHON, "/usr/local/bin/multus-entrypoint", *FLAGS], "multus-entrypoint"),
        ([PYTHON, "/entrypoint.sh", *FLAGS], "entrypoint.sh"),
        (["/usr/bin/python3.13", "-I", "/usr/src/multus-cni/bin/thin_entrypoint", *FLAGS], "thin_entrypoint"),
        (["python", "-W", "error", "-X", "dev", "-m", "entrypoint", *FLAGS], "entrypoint"),
        ([], None),  # a zombie, or a thread of the kernel
        (["/pause"], None),
        (["/bin/sh", "-c", "exec /entrypoint.sh --multus-conf-file=auto"], None),
        (["/bin/sh", "/entrypoint.sh", *FLAGS], None),  # the script of Multus 3.9 itself
        (["/thin_entrypoint", *FLAGS], None),  # the Go program of 4.3
        ([PYTHON, "/install_multus", "-t", "thin"], None),
        ([PYTHON, "-m", "entrypoint.errands.taint", "{}"], None),
        ([PYTHON, "-c", "entrypoint"], None),
        ([PYTHON, "-m"], None),
        ([PYTHON], None),
    ],
)
def test_the_program_is_found_under_every_name_with_its_arguments_and_no_other(proc, words, name):
    proc.process(1, words)
    assert proc.found() == ([(1, name, FLAGS)] if name else [])


def test_a_shell_around_the_program_is_passed_over_for_the_program_itself(proc):
    proc.process(1, ["/bin/sh", "-c", "/entrypoint.sh --multus-conf-file=auto; sleep 1"])
    proc.process(7, [PYTHON, "/entrypoint.sh", *FLAGS])
    assert proc.found() == [(7, "entrypoint.sh", FLAGS)]


def test_what_sees_other_files_is_in_another_container(proc, tmp_path_factory):
    proc.process(1, [*SCRIPT, "--cni-version=1.0.0"], namespace="mnt:[2]")
    proc.process(8, [*SCRIPT, "--cni-version=0.4.0"], root=tmp_path_factory.mktemp("chroot"))
    assert proc.found() == []


def test_neither_this_process_nor_what_started_it_is_meant(tmp_path):
    proc = Proc.__new__(Proc)
    proc.root = tmp_path
    proc.process(os.getpid(), [*SCRIPT, "check"], parent=30)
    proc.process(30, [*SCRIPT, "check"], parent=0)
    (tmp_path / "self").symlink_to(str(os.getpid()))
    assert proc.found() == []


def test_a_process_that_ends_meanwhile_or_may_not_be_looked_at_is_passed_over(proc):
    (proc.process(5, SCRIPT) / "environ").unlink()
    (proc.process(6, SCRIPT) / "ns/mnt").unlink()
    (proc.root / "9").mkdir()
    proc.process(11, [*SCRIPT, "--rename-conf-file"])
    assert [pid for pid, _, _ in proc.found()] == [11]


def test_where_mount_namespaces_cannot_be_told_apart_nobody_is_meant(proc):
    (proc.root / str(os.getpid()) / "ns/mnt").unlink()
    proc.process(1, SCRIPT)
    assert proc.found() == []


def test_process_1_comes_first_of_several(proc):
    proc.process(300, SCRIPT)
    proc.process(1, [PYTHON, "/entrypoint.sh"])
    proc.process(20, SCRIPT)
    assert [pid for pid, _, _ in proc.found()] == [1, 20, 300]


def test_only_those_variables_are_taken_that_this_program_reads(proc):
    read = {"ENTRYPOINT_CNI_VERSION": "1.0.0", "NODE_NAME": "node-1", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    proc.process(1, SCRIPT, environ={**read, "SKIP_TLS_VERIFY": "a=b", "SECRET": "x"})
    (found,) = running.processes(proc.root)
    assert dict(found.environment) == {**read, "SKIP_TLS_VERIFY": "a=b"}


# ---- what becomes of them ----


def taken(proc, *arguments, **environ):
    """Return what `check` makes of its arguments beside these processes: what it says, the values, the node's name."""
    with mock.patch.dict(os.environ, {"PATH": "/bin", **environ}, clear=True):
        context = commands.cli.commands["check"].make_context("check", [*arguments])
        said = running.take_over(context, proc.root)
        return said, options.chosen(context), os.environ.get("NODE_NAME")


def test_flags_that_are_not_given_are_those_of_the_running_program_and_that_is_said(proc):
    proc.process(1, [*SCRIPT, "--multus-conf-file=auto", "--rename-conf-file", "--log-format", "json"])
    said, values, _ = taken(proc)
    assert (values["multus_conf_file"], values["rename_conf_file"], values["log_format"]) == ("auto", True, "json")
    assert said == (
        "the flags are those of process 1 in this container: "
        "--multus-conf-file=auto --rename-conf-file --log-format json"
    )


def test_a_flag_on_the_command_line_wins_and_the_others_are_taken_all_the_same(proc):
    proc.process(1, [*SCRIPT, "--multus-conf-file=auto", "--cni-version=1.0.0", "--skip-config-watch"])
    _, values, _ = taken(proc, "--cni-version=0.4.0", "--skip-config-watch=false")
    assert (values["multus_conf_file"], values["cni_version"], values["skip_config_watch"]) == ("auto", "0.4.0", False)


def test_the_environment_of_the_running_program_counts_and_not_our_own(proc):
    """A script around it may have set what `kubectl exec` does not see."""
    proc.process(1, SCRIPT, environ={"ENTRYPOINT_CNI_VERSION": "1.0.0", "NODE_NAME": "node-1"})
    said, values, node = taken(proc, ENTRYPOINT_CNI_VERSION="0.4.0", NODE_NAME="x", ENTRYPOINT_STARTUP_TAINT="a/b")
    assert (values["cni_version"], values["startup_taint"], node) == ("1.0.0", "", "node-1")
    assert said.endswith("process 1 in this container: ENTRYPOINT_CNI_VERSION=1.0.0")


def test_a_peers_name_brings_the_peers_defaults(proc):
    proc.process(1, [PYTHON, "/thin_entrypoint", "stray"])
    said, values, _ = taken(proc)
    assert values["multus_conf_file"] == "auto"
    assert said.endswith("process 1 in this container: stray")


@pytest.mark.parametrize(
    "arguments", [["check"], ["--dry-run"], ["uninstall", "--force"], ["--help"], ["--no-such-flag"], ["--cni-version"]]
)
def test_what_is_no_resident_program_is_passed_over(proc, arguments):
    proc.process(1, [*SCRIPT, "--cni-version=1.0.0", *arguments])
    said, values, _ = taken(proc)
    assert values["cni_version"] == ""
    assert said == ("no entrypoint runs in this container: all flags have their defaults, or what the environment sets")
    proc.process(7, [*SCRIPT, "--dry-run=false", "--cni-version=1.0.0"])
    assert taken(proc)[1]["cni_version"] == "1.0.0"


def test_a_program_that_cares_for_another_directory_is_not_meant(proc):
    proc.process(1, [*SCRIPT, "--cni-conf-dir=/host/a", "--cni-version=1.0.0"])
    proc.process(7, [*SCRIPT, "--cni-conf-dir=/host/b", "--cni-version=0.4.0"])
    assert taken(proc, "--cni-conf-dir=/host/b")[1]["cni_version"] == "0.4.0"
    assert taken(proc, "--cni-conf-dir=/host/b/")[1]["cni_version"] == "0.4.0"
    said, values, _ = taken(proc, "--cni-conf-dir=/host/c")
    assert (said, values["cni_version"]) == (None, "")


def test_a_dry_run_of_ours_stays_one(proc):
    proc.process(1, [*SCRIPT, "--multus-conf-file=auto"])
    assert taken(proc, "--dry-run")[1]["dry_run"] is True
    assert taken(proc, ENTRYPOINT_DRY_RUN="true")[1]["dry_run"] is True


# ---- with the real program ----


@pytest.fixture
def host(tmp_path):
    made = OpsHost(tmp_path)
    made.master()
    return made


def alone(host, *arguments):
    """Run a subcommand with no flag but the one that tells this machine's nodes apart."""
    return run_here([*arguments, f"--cni-conf-dir={host.conf_dir}"], {"PATH": os.environ["PATH"]})


@pytest.mark.process
def test_check_dry_run_and_uninstall_need_no_flags_beside_the_running_program(host):
    flags = ["--multus-conf-file=auto", "--rename-conf-file", "--override-network-name"]
    with host.running(flags=flags, executed=True) as process:
        until(host.ready.exists)
        ran = alone(host, "check", "--output=json")
        (said,) = [line for line in ran.stderr.splitlines() if f"those of process {process.pid} in this" in line]
        assert "--cni-conf-dir=" in said
        findings = {each["id"]: each for each in json.loads(ran.stdout)["findings"]}
        failing = [name for name, each in findings.items() if each["status"] == "fail"]
        assert failing == ["plugins.present", "cluster.reachable"]
        assert "wraps 10-flannel.conflist" in findings["configuration.current"]["found"]
        ran = alone(host, "--dry-run")
        assert (ran.returncode, ran.stdout) == (0, "nothing to do: the node is as it must be\n"), ran.stderr
        ran = alone(host, "uninstall", "--dry-run", f"--multus-data-dir={host.data_dir}")
        assert "would rename" in ran.stdout
        assert f"would remove {host.binary}" in ran.stdout


@pytest.mark.process
def test_check_without_a_running_program_says_that_it_used_the_defaults(host):
    with host.running(executed=True):
        until(host.ready.exists)
        ran = subprocess.run(
            ["unshare", "--mount", *host.command()[:3], "check"],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
        )
    if ran.stderr.startswith("unshare:"):
        pytest.skip(f"needs a mount namespace as of a container: {ran.stderr}")
    assert "info: no entrypoint runs in this container" in ran.stderr
    assert "/usr/src/multus-cni/images/70-multus.conf" in ran.stdout
