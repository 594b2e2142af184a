"""Hundreds of random nodes: the real program is ready exactly where a pod would get its networks."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.process.scratch import ScratchHost
from tests.runtime import CONTENTS, MODES, NAMES, STATIC, put, works

pytestmark = pytest.mark.thorough


SETTLED = 6.5
"""Seconds after which a broken file is not taken for one that is being written any more."""


def random_node(directory, number):
    """Let the program live on one random node; return what was wrong, None for nothing."""
    chance = random.Random(number)
    host = ScratchHost(directory)
    for name in STATIC:
        (host.root / "static").mkdir(exist_ok=True)
        (host.root / "static" / name).write_bytes(chance.choice([each for each in CONTENTS if each is not None]))
    host.multus.chmod(chance.choice([0o755, 0o755, 0o755, 0o644]))
    if chance.random() < 0.4:
        host.installed.write_bytes(b"somebody's")
        host.installed.chmod(chance.choice([0o755, 0o644]))
    mode = [flag.format(root=host.root) for flag in chance.choice(MODES)]
    files = [
        {chance.choice(NAMES): chance.choice(CONTENTS) for _ in range(chance.randrange(5))}
        for _ in range(chance.choice([1, 2]))
    ]
    put(host.conf_dir, files[0])
    with host.start(*mode) as program:
        for later in files:
            put(host.conf_dir, later if later is not files[0] else {})
            time.sleep(SETTLED)
            if not program.running():
                return None  # it says why and tries again: no pod of the DaemonSet is ready
            ready, good = host.ready.exists(), works(host.conf_dir, host.bin_dir)
            story = f"node {number}: {mode} {files} {host.names()}\n{program.log}"
            if ready and not good:
                return f"ready, and a pod would not get its networks: {story}"
            if good and not ready and not any(word in program.log for word in ("error", "waiting")):
                return f"not ready, without a word why: {story}"
    return None


def test_the_pod_is_ready_exactly_where_a_pod_would_get_its_networks(tmp_path, long, figure):
    count = 400 if long else 16
    first = 0 if long else random.randrange(1_000_000)
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda number: random_node(tmp_path / str(number), number), range(first, first + count))
        wrong = [each for each in found if each]
    figure(f"{count} random nodes from number {first} on, {len(wrong)} of them wrong")
    assert not wrong, "\n\n".join(wrong)
