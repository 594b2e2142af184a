"""Stopping the program at the n-th system call, or making that call fail, with strace."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections import Counter
from typing import NamedTuple

from tests.waiting import until

_CALL = re.compile(r"(\w+)\(")
_TRACED = "trace=file,desc"
_READING = {
    "access",
    "fcntl",
    "getdents64",
    "inotify_add_watch",
    "ioctl",
    "lseek",
    "newfstatat",
    "pread64",
    "read",
    "readlink",
}


class Call(NamedTuple):
    """A system call of the program's main thread that touches the host's directories."""

    name: str
    ordinal: int
    """It is the n-th call of this name since the trace began."""
    changes: bool
    """It is one of those that write; the others look, or give back a descriptor."""
    text: str


def options(out, *inject):
    return ["strace", "-y", "-o", str(out), "-e", _TRACED, *(f"--inject={each}" for each in inject)]


def prefix(out, *inject):
    """Start the program under strace; the process that we started is the program all the same."""
    return [*options(out, *inject), "-D"]


@contextlib.contextmanager
def attached(program, out, *inject):
    """Trace the main thread of a running program."""
    tracer = subprocess.Popen([*options(out, *inject), "-p", str(program.pid)], stderr=subprocess.PIPE)
    try:
        assert b"attached" in tracer.stderr.readline()
        yield
    finally:
        tracer.terminate()
        tracer.communicate()


def calls(out, host):
    """Return the calls of a trace that touch the directories of the host."""
    return [call for call in _calls(out) if str(host.root / "host") in call.text]


def last_call(out):
    """Return the call at which the program was killed."""
    until(lambda: "+++ " in out.read_text("utf-8", "replace"), what="the end of the trace")
    return list(_calls(out))[-1]


def _calls(out):
    seen = Counter()
    for line in out.read_text("utf-8", "replace").splitlines():
        match = _CALL.match(line)
        if match:
            name = match[1]
            seen[name] += 1
            looks = name in _READING or name == "close" or (name == "openat" and "O_CREAT" not in line)
            yield Call(name, seen[name], not looks, line)
