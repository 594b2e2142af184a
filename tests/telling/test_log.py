import errno
import logging
import os
import select
import subprocess
import sys

import pytest

from entrypoint.telling import log as logs
from tests.waiting import BOUND

PROGRAM = """
import os, sys
from entrypoint.telling import log as logs
from tests.waiting import BOUND
logs.configure("text")
{}
"""


def run(body, **options):
    return subprocess.run([sys.executable, "-c", PROGRAM.format(body)], timeout=BOUND, **options)


@pytest.fixture
def stalled():
    """A process that logs 3,000 lines of 100 bytes to a pipe that nobody reads until it says that it is done."""
    body = "for number in range(3000): logs.logger.info('%05d ' + 'x' * 94, number)\nprint('done', flush=True)\n"
    body += "sys.stdin.readline()\nlogs.logger.info('read again')\nlogs.logger.info('and again')"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", PROGRAM.format(body)], **pipes) as process:
        yield process
        process.kill()


def test_a_log_that_nobody_reads_does_not_stop_the_program_and_tells_what_is_missing(stalled):
    ready, _, _ = select.select([stalled.stdout], [], [], BOUND)
    assert ready
    assert stalled.stdout.readline() == b"done\n"
    kept = os.read(stalled.stderr.fileno(), 1 << 20).decode().splitlines()
    stalled.stdin.write(b"\n")
    stalled.stdin.close()
    later = stalled.stderr.read().decode().splitlines()
    lines = [line.split(" ")[2] for line in [*kept, *later] if line.endswith("x" * 94)]
    assert 100 < len(lines) < 3000
    assert lines == sorted(lines)
    (told,) = [line for line in later if " lines of this log" in line]
    # The line that found no room may have been written in part, and then is one of those that are missing.
    assert f"lost {3000 - len(lines)} lines" in told
    assert [line.split(": ", 1)[1] for line in later[-2:]] == ["read again", "and again"]


def test_without_stderr_nothing_is_written_into_whatever_has_its_number():
    """A process may be started with descriptor 2 closed; the next file that it opens then gets that number."""
    body = "reading, writing = os.pipe()\nlogs.logger.info('x')\nos.set_blocking(reading, False)\n"
    body += "print(sys.stderr, writing)\n"
    body += "try: print(os.read(reading, 99))\nexcept BlockingIOError: print('empty')"
    done = run(body, stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2))
    assert done.stdout.split() == [b"None", b"3", b"empty"] or done.stdout.split() == [b"None", b"2", b"empty"]


def test_a_long_line_and_odd_characters_arrive_whole():
    done = run("logs.logger.info('a' * 100_000 + '\\udc80 \\u00e9 \\n end')", capture_output=True)
    line = done.stderr.decode()
    assert line.count("\n") == 1
    assert "a" * 100_000 in line
    assert line.endswith("\\udc80 \u00e9 \\n end\n")


def test_a_line_that_the_disk_has_no_room_for_is_lost_without_a_traceback(monkeypatch):
    written = []
    refusals = [OSError(errno.ENOSPC, "No space left on device"), 10, OSError(errno.ENOSPC, "No space left on device")]

    def write(descriptor, data):
        assert descriptor == 2
        outcome = refusals.pop(0) if refusals else len(data)
        if isinstance(outcome, OSError):
            raise outcome
        written.append(data[:outcome])
        return outcome

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logs.configure("text")
    for text in ("lost", "torn", "written"):
        logs.logger.error(text)
    monkeypatch.undo()
    first, told, last = b"".join(written).decode().splitlines()
    assert len(first) == 10
    assert told.endswith("warning: lost 2 lines of this log: there was no room for them")
    assert last.endswith("error: written")


def test_a_terminal_that_nobody_reads_stops_nothing():
    master, terminal = os.openpty()
    body = "[logs.logger.info('x' * 90) for _ in range(3000)]\nprint('done')\nprint(os.get_blocking(2))"
    done = run(body, stdout=subprocess.PIPE, stderr=terminal)
    assert done.stdout == b"done\nTrue\n"  # and whoever shares the terminal finds it as it was
    os.close(terminal)
    assert b"info: xxx" in os.read(master, 1000)
    os.close(master)
