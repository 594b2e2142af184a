"""Everything at once, at random but repeatable, with the invariants checked beside it all the time."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.process.scratch import FLANNEL, ScratchHost, overwrite, replace, vanish, watches
from tests.resilience.conftest import LONG
from tests.waiting import until

pytestmark = pytest.mark.thorough

REMOVAL_COUNTS = 30
"""Seconds for which a removal by somebody else means that a signal that comes then is to leave nothing."""
CHECK_INTERVAL = 0.002
CLEANUP, RENAME = "--cleanup-config-on-exit", "--rename-conf-file"
MASTER = "10-flannel.conflist"
NETWORKS = {"multus-cni-network", FLANNEL["name"]}
WIDEST = 0.35
"""Seconds between the start of the one and the end of the other in a rolling update, either first."""


class Checker(threading.Thread):
    """Looks at what a runtime reads; what it finds broken is collected."""

    def __init__(self, host):
        super().__init__(daemon=True)
        self._host = host
        self._ended = threading.Event()
        self.looks = 0
        self.guarded = 0
        self.faults = []
        self._guarding = threading.Lock()
        self._guards = False

    def run(self):
        host = self._host
        whole = {
            host.conf: _is_a_network,
            host.conflist: _is_a_network,
            host.kubeconfig: lambda text: text.endswith("\n") and "token-" in text,
            host.installed: lambda text: text.endswith("end of the binary\n"),
        }
        while not self._ended.wait(CHECK_INTERVAL):
            self.looks += 1
            self._check_presence()
            for path, holds in whole.items():
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    self._check(path, path.read_bytes(), holds)

    def stop(self):
        self._ended.set()
        self.join()

    @contextlib.contextmanager
    def guarding(self):
        """Hold that the node has a configuration all the time; what is done meanwhile must be none of ours to lose."""
        with self._guarding:
            self._guards = True
        try:
            yield
        finally:
            with self._guarding:
                self._guards = False

    def _check_presence(self):
        with self._guarding:
            if not self._guards:
                return
            self.guarded += 1
            for _ in range(3):  # one name may take the other's place between the looks at them
                if self._host.conf.exists() or self._host.conflist.exists():
                    return
            self.faults.append(("no configuration", self._host.names_or_none(), b""))

    def _check(self, path, content, holds):
        try:
            assert content == FORGED or holds(content.decode())
        except (AssertionError, ValueError, LookupError, TypeError) as error:
            self.faults.append((path.name, repr(error), content[:200]))


def _is_a_network(text):
    return json.loads(text)["name"] in NETWORKS


FORGED = b"not written by us\n"
"""What the events put in the place of our files; it is whole when it appears."""


class Node:
    """The random events, and what the node must come to after them."""

    def __init__(self, host, chance, flags=()):
        self.host, self.chance = host, chance
        self.renames = RENAME in flags
        self.token, self.mtu, self.version, self.done = "token-1", 0, 0, 0
        self.removed_at = float("-inf")
        """When a configuration was removed (monotonic seconds): a preStop hook would do so."""

    def event(self):
        kinds = [
            self.rotate,
            self.change_master,
            self.write_master_slowly,
            self.change_version,
            self.replace_binary,
            self.forge,
            self.remove_output,
            self.add_and_remove_an_earlier_master,
            self.make_noise,
            self.remove_master_for_a_moment,
            self.replace_directory,
        ]
        weights = [6, 6, 3, 3, 3, 3, 3, 3, 6, 2, 1]
        self.chance.choices(kinds, weights)[0]()
        self.done += 1

    def rotate(self):
        self.token = f"token-{self.chance.random()}"
        self.host.rotate(self.token)

    def change_master(self, **changes):
        self.mtu += 1
        self.host.master(mtu=self.mtu, **changes)

    def change_version(self):
        self.change_master(cniVersion=self.chance.choice(["0.3.1", "0.4.0", "1.0.0"]))

    def write_master_slowly(self):
        self.mtu += 1
        content = json.dumps({**FLANNEL, "mtu": self.mtu})
        path = self.host.conf_dir / MASTER
        overwrite(path, content[: self.chance.randrange(len(content))])
        time.sleep(self.chance.random() * 0.05)
        overwrite(path, content)

    def replace_binary(self):
        self.version += 1
        replace(self.host.multus, binary(self.version), 0o755)

    def forge(self):
        path = self.chance.choice([self.host.conf, self.host.kubeconfig, self.host.installed])
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            replace(path, FORGED)

    def remove_output(self):
        path = self.chance.choice([self.host.conf, self.host.conflist, self.host.kubeconfig, self.host.installed])
        if path in {self.host.conf, self.host.conflist}:
            self.removed_at = time.monotonic()
        path.unlink(missing_ok=True)

    def add_and_remove_an_earlier_master(self):
        self.host.master("05-other.conflist", mtu=-1)
        time.sleep(self.chance.random() * 0.05)
        (self.host.conf_dir / "05-other.conflist").unlink(missing_ok=True)
        if self.renames:  # it may have become the master for good
            (self.host.conf_dir / "05-other.conflist.old").unlink(missing_ok=True)
            self.change_master()

    def make_noise(self):
        for _ in range(self.chance.randrange(300)):
            overwrite(self.host.conf_dir / f"noise-{self.chance.randrange(9)}.log", "x")

    def remove_master_for_a_moment(self):
        (self.host.conf_dir / MASTER).unlink(missing_ok=True)
        time.sleep(self.chance.random() * 0.05)
        self.change_master()

    def replace_directory(self):
        self.removed_at = time.monotonic()  # where the new directory has the old one's inode it looks like that
        vanish(self.host.conf_dir)
        time.sleep(self.chance.random() * 0.05)
        self.host.conf_dir.mkdir()
        self.change_master()

    def settled(self):
        host = self.host
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):
            return (
                host.wraps(mtu=self.mtu)
                and host.has_token(self.token)
                and host.installed.read_text() == binary(self.version)
                and host.ready.exists()
                and (MASTER in host.names()) is not self.renames
                and (f"{MASTER}.old" in host.names()) is self.renames
                and not [name for name in (*host.names(), *os.listdir(host.bin_dir)) if name.endswith(".tmp")]
            )
        return False

    def settle(self, seed):
        until(self.settled, what=f"the right node after {self.done} events (seed {seed})")


def binary(number):
    return f"{number} {'x' * 50_000}end of the binary\n"


def resources(program):
    process = Path(f"/proc/{program.pid}")
    resident = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS"))
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir())), int(resident.split()[1])


class Lives:
    """The program's lives, one after the other: each ends as a pod's does, or as nobody wants it to."""

    def __init__(self, host, node, checker, flags, seed, disk):
        self.host, self.node, self.checker, self.flags, self.seed, self.disk = host, node, checker, flags, seed, disk
        self.counts = Counter()
        self.growth = 0
        """The most that any life has grown, in KiB."""
        self._stack = contextlib.ExitStack()
        self._before = None
        self.start()

    def start(self):
        self.program = self._stack.enter_context(self.host.start(*self.flags))
        self._before = None
        self.counts["starts"] += 1
        self.program.says("the node is configured")

    def settle(self):
        """Wait until the node is right, and hold that the program is as big as it was in the same life."""
        self.node.settle(self.seed)
        assert self.program.running(), self.program.log
        until(lambda: watches(self.program), what="the watch")
        before = self._before
        if before is not None:  # what a pass has open meanwhile it closes again
            same = lambda now: now[1] == before[1] and now[0] - before[0] <= 2  # noqa: E731
            until(lambda: same(resources(self.program)), lambda: f"{before}, and not {resources(self.program)}")
        now = resources(self.program)
        # The first count may have come in the midst of a pass: the least that is ever open is what it is held to.
        self._before = now if before is None else (min(before[0], now[0]), *before[1:])
        if before is not None:
            self.growth = max(self.growth, now[2] - before[2])

    def event(self):
        kinds = [self.kill, self.restart, self.roll, self.surge]
        if self.disk is not None:
            kinds += [self.fill, self.crash_on_a_full_disk]
        kind = self.node.chance.choice(kinds)
        self.counts[kind.__name__] += 1
        # Nothing but a clean-up, of one that was asked for or of what a hook has removed, may leave the node without a
        # configuration, as long as nobody else takes it away; and that not with a successor.
        cleaned = CLEANUP in self.flags or time.monotonic() - self.node.removed_at < REMOVAL_COUNTS
        guarded = not cleaned or kind in (self.kill, self.surge, self.crash_on_a_full_disk)
        with self.checker.guarding() if guarded else contextlib.nullcontext():
            kind()
            self.settle()

    def kill(self):
        time.sleep(self.node.chance.random() * 0.02)
        self.end(signal.SIGKILL)
        self._meanwhile()
        self.start()

    def restart(self):
        self.end(signal.SIGTERM)
        self._meanwhile()
        self.start()

    def roll(self):
        """The successor starts before, while or after the old one ends."""
        offset = self.node.chance.uniform(-WIDEST, WIDEST)  # of the old one's end after the new one's start
        old = self.program
        if offset < 0:
            old.process.terminate()
            time.sleep(-offset)
        new = self._stack.enter_context(self.host.start(*self.flags))
        if offset >= 0:
            time.sleep(offset)
            old.process.terminate()
        assert old.ends() == 0
        self._meanwhile()
        self.program, self._before = new, None
        self.counts["starts"] += 1
        new.says("the node is configured")

    def surge(self):
        """The successor is at work before the old one ends."""
        new = self._stack.enter_context(self.host.start(*self.flags))
        new.says("the node is configured")
        self._meanwhile()
        assert self.program.stop(signal.SIGTERM) == 0
        self._meanwhile()
        self.program, self._before = new, None
        self.counts["starts"] += 1

    def fill(self):
        """The disk is full for a while, and more is to be written meanwhile."""
        with self._full():
            for _ in range(self.node.chance.randrange(1, 4)):
                self.node.chance.choice([self.node.rotate, self.node.replace_binary])()
            time.sleep(self.node.chance.random())

    def crash_on_a_full_disk(self):
        self.end(signal.SIGKILL)
        with self._full():
            self.node.rotate()
            with self.host.start(*self.flags) as program:
                assert program.ends() == 1
                assert program.lines("error", "No space left"), program.log
        self.start()

    def end(self, number):
        code = self.program.stop(number)
        assert code == (0 if number == signal.SIGTERM else -number)

    def close(self):
        self._stack.close()

    def _meanwhile(self):
        for _ in range(self.node.chance.randrange(3)):
            changes = [self.node.rotate, self.node.change_master, self.node.change_version, self.node.replace_binary]
            self.node.chance.choice(changes)()

    @contextlib.contextmanager
    def _full(self):
        ballast = self.disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)
        try:
            yield
        finally:
            ballast.unlink()


SEED = int(os.environ.get("RESILIENCE_SEED", "20261123"))
SECONDS = float(os.environ.get("RESILIENCE_SOAK", "0"))
"""Seconds of both soaks together; 0 for those of the form."""
QUICK, WHOLE = 14, 1800
ROUND = 60
"""Seconds with one set of flags, at least, in the soak of many lives."""
FLAGS = [
    (),
    (CLEANUP, RENAME),
    (RENAME,),
    (CLEANUP,),
    ("--override-network-name", "--namespace-isolation", "--multus-log-level=debug", "--log-format=json"),
    ("--multus-master-cni-file-name=10-flannel.conflist", "--cni-version=0.3.1", RENAME),
]


def _seconds(share):
    return (SECONDS or (WHOLE if LONG else QUICK)) * share


def test_after_any_events_the_node_is_right_and_the_program_as_big_as_before(host, figure):
    """In one long life: a leak needs time."""
    seconds = _seconds(1 / 3)
    lives = _live(host, (), SEED, seconds, ending=False)
    _tell(figure, f"{seconds:.0f} s (seed {SEED})", lives.counts, lives.growth)


def test_however_the_program_ends_and_starts_among_any_events_the_node_is_right(tmp_path, figure):
    """Killed, stopped, replaced, on a full disk, with other flags each round; each life stays as big as it began."""
    seconds = _seconds(2 / 3)
    rounds = max(1, int(seconds / ROUND))
    drawn = random.Random(SEED).sample(FLAGS, len(FLAGS))
    counts, growth = Counter(), 0
    for number in range(rounds):
        flags = drawn[number % len(drawn)]
        lives = _live(ScratchHost(tmp_path / str(number)), flags, f"{SEED}.{number}", seconds / rounds)
        counts.update(lives.counts)
        growth = max(growth, lives.growth)
    _tell(figure, f"{seconds:.0f} s (seed {SEED}), {rounds} rounds", counts, growth)
    assert counts["starts"] > rounds


def _tell(figure, what, counts, growth):
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    figure(f"{what}: {told}; no life grew by more than {growth} KiB, in descriptors or in threads")


def _live(host, flags, seed, seconds, *, ending=True):
    chance = random.Random(seed)
    node = Node(host, chance, flags)
    with _disk(host) as disk:
        host.multus.write_text(binary(0))
        host.master(mtu=0)
        checker = Checker(host)
        lives = Lives(host, node, checker, flags, seed, disk)
        try:
            checker.start()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for _ in range(chance.randrange(1, 15)):
                    node.event()
                    time.sleep(chance.random() * 0.02)
                lives.settle()
                if ending:
                    lives.event()
            lives.end(signal.SIGTERM)
        finally:
            checker.stop()
            lives.close()
        assert not checker.faults, (seed, flags, checker.faults[:5])
        assert checker.looks > 100
        assert lives.growth < 4096
        assert CLEANUP not in flags or not (host.conf.exists() or host.conflist.exists())
        lives.counts.update(events=node.done, looks=checker.looks, guarded=checker.guarded)
    return lives


@contextlib.contextmanager
def _disk(host):
    """Put the host's directories on a disk of their own that can be filled, or yield None where nobody may mount."""
    top = host.root / "host"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", top], capture_output=True).returncode != 0:
        yield None
        return
    try:
        host.conf_dir.mkdir(parents=True)
        host.bin_dir.mkdir(parents=True)
        yield top
    finally:
        subprocess.run(["umount", "-l", top], check=True)
