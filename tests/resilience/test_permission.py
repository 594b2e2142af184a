"""What happens where something is forbidden: EACCES, at the start and in the middle of a run, and permission back.

Nothing denies root access, so as root the program runs without any capability: it is then no more than the owner of
its files, and the permission bits count. Anybody else runs it as it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.process.scratch import FLANNEL, MULTUS, ScratchHost, settled
from tests.resilience.conftest import LONG
from tests.waiting import until

AS_ROOT = os.geteuid() == 0
UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if AS_ROOT else ()
NEW_BINARY = b"\x7fELF new" * 3000

pytestmark = pytest.mark.skipif(AS_ROOT and shutil.which("setpriv") is None, reason="needs setpriv (util-linux)")


def _truly(path: Path) -> Path:
    """Return the file at the end of kubelet's links: chmod would follow them, and a mode has to be put back."""
    return path.resolve()


class Place(NamedTuple):
    """What is forbidden, and what the program needs it for."""

    path: Callable[[ScratchHost], Path]
    mode: int
    """What is left of its permissions."""
    said: tuple[str, ...]
    """What must be said, in one line, by a program that starts and by one that runs."""
    happen: Callable[[ScratchHost], object] = lambda host: None
    """What makes a running program need it; the content of a file that is forbidden need not change for that."""
    done: Callable[[ScratchHost], object] = lambda host: True
    flags: tuple[str, ...] = ()


DENIED = "Permission denied"
UNWRITABLE = (DENIED, "may the container write there")


def _static(number):
    return json.dumps({**MULTUS, "number": number})


def _change_master(host):
    """In place: its directory may be closed to what is new."""
    (host.conf_dir / "10-flannel.conflist").write_text(json.dumps({**FLANNEL, "mtu": 2}))


NEW_MASTER = (_change_master, lambda host: host.wraps(mtu=2))
NEW_TOKEN = (lambda host: host.rotate("token-2"), lambda host: host.has_token("token-2"))
BINARY = (
    lambda host: host.multus.write_bytes(NEW_BINARY),
    lambda host: host.installed.read_bytes() == NEW_BINARY,
)
PLACES = {
    "conf-dir-unwritable": Place(
        lambda host: host.conf_dir, 0o500, ("cannot write", "00-multus.conf", *UNWRITABLE), *NEW_MASTER
    ),
    "kubeconfig-dir-unwritable": Place(
        lambda host: host.kubeconfig.parent, 0o500, ("cannot write", "multus.kubeconfig", *UNWRITABLE), *NEW_TOKEN
    ),
    "bin-dir-unwritable": Place(
        lambda host: host.bin_dir, 0o500, ("cannot install", "opt/cni/bin/multus", *UNWRITABLE), *BINARY
    ),
    "conf-dir-closed": Place(lambda host: host.conf_dir, 0, (DENIED,), *NEW_MASTER),
    "autoconfig-dir-closed": Place(
        lambda host: host.root / "auto",
        0,
        ("the directory", "/auto cannot be read", DENIED),
        lambda host: host.master(directory=host.root / "auto", mtu=2),
        lambda host: host.wraps(mtu=2),
        ("--multus-autoconfig-dir={root}/auto",),
    ),
    "master-unreadable": Place(
        lambda host: host.conf_dir / "10-flannel.conflist",
        0,
        ("10-flannel.conflist", DENIED),
        *NEW_MASTER,
        ("--wait-timeout=1",),
    ),
    "token-unreadable": Place(
        lambda host: _truly(host.account.path / "token"),
        0,
        ("service account token", "serviceaccount/token", DENIED),
        lambda host: _truly(host.account.path / "token").write_text("token-2"),
        lambda host: host.has_token("token-2"),
    ),
    "ca-unreadable": Place(
        lambda host: _truly(host.account.path / "ca.crt"), 0, ("CA certificate", "serviceaccount/ca.crt", DENIED)
    ),
    "service-account-closed": Place(
        lambda host: host.account.path, 0, ("service account token", "serviceaccount/token", DENIED), *NEW_TOKEN
    ),
    "binary-unreadable": Place(lambda host: host.multus, 0, ("image/multus", "is not executable"), *BINARY),
    "image-closed": Place(lambda host: host.image, 0, ("--multus-bin-file", "image/multus", DENIED), *BINARY),
    "static-unreadable": Place(
        lambda host: host.root / "00-multus.conf",
        0,
        ("--multus-conf-file", "00-multus.conf", DENIED),
        lambda host: (host.root / "00-multus.conf").write_text(_static(2)),
        lambda host: (host.conf_dir / "00-multus.conf").read_text() == _static(2),
        ("--multus-conf-file={root}/00-multus.conf",),
    ),
}


BLIND = [
    PLACES[each] for each in ("conf-dir-closed", "autoconfig-dir-closed", "master-unreadable", "static-unreadable")
]


@contextlib.contextmanager
def _forbidden(path, mode):
    before = path.stat().st_mode & 0o7777
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


def _flags(host, place):
    return [flag.format(root=host.root) for flag in place.flags]


def _prepare(host):
    host.master()
    host.kubeconfig.parent.mkdir()
    (host.root / "auto").mkdir()
    host.master(directory=host.root / "auto")
    (host.root / "00-multus.conf").write_text(_static(1))


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_what_is_forbidden_at_the_start_is_named_and_once_it_is_permitted_it_starts(host, place):
    _prepare(host)
    flags = ["--wait-timeout=1", *_flags(host, place)]
    with _forbidden(place.path(host), place.mode):
        with host.start(*flags, prefix=UNPRIVILEGED) as program:
            assert program.ends() == 1, program.log
            program.says("error", *place.said)
    assert not host.conf.exists() and not _temporaries(host)
    with host.start(*flags, prefix=UNPRIVILEGED) as program:
        host.until_ready(program)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_what_is_forbidden_while_it_runs_costs_nothing_and_is_made_up_for_when_it_is_permitted(host, place):
    _prepare(host)
    with host.start(*_flags(host, place), prefix=UNPRIVILEGED) as program:
        host.until_ready(program)
        settled(program)
        before = _outputs(host)
        path = place.path(host)
        with _forbidden(path, place.mode):
            try:
                place.happen(host)
            except PermissionError:
                pytest.skip("to change what is forbidden needs root")
            program.says(*place.said)
            assert program.running()
            assert _outputs(host) == before and not _temporaries(host)
            # What stands works as before; only where nobody can tell what stands, or from what, it counts as broken.
            until(lambda: host.ready.exists() is (place not in BLIND), what="the ready file")
            said = [line.partition(" ")[2] for line in program.lines(DENIED)]  # without the time
        until(lambda: place.done(host), what="what was held up")
        until(host.ready.exists, what="being ready")
        assert len(said) == len(set(said)), program.log
        code = program.stop()
        assert code == 0


def test_a_readiness_indicator_where_nobody_may_look_is_waited_for(host):
    host.master()
    place = host.root / "host/run/cni"
    place.mkdir(parents=True)
    place.chmod(0)
    flags = ("--readiness-indicator-file=/run/cni/ready", "--wait-for-readiness-indicator")
    with host.start(*flags, prefix=UNPRIVILEGED) as program:
        program.says(f"waiting for {place}/ready")
        place.chmod(0o755)
        (place / "ready").touch()
        host.until_ready(program)


def test_a_forbidden_clean_up_is_told_and_ends_in_time(host):
    _prepare(host)
    with host.start("--cleanup-config-on-exit", prefix=UNPRIVILEGED) as program:
        host.until_ready(program)
        with _forbidden(host.conf_dir, 0o500):
            code = program.stop()
        assert code == 0
        program.says("cannot clean up", str(host.conf), DENIED)
    assert host.conf.exists()


CLOSED = {name for name in PLACES if name.endswith("-closed")}
KEEPS = {"autoconfig-dir-closed", "conf-dir-closed", "binary-unreadable"}
"""Where an uninstall does not see what it would have to give back, or whether it is ours."""
CODES = {
    "check": lambda name: 1,
    "--dry-run": lambda name: 0 if name.endswith("-unwritable") else 1,  # there is nothing to write
    "uninstall": lambda name: 1 if name.endswith("-unwritable") or name in KEEPS else 0,
}


@pytest.mark.parametrize("name", PLACES if LONG else sorted(CLOSED))
@pytest.mark.parametrize("command", ["--dry-run", "check", "uninstall"])
def test_no_subcommand_answers_a_refusal_with_a_traceback(host, name, command):
    place = PLACES[name]
    _prepare(host)
    with host.start(*_flags(host, place)) as program:
        host.until_ready(program)
        program.stop()
    with _forbidden(place.path(host), place.mode):
        words = [*_flags(host, place), "--wait-timeout=1"]
        with host.start(command, *words, prefix=UNPRIVILEGED) as program:  # start: holds that there is no traceback
            assert program.ends() == CODES[command](name), program.log


@pytest.mark.parametrize("mode", [0, 0o300, 0o600], ids=["closed", "unlistable", "unenterable"])
def test_an_uninstall_that_may_not_look_takes_nothing_away(host, mode):
    """A master that it does not see it could not give its name back."""
    host.master()
    with host.start("--rename-conf-file") as program:
        host.until_ready(program)
        program.stop()
    before = host.snapshot(host.conf_dir, host.bin_dir)
    with _forbidden(host.conf_dir, mode), host.start("uninstall", prefix=UNPRIVILEGED) as program:
        assert program.ends() == 1
        program.says(str(host.conf_dir), DENIED)
    after = host.snapshot(host.conf_dir, host.bin_dir)
    assert {path: state[1:3] for path, state in after.items()} == {path: state[1:3] for path, state in before.items()}
    assert host.run("uninstall").returncode == 0
    assert host.names() == ["10-flannel.conflist"]


def test_outputs_that_belong_to_somebody_else_and_may_not_be_read_are_replaced(host):
    _prepare(host)
    outputs = [host.conf, host.kubeconfig, host.installed]
    with host.start(prefix=UNPRIVILEGED) as program:
        host.until_ready(program)
        _give_away(outputs)
        until(lambda: all(path.stat().st_uid == 0 for path in outputs), what="our own files")
        until(host.ready.exists)
        program.stop()
    _give_away(outputs)
    with host.start(prefix=UNPRIVILEGED) as program:
        host.until_ready(program)
        assert all(path.stat().st_uid == 0 for path in outputs)


def _give_away(paths):
    for path in paths:
        path.chmod(0o600)
        try:
            os.chown(path, 54321, 54321)  # nobody's: the user nobody may run this
        except PermissionError:
            pytest.skip("giving files away needs root, with its capabilities")


def _outputs(host):
    found = {}
    for path in (host.conf, host.conflist, host.conf_dir / "00-multus.conf", host.kubeconfig, host.installed):
        with contextlib.suppress(FileNotFoundError):
            found[path.name] = path.read_bytes()
    return found


def _temporaries(host):
    return [path for path in (host.root / "host").rglob("*") if path.name.endswith(".tmp")]
