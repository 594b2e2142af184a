"""Odd but real surroundings: nothing surprising happens there."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.scratch import file_id, settled
from tests.waiting import until

NAME = "10-flannel.conflist"
CLEANUP = "--cleanup-config-on-exit"


def _checked(host, *flags, identifiers=("configuration.",)):
    """Return the findings of `check` about the node by identifier."""
    outcome = host.run("check", "--output=json", *flags)
    return {each["id"]: each for each in json.loads(outcome.stdout)["findings"] if each["id"].startswith(identifiers)}


def _agree(host, *flags, **about):
    """Assert that `check` says of the configuration what the ready file does; return that."""
    findings = _checked(host, *flags, **about)
    failed = [each for each in findings.values() if each["status"] == "fail"]
    assert host.ready.exists() is not bool(failed), failed
    return host.ready.exists()


# ---- the ready file and `check` ----


def test_check_and_the_ready_file_agree_on_a_readiness_indicator_that_goes(host):
    (host.root / "host/run/flannel").mkdir(parents=True)
    indicator = host.root / "host/run/flannel/subnet.env"
    indicator.touch()
    flags = ("--wait-for-readiness-indicator", "--readiness-indicator-file=/run/flannel/subnet.env")
    with host.configured(*flags) as program:
        assert _agree(host, *flags)
        indicator.unlink()
        until(lambda: not host.ready.exists())
        program.says("error", "readiness indicator", "/run/flannel/subnet.env does not exist")
        assert not _agree(host, *flags)
        indicator.touch()
        until(host.ready.exists)
        assert _agree(host, *flags)


@pytest.mark.parametrize("flags", [["--skip-config-watch"], [CLEANUP], []], ids=["no watch", "cleanup", "kept"])
def test_check_and_the_ready_file_agree_on_a_master_that_goes(host, flags):
    with host.configured(*flags) as program:
        assert _agree(host, *flags)
        (host.conf_dir / NAME).unlink()
        if "--skip-config-watch" not in flags:
            until(lambda: not host.ready.exists())
        settled(program, waiting=True)
        assert _agree(host, *flags) is ("--skip-config-watch" in flags)


def test_a_readiness_indicator_that_gets_another_name_is_noticed_and_its_new_name_said(host):
    """A mesh makes a list of the file that the default network writes and that Multus waits for."""
    single = host.conf_dir / "10-ovn-kubernetes.conf"
    single.write_text(json.dumps({"cniVersion": "0.4.0", "name": "ovn", "type": "ovn-k8s-cni-overlay"}))
    flags = (f"--readiness-indicator-file=/etc/cni/net.d/{single.name}",)
    with host.start(*flags) as program:
        host.until_ready(program)
        host.master("10-ovn-kubernetes.conflist")
        single.unlink()
        until(lambda: host.wraps(name="cbr0") and not host.ready.exists())
        program.says(
            "error", single.name, "is called 10-ovn-kubernetes.conflist now: correct --readiness-indicator-file"
        )
        assert not _agree(host, *flags)
        host.master("10-ovn-kubernetes.conf")
        until(host.ready.exists)
        assert _agree(host, *flags)


# ---- disks and directories ----


def test_somebodys_lock_on_a_directory_keeps_nothing_from_being_cleaned_up(host):
    with host.configured(CLEANUP, "--rename-conf-file") as program:
        until(lambda: NAME not in host.names())
        held = [os.open(path, os.O_RDONLY) for path in (host.conf_dir, host.kubeconfig.parent)]
        try:
            for descriptor in held:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            assert program.stop() == 0
        finally:
            for descriptor in held:
                os.close(descriptor)
    assert host.names() == [NAME, "multus.d"]


def test_a_working_directory_that_was_removed_is_no_obstacle(host):
    host.master()
    gone = host.root / "gone"
    gone.mkdir()
    with host.start(prefix=["sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', str(gone)]) as program:
        host.until_ready(program)
        host.master(mtu=9)
        until(lambda: host.wraps(mtu=9))
        settled(program)
        assert not program.lines("cannot watch")


@pytest.mark.parametrize("kind", ["relative", "absolute"])
@pytest.mark.parametrize("name", ["00-multus.conf", "multus.d/multus.kubeconfig", "multus.d"])
def test_an_output_that_is_a_link_out_of_its_directory_is_replaced_or_complained_of(host, name, kind):
    """On the host an absolute link leads elsewhere than in this container."""
    with host.configured() as program:
        program.stop()
    output, elsewhere = host.conf_dir / name, host.root / "elsewhere"
    output.rename(elsewhere)
    output.symlink_to(elsewhere if kind == "absolute" else os.path.relpath(elsewhere, output.parent))
    host.ready.unlink(missing_ok=True)
    with host.start() as program:
        until(lambda: host.ready.exists() or program.lines("error") or not program.running())
        if name == "multus.d":
            assert program.ends() == 1
            assert program.lines("error", str(host.kubeconfig.parent), "is a link to")
        else:
            host.until_ready(program)
            settled(program)
            assert not output.is_symlink() and host.wraps() and host.has_token("token-1")


@pytest.mark.parametrize("output", ["conf", "kubeconfig", "installed"])
def test_a_directory_in_the_place_of_an_output_is_none(host, output):
    """As a volume of that path makes it where the file is missing."""
    path = getattr(host, output)
    with host.configured() as program:
        program.freeze()
        path.unlink()
        (path / "somebodys").mkdir(parents=True)
        program.thaw()
        program.says("error", str(path), "Is a directory")
        until(lambda: not host.ready.exists())
        assert not _agree(host, identifiers=("configuration.", "kubeconfig.present", "binary."))
        (path / "somebodys").rmdir()
        path.rmdir()
        until(host.ready.exists)
        assert _agree(host)


def test_a_certificate_authority_that_is_too_large_is_refused_by_name_and_size(host):
    host.master()
    large = "CERTIFICATE\n" * 75_000
    with host.configured() as program:
        before = file_id(host.kubeconfig)
        host.rotate("token-2", large)
        program.says("error", "ca.crt", str(len(large)), "exceed")
        settled(program)
        assert file_id(host.kubeconfig) == before and host.ready.exists()
        host.rotate("token-3")
        until(lambda: host.has_token("token-3"))
        program.stop()
    host.rotate("token-4", large)
    refused = host.run()
    assert refused.returncode == 1 and str(len(large)) in refused.stderr


# ---- what other programs do ----


@pytest.mark.parametrize("taken", ["00-multus.conf", "00-multus.conflist"])
def test_ciliums_exclusive_mode_is_called_by_its_name(host, taken):
    version = "1.0.0" if taken.endswith("list") else "0.3.1"
    host.master(cniVersion=version)
    with host.start() as program:
        host.until_ready(program)
        (host.conf_dir / taken).rename(host.conf_dir / f"{taken}.cilium_bak")
        until((host.conf_dir / taken).exists)
        program.says("warning", f"{taken}.cilium_bak", "cni.exclusive=false")
        said = json.dumps(list(_checked(host).values()))
        assert "cni.exclusive=false" in said


# ---- where the output goes ----


OUTPUTS = {"pipe": '"$@" | true; exit ${PIPESTATUS[0]}', "full": '"$@" > /dev/full', "closed": '"$@" >&-'}


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("arguments", ["--dry-run", "check --timeout=1", "--help", "--version"])
def test_an_output_that_takes_nothing_ends_with_1_and_at_most_one_line(host, arguments, output):
    host.master()
    words = arguments.split()
    flags = [] if words[-1] in {"--help", "--version"} else host.flags()
    ran = subprocess.run(
        ["bash", "-c", OUTPUTS[output], "bash", sys.executable, "-m", "entrypoint", *words, *flags],
        env=host.environment(),
        cwd=host.root,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1 or (output == "pipe" and ran.returncode == 0), ran  # a pipe may have room for all of it
    assert len(ran.stderr.splitlines()) <= 1
    assert not [word for word in ("Traceback", "unexpected", "report this", "Exception") if word in ran.stderr], ran
    assert ran.stderr or output != "full"


def test_a_pipe_that_does_not_block_is_waited_for_until_all_is_read(host):
    """Somebody else who has it may have set it so."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    room = fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)
    os.write(writing, b"x" * room)
    process = subprocess.Popen([sys.executable, "-m", "entrypoint", "--help"], env=host.environment(), stdout=writing)
    os.close(writing)
    state = Path(f"/proc/{process.pid}/stat")
    until(lambda: all(state.read_text("utf-8").split()[2] == "S" for _ in range(20)), "it to sleep instead of trying")
    with open(reading, "rb") as read:
        assert b"--cni-conf-dir" in read.read()[room:]
    assert process.wait() == 0
