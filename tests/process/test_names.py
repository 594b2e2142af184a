"""Called by the name of a peer's program, with that peer's habits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.opshost import run_here
from tests.waiting import BOUND, until

PEERS = pytest.mark.parametrize("name", ["thin_entrypoint", "entrypoint.sh"])


def call(host, name, *arguments, env=None):
    """Run the program by another name to its end."""
    return run_here(arguments, host.environment(env), name=name)


def linked(host, name):
    """Return a link of that name to the installed program, as the image has it."""
    link = host.root / name
    link.symlink_to(shutil.which("multus-entrypoint", path=os.path.dirname(sys.executable)))
    return link


def directories(host):
    """The flags of the scratch host, without the one that says what to do."""
    return [flag for flag in host.flags() if not flag.startswith("--multus-conf-file")]


@pytest.mark.parametrize("empty", [[], ["--multus-conf-file="]], ids=["left out", "empty"])
def test_as_thin_entrypoint_the_configuration_is_generated_unless_something_else_is_said(host, empty):
    host.master()
    ran = call(host, "thin_entrypoint", *directories(host), *empty, "--dry-run")
    assert ran.returncode == 0, ran.stderr
    assert f"would write {host.conf}" in ran.stdout
    said = call(host, "thin_entrypoint", "--multus-conf-file=/absent/70-multus.conf", *directories(host), "--dry-run")
    assert "/absent/70-multus.conf: does not exist" in said.stderr


@pytest.mark.parametrize("name", ["multus-entrypoint", "entrypoint.sh", "another"])
def test_under_any_other_name_the_default_is_the_static_one_of_3_9(host, name):
    host.master()
    ran = call(host, name, *directories(host), "--dry-run")
    assert ran.returncode == 1
    assert "/usr/src/multus-cni/images/70-multus.conf" in ran.stderr


@PEERS
def test_a_word_that_belongs_to_no_flag_is_a_warning_and_the_flags_after_it_count(host, name):
    host.master()
    words = ["/tmp/stray", *directories(host), "--namespace-isolation", "false", "--multus-conf-file=auto", "--dry-run"]
    ran = call(host, name, *words)
    assert ran.returncode == 0, ran.stderr
    assert '"namespaceIsolation": true' in ran.stdout
    assert [line.split("'")[1] for line in ran.stderr.splitlines() if "is ignored" in line] == ["/tmp/stray", "false"]


@PEERS
def test_a_subcommand_under_a_peers_name_does_not_start_a_second_entrypoint(host, name):
    host.master()
    before = host.snapshot()
    ran = call(host, name, "check", *host.flags())
    assert ran.returncode == 2
    assert "multus-entrypoint check" in ran.stderr
    assert host.snapshot() == before


@PEERS
def test_a_peers_name_starts_the_whole_program(host, name):
    host.master()
    command = [linked(host, name), "stray", *host.flags()]
    with (host.root / "log").open("wb") as log:
        process = subprocess.Popen(command, env=host.environment(), cwd=host.root, stderr=log, stdout=log)
    try:
        until(host.ready.exists)
        assert host.wraps(name="cbr0")
    finally:
        process.terminate()
        assert process.wait(BOUND) == 0
    assert "'stray'" in (host.root / "log").read_text()


def test_as_install_multus_it_copies_the_binary_and_ignores_stray_words(host):
    flags = [f"--multus-bin-file={host.multus}", "-d", str(host.bin_dir)]
    ran = call(host, "install_multus", "stray", "--type", "thin", *flags)
    assert ran.returncode == 0, ran.stderr
    assert "'stray'" in ran.stderr
    assert host.installed.read_bytes() == host.multus.read_bytes()
    assert call(host, "install_multus", "--type", "thick", *flags).returncode == 2


@pytest.mark.parametrize("name", ["multus-entrypoint", "thin_entrypoint", "entrypoint.sh", "install_multus"])
def test_every_name_has_its_help_and_a_version_that_names_the_multus_of_the_image_where_there_is_one(host, name):
    program = linked(host, name)

    def execed(word, **env):
        return subprocess.run([program, word], env=host.environment(env), capture_output=True, text=True, cwd=host.root)

    alone = execed("--version")
    assert (alone.returncode, alone.stderr, "Multus" in alone.stdout) == (0, "", False)
    assert execed("--version", MULTUS_VERSION="v4.3.1").stdout == f"{alone.stdout.strip()} (Multus v4.3.1)\n"
    shown = execed("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "--multus-bin-file" in shown.stdout
    assert ("Commands:" in shown.stdout) is (name == "multus-entrypoint")


@pytest.mark.parametrize("arguments", [["--dry-run"], ["check", "--output=json"], ["uninstall", "--dry-run"]])
def test_what_was_said_in_vain_is_warned_of_before_anything_else(host, arguments):
    host.master()
    env = {"ENTRYPOINT_NAMESPACE_ISOLATON": "true"}
    ran = call(
        host, "multus-entrypoint", *arguments, *host.flags(), "--log-format=json", "--global-namespaces=a", env=env
    )
    said = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [each["level"] for each in said[:2]] == ["warning"] * 2
    assert "ENTRYPOINT_NAMESPACE_ISOLATION?" in said[0]["message"]
    assert "--global-namespaces has no effect" in said[1]["message"]


def test_the_resident_program_warns_once_of_what_was_said_in_vain(host):
    with host.configured("--additional-bin-dir=/host/opt/x") as program:
        host.master(mtu=1)
        until(lambda: host.wraps(mtu=1))
        assert len(program.lines("is taken as /opt/x")) == 1
        assert json.loads(host.conf.read_text())["binDir"] == "/opt/x"
