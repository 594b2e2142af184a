"""As process 1 of a container: what is left to it, what ends it, and what lies around where it starts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_api import FakeCluster, authority, pem, serving
from tests.process.scratch import open_files, overwrite
from tests.waiting import BOUND, until

NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def _namespaces():
    return os.geteuid() == 0 and subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


needs_namespaces = pytest.mark.skipif(not _namespaces(), reason="makes a PID namespace: needs root and unshare")


def _children(pid):
    return [
        int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()
    ]


def _leave_orphans(pid, count):
    """Do as `kubectl exec` with a command that leaves processes in the background: process 1 inherits them."""
    script = f"for i in $(seq {count}); do (sleep infinity &); done"
    subprocess.run(["nsenter", f"--target={pid}", "--pid", "sh", "-c", script], check=True)
    return until(lambda: len(found := _children(pid)) == count and found, "all orphans")


@needs_namespaces
def test_process_1_waits_for_the_orphans_that_an_exec_leaves(host):
    host.master()
    with host.start(prefix=NAMESPACE) as program:
        host.until_ready(program)
        (one,) = _children(program.pid)
        for orphan in _leave_orphans(one, 5):
            os.kill(orphan, signal.SIGKILL)
        until(lambda: not _children(one), what="the end of all orphans, zombies included")
        os.kill(one, signal.SIGTERM)
        assert program.ends() == 0


def test_the_zombie_of_a_child_of_ours_stays_for_who_waits_for_it_and_others_go():
    """Else its exit code would be lost, and nobody would know that there is something to do again."""
    script = """
import os, subprocess
from entrypoint.errands import child
os.getpid = lambda: 1
ours, orphan = subprocess.Popen(["false"]), subprocess.Popen(["true"])
for process in (ours, orphan):
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
child._running.add(ours.pid)
child.reap_orphans()
print(ours.wait())
child._running.clear()
child.reap_orphans()
print(os.path.exists(f"/proc/{orphan.pid}"))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["1", "False"]


def _at(cluster):
    address, _, port = cluster.url.removeprefix("https://").rpartition(":")
    return {"KUBERNETES_SERVICE_HOST": address, "KUBERNETES_SERVICE_PORT": port}


@pytest.fixture
def long_to_compare(host):
    """A binary that takes seconds to compare with the installed one: sparse, so that it takes no room."""
    for path in (host.multus, host.installed):
        path.write_bytes(b"")  # the same from the first byte on
        os.truncate(path, 8 << 30)
        path.chmod(0o755)
    host.master()
    return host


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("what", ["--dry-run", "check", "uninstall"])
def test_a_subcommand_that_is_broken_off_does_not_say_that_it_has_done_its_work(long_to_compare, what, number):
    host = long_to_compare
    before = host.snapshot(host.conf_dir)
    with host.start(what) as program:
        until(lambda: str(host.installed) in open_files(program.pid))
        assert program.stop(number) == 128 + number
    assert host.snapshot(host.conf_dir) == before


def test_a_check_that_waits_for_the_api_server_is_broken_off_too(host):
    silent = FakeCluster()
    silent.silent.set()
    with serving(silent) as cluster:
        host.account.update(**{"token": "good-token", "ca.crt": pem(authority())})
        with host.configured(env=_at(cluster)) as program:
            program.stop()
        with host.start("check", "--timeout=60", env=_at(cluster)) as program:
            cluster.wait_for_requests(1)
            assert program.stop() == 128 + signal.SIGTERM


def test_what_lies_in_the_working_directory_is_no_module_of_ours(host):
    """The image's working directory is `/`, and a pod may have another."""
    for name in ("entrypoint", "json", "jeepney", "click"):
        overwrite(host.root / f"{name}.py", "raise SystemExit('the wrong module')\n")
    program = shutil.which("multus-entrypoint", path=os.path.dirname(sys.executable))
    host.master()
    env = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={host.root}/no-bus"}
    command = [program, *host.flags(), "--restart-crio"]
    with (host.root / "log").open("wb") as log:
        process = subprocess.Popen(command, env=host.environment(env), cwd=host.root, stderr=log, stdout=log)
    try:
        said = host.root / "log"
        until(
            lambda: "is not restarted (--restart-crio): cannot reach" in said.read_text() or "wrong" in said.read_text()
        )
        assert "wrong" not in said.read_text()
    finally:
        process.terminate()
        assert process.wait(BOUND) == 0
