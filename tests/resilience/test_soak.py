"""Everything at once, at random but repeatable, with the invariants checked beside it all the time."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from pathlib import Path

import pytest

from tests.process.scratch import FLANNEL, overwrite, replace, until, vanish

SEED = int(os.environ.get("RESILIENCE_SEED", "20261123"))
SECONDS = float(os.environ.get("RESILIENCE_SOAK", "0"))
"""Seconds of the soak; 0 for those of the form."""
CHECK_INTERVAL = 0.002


class Checker(threading.Thread):
    """Looks at what a runtime reads; what it finds broken is collected."""

    def __init__(self, host):
        super().__init__(daemon=True)
        self._host = host
        self._ended = threading.Event()
        self.looks = 0
        self.faults = []

    def run(self):
        while not self._ended.wait(CHECK_INTERVAL):
            self.looks += 1
            for path in (self._host.conf, self._host.conflist):
                content = self._read(path)
                if content is not None and content != FORGED:
                    self._check(path, content, lambda text: json.loads(text)["name"] == "multus-cni-network")
            content = self._read(self._host.kubeconfig)
            if content is not None and content != FORGED:
                self._check(self._host.kubeconfig, content, lambda text: text.endswith("\n") and "token-" in text)
            content = self._read(self._host.installed)
            if content is not None and content != FORGED:
                self._check(self._host.installed, content, lambda text: text.endswith("end of the binary\n"))

    def stop(self):
        self._ended.set()
        self.join()

    def _read(self, path):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return path.read_bytes()
        return None

    def _check(self, path, content, holds):
        try:
            assert holds(content.decode())
        except (AssertionError, ValueError, LookupError, TypeError) as error:
            self.faults.append((path.name, repr(error), content[:200]))


FORGED = b"not written by us\n"
"""What the events put in the place of our files; it is whole when it appears."""


class Node:
    """The random events, and what the node must come to after them."""

    def __init__(self, host, chance):
        self.host, self.chance = host, chance
        self.token, self.mtu, self.binary, self.done = "token-1", 0, 0, 0
        self.noise = 0

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
        path = self.host.conf_dir / "10-flannel.conflist"
        overwrite(path, content[: self.chance.randrange(len(content))])
        time.sleep(self.chance.random() * 0.05)
        overwrite(path, content)

    def replace_binary(self):
        self.binary += 1
        replace(self.host.multus, _binary(self.binary), 0o755)

    def forge(self):
        path = self.chance.choice([self.host.conf, self.host.kubeconfig, self.host.installed])
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            replace(path, FORGED)

    def remove_output(self):
        path = self.chance.choice([self.host.conf, self.host.conflist, self.host.kubeconfig, self.host.installed])
        path.unlink(missing_ok=True)

    def add_and_remove_an_earlier_master(self):
        self.host.master("05-other.conflist", mtu=-1)
        time.sleep(self.chance.random() * 0.05)
        (self.host.conf_dir / "05-other.conflist").unlink(missing_ok=True)

    def make_noise(self):
        for _ in range(self.chance.randrange(300)):
            overwrite(self.host.conf_dir / f"noise-{self.chance.randrange(9)}.log", "x")

    def remove_master_for_a_moment(self):
        (self.host.conf_dir / "10-flannel.conflist").unlink(missing_ok=True)
        time.sleep(self.chance.random() * 0.05)
        self.change_master()

    def replace_directory(self):
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
                and host.installed.read_text() == _binary(self.binary)
                and host.ready.exists()
                and not [name for name in host.names() if name.endswith(".tmp")]
            )
        return False


def _binary(number):
    return f"{number} {'x' * 50_000}end of the binary\n"


def _resources(program):
    process = Path(f"/proc/{program.pid}")
    resident = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS"))
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir())), int(resident.split()[1])


@pytest.mark.parametrize("flags", [()], ids=["auto"])
def test_after_any_events_the_node_is_right_and_the_program_as_big_as_before(host, flags, long, figure):
    seconds = SECONDS or (1800 if long else 12)
    chance = random.Random(SEED)
    node = Node(host, chance)
    host.multus.write_text(_binary(0))
    host.master(mtu=0)
    with host.start(*flags) as program:
        host.until_ready(program)
        warm_up = time.monotonic() + min(seconds / 4, 60)
        checker = Checker(host)
        checker.start()
        before, settlings = None, 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(chance.randrange(1, 25)):
                node.event()
                time.sleep(chance.random() * 0.02)
            until(node.settled, what=f"the right node after {node.done} events (seed {SEED})")
            settlings += 1
            if before is None and time.monotonic() > warm_up:
                before = _resources(program)
        checker.stop()
        after = _resources(program)
        figure(
            f"{seconds:g} s (seed {SEED}): {node.done} events, right again all {settlings} times, {checker.looks} "
            f"looks by the checker, {len(checker.faults)} faults; descriptors {before[0]} -> {after[0]}, threads "
            f"{before[1]} -> {after[1]}, memory {before[2]} -> {after[2]} KiB; {program.cpu_seconds():.1f} s of CPU"
        )
        assert not checker.faults, checker.faults[:5]
        assert checker.looks > 100
        assert after[1] == before[1]
        assert abs(after[0] - before[0]) <= 2
        assert after[2] - before[2] < 4096
        code, _ = program.stop()
        assert code == 0
