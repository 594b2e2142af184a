"""Random lives of a node: the program starts again and again, each time with other flags, and is stopped or killed.

Whatever was asked for before, the node ends ready with one configuration of ours, and with no file of an operator's
touched; and once a run has cleaned up, only what was there before is there.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import signal
from concurrent.futures import ThreadPoolExecutor

from tests.process.scratch import FLANNEL, MULTUS, ScratchHost, file_id, settled
from tests.resilience.conftest import LONG

RENAME, CLEANUP = "--rename-conf-file", "--cleanup-config-on-exit"
STATIC, MASTERS = "00-static.conf", ("10-flannel.conflist", "20-calico.conflist")
OPERATORS = {
    MASTERS[0]: {**FLANNEL, "cniVersion": "0.4.0"},
    MASTERS[1]: {**FLANNEL, "cniVersion": "1.0.0", "name": "calico"},
    "05-disabled.conflist.old": {**FLANNEL, "name": "disabled"},
    "20-calico.conflist.bak": {**FLANNEL, "name": "saved"},
    "87-bridge.conf": {"cniVersion": "0.4.0", "name": "bridge", "type": "bridge"},
    "99-loopback.conf": {"cniVersion": "0.3.1", "name": "lo", "type": "loopback"},
}
MODES = [
    [],
    [RENAME],
    ["--multus-conf-file={host.image}/00-static.conf"],
    [CLEANUP],
    ["--skip-config-watch"],
    ["--cni-version=1.0.0"],
    ["--cni-version=0.3.1"],
    ["--multus-master-cni-file-name=20-calico.conflist"],
    [RENAME, CLEANUP],
    [RENAME, "--multus-master-cni-file-name=20-calico.conflist"],
    [RENAME, "--skip-config-watch", "--cni-version=1.0.0"],
    ["--multus-conf-file={host.image}/00-static.conf", RENAME, CLEANUP],
]


def _prepared(directory):
    host = ScratchHost(directory)
    (host.image / STATIC).write_text(json.dumps(MULTUS))
    for name, document in OPERATORS.items():
        (host.conf_dir / name).write_text(json.dumps(document))
    return host, {name: file_id(host.conf_dir / name) for name in OPERATORS}


def _wrong(host, before, earlier, mode=None):
    """Say what is wrong with the node; `mode` are the flags of a run that is ready, None after the last one.

    A master that made way for another one that was renamed too stays NAME.old (`earlier`): its network has gone.
    """
    names = set(host.names()) - {"multus.d"}
    ours = names & {"00-multus.conf", "00-multus.conflist", STATIC}
    static = mode is not None and STATIC in " ".join(mode)
    if len(ours) != (mode is not None) or (mode is not None and (STATIC in ours) is not static):
        return f"of ours there is {ours}"
    renamed = {each.removesuffix(".old") for each in names - ours - set(before)}
    may = earlier | ({*MASTERS} if mode and RENAME in mode and not static else set())
    if not renamed <= may:
        return f"{renamed} are not called as they were, only {may} may be"
    for name, known in before.items():
        if file_id(host.conf_dir / (f"{name}.old" if name in renamed else name)) != known:
            return f"{name} was touched"
    return None if mode is None or renamed - earlier or RENAME not in mode or static else "no master was renamed"


def life(directory, modes, chance):
    """Let a node live through runs with these flags; return what was wrong, None for nothing."""
    host, before = _prepared(directory)
    earlier, present, logs = set[str](), None, []
    for number, mode in enumerate([*modes, [*modes[-1], CLEANUP]]):
        flags = [flag.format(host=host) for flag in mode]
        host.ready.unlink(missing_ok=True)
        with host.start(*flags) as program:
            host.until_ready(program)
            settled(program)
            for line in program.lines("info: renamed"):
                old, new = re.search(r"renamed .*/(.+) to (.+)", line).groups()
                earlier = (earlier | {present} if new.endswith(".old") else earlier) - {None, old, new}
                present = old if new.endswith(".old") else None if new == present else present
            wrong = _wrong(host, before, earlier, mode)
            last = number == len(modes)
            end = signal.SIGTERM if last or chance.random() < 0.6 else signal.SIGKILL
            code = program.stop(end)
            logs.append(f"{mode}, {end.name}:\n{program.log}")
            wrong = wrong or (None if code in {0, -signal.SIGKILL} else f"it ended with {code}")
        if CLEANUP in mode and end == signal.SIGTERM:
            wrong, present = wrong or _wrong(host, before, earlier), None
        if wrong:
            return "\n".join([wrong, f"there are {host.names()}", *logs])
    return None


def _lives(tmp_path, each_life):
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda item: life(tmp_path / str(item[0]), item[1], random.Random(item[0])), each_life)
        wrong = [each for each in found if each]
    assert not wrong, "\n\n".join(wrong)


def test_whatever_flags_follow_each_other_the_node_ends_as_the_last_ones_say(tmp_path, figure):
    """The same lives in each quick run; the long form draws others, and tries each pair of flags first."""
    first = random.randrange(1_000_000) if LONG else 0
    drawn = [random.Random(number) for number in range(first, first + (200 if LONG else 16))]
    lives = [chance.choices(MODES, k=chance.choice([2, 3, 4])) for chance in drawn]
    pairs = list(map(list, itertools.product(MODES, repeat=2))) if LONG else []
    figure(f"{len(pairs)} pairs of flags, and {len(lives)} lives from number {first} on")
    _lives(tmp_path, enumerate([*pairs, *lives], first))
