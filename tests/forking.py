"""Start the real program without loading it anew: a process that has loaded it forks for each start.

Loading takes ten times as long as forking, and most tests are about neither. What is: names, process 1, command lines
in `/proc`, memory, `strace` and death, starts it by `exec`, as a runtime does.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.waiting import BOUND

ROOT = Path(__file__).parent.parent
EXECED = ("PYTHON", "LC_", "LANG", "LD_")
"""Variables that begin so are read when a program is loaded: they need a start by `exec`."""
LONGEST_ORDER = 1 << 22


class Forked:
    """A program that was forked, with what tests need of `subprocess.Popen`."""

    def __init__(self, arguments, *, env, cwd, stdout, stderr, stdin=None, patience=None):
        """Start the program with these arguments, this environment, this directory and these files.

        `patience` is for how many seconds it waits for a mesh to end what it has begun, if not for its own times: on a
        busy machine a mesh takes longer than they allow.
        """
        assert not [name for name in env if name.startswith(EXECED)], env
        order = {"arguments": [os.fsdecode(each) for each in arguments], "env": env, "cwd": os.fsdecode(cwd)}
        order["patience"] = patience
        self.args, self.returncode = order["arguments"], None
        self._told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, open(os.devnull) as nothing, os.fdopen(os.memfd_create("order"), "w+b") as written:
            written.write(json.dumps(order).encode())
            written.seek(0)
            files = [written, theirs, stdin or nothing, stdout, stderr]
            socket.send_fds(_server(), [b"start"], [each.fileno() for each in files])
        told, (self._descriptor,), _, _ = socket.recv_fds(self._told, 64, 1)
        self.pid = int(told)

    def poll(self):
        """Return the exit code, negative for a signal; None while it runs."""
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout=None):
        """Wait for the end; return the exit code. Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self._end()
        return self.returncode

    def _end(self):
        told = self._told.recv(64)
        assert told, "the process that forks has ended"
        self.returncode = int(told)
        self._told.close()
        os.close(self._descriptor)

    def send_signal(self, number):
        """Send a signal, if it still runs."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._descriptor, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def run(arguments, *, env, cwd, errors="surrogateescape"):
    """Run a program to its end; return what `subprocess.run` does of text that is captured."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = Forked(arguments, env=env, cwd=cwd, stdout=stdout, stderr=stderr)
        try:
            process.wait(BOUND)
        finally:
            process.kill()
        said = []
        for file in (stdout, stderr):
            file.seek(0)
            said.append(file.read().decode("utf-8", errors))
    return subprocess.CompletedProcess(process.args, process.returncode, *said)


_starting = threading.Lock()


def _server():
    """Return who takes orders to fork: one process for this one, which ends with it."""
    with _starting:
        return _started()


@functools.cache
def _started():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        # In a session of its own: an interrupt from the keyboard is pytest's to handle.
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"]},
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    atexit.register(lambda: (ours.close(), server.wait()))
    return ours


# ---- the process that forks ----


def serve(orders):
    """Fork for each order and tell of each end, until nobody is there to order. Return in each fork."""
    poll, running = select.poll(), {}
    poll.register(orders, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready in running:
                poll.unregister(ready)
                os.close(ready)
                pid, tell = running.pop(ready)
                _, status = os.waitpid(pid, 0)  # waits for who traces it, too
                with tell:
                    tell.send(str(os.waitstatus_to_exitcode(status)).encode())
                continue
            word, descriptors, _, _ = socket.recv_fds(orders, 64, 5)
            if not word:
                for descriptor in running:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                os._exit(0)
            order, tell, *files = descriptors
            pid = os.fork()
            if pid == 0:
                return become(order, *files)
            descriptor = os.pidfd_open(pid)
            running[descriptor] = pid, socket.socket(fileno=tell)
            poll.register(descriptor, select.POLLIN)
            socket.send_fds(running[descriptor][1], [str(pid).encode()], [descriptor])
            for each in (order, *files):
                os.close(each)


def become(order, *files):
    """Be a fresh process: with the arguments, environment, directory and files of the order, and no more."""
    with open(order, "rb") as file:
        asked = json.load(file)
    for number, descriptor in enumerate(files):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = ["multus-entrypoint", *asked["arguments"]]
    if asked["patience"] is not None:
        from entrypoint.node import meshes

        meshes.HANDOVER = meshes.REWRITE = meshes.MOVE = asked["patience"]
    for number, (name, mode) in enumerate([("stdin", "r"), ("stdout", "w"), ("stderr", "w")]):
        before = getattr(sys, name)
        buffering = 1 if name == "stderr" else -1
        fresh = open(number, mode, buffering, before.encoding, before.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, fresh)
        setattr(sys, f"__{name}__", fresh)


def end_after(program):
    """Run the program and end as Python does after it, but for freeing the memory piece by piece."""
    try:
        program()
    except SystemExit as end:
        if isinstance(end.code, int):
            with contextlib.suppress(OSError):  # Python itself has something to say of that
                sys.stdout.flush()
                os._exit(end.code & 0xFF)
        raise


if __name__ == "__main__":
    import entrypoint.cli.commands
    import entrypoint.cli.dryrun
    import entrypoint.node.loop  # noqa: F401 - what is loaded once it is known what to do
    from entrypoint.__main__ import main

    gc.collect()
    gc.freeze()  # else each fork would copy all of it at its first collection
    serve(socket.socket(fileno=int(sys.argv[1])))
    end_after(main)
