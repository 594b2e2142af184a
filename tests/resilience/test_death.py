"""`kill -9` at every system call that changes the host's directories.

strace kills the program as it enters a call, so that each run dies between two calls. It does so at every call that
writes: between two of them the directories stay as they are, wherever a kill comes.
"""

from __future__ import annotations

import json
import shutil
import signal
import stat

import pytest

from tests.process.scratch import ALIVE, ScratchHost, at_rest, presences, settled
from tests.resilience import tracing
from tests.waiting import until

CLEANUP, RENAME = "--cleanup-config-on-exit", "--rename-conf-file"
RUNTIME_SUFFIXES = (".conf", ".conflist", ".json")
ATTEMPTS = 25
"""How often one call is tried again when the run came another way there: how many passes events cause varies, and with
them how many looks there are before it."""


class Scene:
    """Something that happens to a node, cut off at one system call."""

    flags = ()
    passed_over = "\n"
    """In which calls nobody is killed."""

    def prepare(self, host):
        """Make the node as it is before."""
        host.master()

    def play(self, host, out, *inject, cut=False):
        """Let it happen under strace until it is done or, with `cut`, until the program has been killed.

        Return whether it was killed: a run may come another way, without that call.
        """
        with host.start(*self.flags, prefix=tracing.prefix(out, *inject)) as program:
            if cut:
                return self.is_killed(host, program)
            until(lambda: self.is_done(host), what="the end of the scene")
            settled(program)  # what is compared comes into the ledger only after that
        return False

    def is_killed(self, host, program):
        until(lambda: not program.running() or (self.is_done(host) and at_rest(program)), what="the kill or the rest")
        return program.process.poll() == -signal.SIGKILL

    def is_done(self, host):
        return host.ready.exists()

    def again(self, host):
        """Start the program anew after it was cut off, until the node is as it must be."""
        with host.start(*self.flags) as program:
            program.says("the node is configured")  # a killed run leaves its ready file
            until(lambda: self.is_done(host), what="the same end")
            settled(program)


class Install(Scene):
    pass


class Upgrade(Scene):
    """An older image has been here: everything is replaced."""

    def prepare(self, host):
        host.master(mtu=1)
        with host.start() as program:
            host.until_ready(program)
            program.stop()
        host.multus.write_bytes(b"\x7fELF another multus binary\n" * 3000)
        host.rotate("token-2", "CERTIFICATE 2\n")
        host.master(mtu=2)


class Running(Scene):
    """Something happens while the program is running."""

    def prepare(self, host):
        super().prepare(host)
        with host.start(*self.flags) as program:
            host.until_ready(program)
            program.stop(signal.SIGKILL)

    def play(self, host, out, *inject, cut=False):
        host.ready.unlink(missing_ok=True)
        with host.configured(*self.flags) as program:
            settled(program)
            with tracing.attached(program, out, *inject):
                self.happen(host, program)
                if cut:
                    return self.is_killed(host, program)
                until(lambda: self.is_done(host) and self.has_ended(program), what="the end of the scene")
                settled(program) if program.running() else None
        return False

    def has_ended(self, program):
        return True


class Rotation(Running):
    def happen(self, host, program):
        host.rotate("token-2", "CERTIFICATE 2\n")

    def is_done(self, host):
        return host.has_token("token-2")


class MasterChange(Running):
    """To a CNI version that calls for the other file name."""

    def happen(self, host, program):
        host.master(cniVersion="1.0.0", mtu=9000)

    def is_done(self, host):
        return host.conflist.exists() and not host.conf.exists()


class Renaming(Scene):
    flags = (RENAME,)


class NameBack(Scene):
    """The flag was dropped: the renamed master gets its name back."""

    def prepare(self, host):
        host.master()
        with host.start(RENAME) as program:
            host.until_ready(program)
            program.stop()

    def is_done(self, host):
        return host.ready.exists() and "10-flannel.conflist.old" not in host.names()


class RenamingAgain(Running):
    """Its owner writes the master anew: NAME.old is replaced."""

    flags = (RENAME,)

    def happen(self, host, program):
        host.master(mtu=9000)

    def is_done(self, host):
        return host.wraps(mtu=9000) and "10-flannel.conflist" not in host.names()


class CleaningUp(Running):
    """On the way out."""

    flags = (CLEANUP,)

    def happen(self, host, program):
        program.process.terminate()

    def is_done(self, host):
        return True

    def has_ended(self, program):
        return not program.running()


class CleaningUpAfterRenaming(CleaningUp):
    flags = (CLEANUP, RENAME)


class Uninstalling(Scene):
    """After `--rename-conf-file`, so that there is a name to give back."""

    command = ("uninstall", RENAME)
    passed_over = '.multus-entrypoint.lock", O_RDWR'
    """It is there already, and which call of `openat` that is depends on how many processes this machine has."""

    def prepare(self, host):
        host.master()
        with host.start(RENAME) as program:
            host.until_ready(program)
            until(lambda: json.loads((host.kubeconfig.parent / "ledger.json").read_text())["programs"])
            program.stop()

    def play(self, host, out, *inject, cut=False):
        with host.start(*self.command, prefix=tracing.prefix(out, *inject)) as program:
            code = program.ends()  # thousands of calls, under strace, on a machine that is not ours alone
            assert code in ({-signal.SIGKILL, 0} if cut else {0})
            return code == -signal.SIGKILL

    def again(self, host):
        assert host.run(*self.command).returncode == 0


SCENES = [
    Install,
    Upgrade,
    Rotation,
    MasterChange,
    Renaming,
    NameBack,
    RenamingAgain,
    CleaningUp,
    CleaningUpAfterRenaming,
    Uninstalling,
]


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize(
    "scene",
    [pytest.param(each(), id=each.__name__, marks=() if each is Install else pytest.mark.thorough) for each in SCENES],
)
def test_a_kill_at_any_call_leaves_whole_files_and_the_next_start_the_same_end(tmp_path, scene, figure):
    scene.play(_prepared(tmp_path / "first", scene), tmp_path / "trace")  # Python writes down what it has compiled
    host = _prepared(tmp_path / "model", scene)
    before = _content(host)
    scene.play(host, host.root / "trace")
    after = _content(host)
    called = tracing.calls(host.root / "trace", host)
    planned = [call for call in called if call.changes and scene.passed_over not in call.text]
    scene.again(host)
    end = _content(host)
    shutil.rmtree(host.root)

    host = _prepared(tmp_path / "host", scene)
    prepared = shutil.copytree(host.root, tmp_path / "prepared", symlinks=True)
    out = host.root / "trace"
    hit = set()
    for number, call in enumerate(planned):
        ordinal, nth = call.ordinal, sum(_kind(each) == _kind(call) for each in called[: called.index(call)])
        for _ in range(ATTEMPTS):
            shutil.rmtree(host.root)
            shutil.copytree(prepared, host.root, symlinks=True)
            if not scene.play(host, out, f"{call.name}:signal=KILL:when={ordinal}", cut=True):
                alike = [each.ordinal for each in tracing.calls(out, host) if _kind(each) == _kind(call)]
                ordinal = alike[min(nth, len(alike) - 1)] if alike else ordinal
                continue
            killed_at = tracing.last_call(out)
            died = _content(host)
            _assert_whole(before, died, after, killed_at)
            scene.again(host)
            assert _content(host) == end, killed_at
            assert len(presences(host)) <= 1, killed_at  # the last one was killed too
            if _kind(killed_at) == _kind(call) and str(host.root / "host") in killed_at.text:
                hit.add(number)
                break
            # Past it already: it has another number here. Not there yet: on to the next.
            alike = [each.ordinal for each in tracing.calls(out, host) if _kind(each) == _kind(call)]
            ordinal = alike[nth] if len(alike) > nth and alike[nth] < ordinal else ordinal + 1
    figure(f"killed at {len(hit)} of {len(planned)} calls")
    assert len(hit) == len(planned), [call for number, call in enumerate(planned) if number not in hit]
    assert len(hit) > (1 if scene.__class__ is CleaningUp else 4)


def _prepared(root, scene):
    host = ScratchHost(root)
    scene.prepare(host)
    return host


def _kind(call):
    """Return what tells a call from others, without the random name of a temporary file and the scratch directory."""
    return call.name, call.changes


def _content(host):
    """Return everything below the host's directories: path -> mode and content.

    But for the file by which other instances know of one: a killed one leaves it, under another name each time.
    """
    top = host.root / "host"
    found = {}
    for path in sorted(top.rglob("*")):
        if path.name.endswith(ALIVE):
            continue
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        found[str(path.relative_to(top))] = status.st_mode, content
    return found


def _assert_whole(before, died, after, where):
    """Assert that whatever a CNI runtime reads is as it was before, or as it is after."""
    read = {name for name in {*before, *died, *after} if _is_read(name)}
    masters = {name for name in read if "/10-flannel" in name}  # their owner writes them, before or while we look
    for name in read - masters:
        assert died.get(name) in {before.get(name), after.get(name)}, (name, where)
    for name in set(died):
        if name.endswith(RUNTIME_SUFFIXES):
            json.loads(died[name][1])
    for name in set(died) - set(before) - set(after) - masters:
        assert name.rpartition("/")[2].startswith(".multus-entrypoint-"), (name, where)
        assert not name.endswith(RUNTIME_SUFFIXES), (name, where)
    if _networks(before) and _networks(after):
        assert _networks(died), ("a runtime finds no network", where)
    if _configurations(before) and _configurations(after):
        assert _configurations(died), ("a node that had a configuration has none", where)
    if _configurations(died):
        assert "etc/cni/net.d/multus.d/multus.kubeconfig" in died, where
        assert "opt/cni/bin/multus" in died, where
    assert any(name.startswith("etc/cni/net.d/10-flannel.conflist") for name in died), where


def _is_read(name):
    in_subdirectory = "/multus.d/" in name
    return (
        (name.endswith(RUNTIME_SUFFIXES) and not in_subdirectory)
        or name.endswith("multus.kubeconfig")
        or name == "opt/cni/bin/multus"
    )


def _networks(content):
    return [name for name in content if name.endswith(RUNTIME_SUFFIXES) and name.rpartition("/")[0] == "etc/cni/net.d"]


def _configurations(content):
    return [name for name in content if "/00-multus.conf" in name]
