"""Passes of the loop at times that a test says: what is done in which order, how often, and what is taken away."""

import json
import logging
import os
import shutil

import pytest

from entrypoint.disk.wakeup import Wakeup
from entrypoint.node import loop as loops
from entrypoint.node.ledger import Ledger, parsed
from entrypoint.node.loop import GaveUpError, Loop
from entrypoint.node.steps import Compare, Copy, GiveBack, Remove, Retire, StepError, Write
from tests.node import CRIO, FLANNEL, IN_CLUSTER, Node, scratch, settings_for, snapshot

MASTER = "10-a.conflist"
CLEANUP, RENAME = "--cleanup-config-on-exit", "--rename-conf-file"


class Instance(Loop):
    """A loop that passes when it is told to, at the time `now`."""

    def __init__(self, root, *flags, environ=None):
        self.now, self.root = 100.0, root
        settings = settings_for(root, f"--ready-file={root}/ready", *flags, environ=environ)
        super().__init__(settings, Wakeup(), clock=lambda: self.now)

    def rest(self):
        """Make passes until nothing is to be done any more, and let the time come for which one asks."""
        for _ in range(60):
            until = self.one_pass()
            if until is None:
                return
            self.now = max(self.now, until)
        raise AssertionError("it does not come to rest")

    def passes(self, number=3):
        """Make passes without any time between; return when the last wants to go on."""
        *_, until = (self.one_pass() for _ in range(number))
        return until


@pytest.fixture
def root(tmp_path):
    return scratch(tmp_path)


@pytest.fixture
def start(root):
    started = []

    def make(*flags, **options):
        started.append(Instance(root, *flags, **options))
        return started[-1]

    yield make
    for loop in started:
        loop.close()


@pytest.fixture
def running(root, start):
    """Start an instance that has configured the node and come to rest."""

    def make(*flags):
        put(root, FLANNEL)
        loop = start(*flags)
        loop.rest()
        return loop

    return make


@pytest.fixture
def failing(monkeypatch):
    """Return what lets steps of these kinds fail as on a full disk, and what ends that."""
    real = loops.attempted

    def fail(*kinds):
        tried = []

        def attempted(step, doing):
            if isinstance(step, kinds):
                tried.append(step)
                raise StepError(f"cannot {step.verb} {step.path}: No space left on device")
            return real(step, doing)

        monkeypatch.setattr(loops, "attempted", attempted)
        return tried

    fail.end = lambda: monkeypatch.setattr(loops, "attempted", real)
    return fail


def put(root, content, name=MASTER):
    (root / "net.d" / name).write_bytes(content)


def outputs(root):
    return sorted(name for name in os.listdir(root / "net.d") if name.startswith("00-"))


def texts(caplog, level=logging.INFO):
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


# ---- one pass ----


def test_a_pass_configures_the_node_and_then_nothing_is_left_to_wait_for_or_to_write(root, start):
    put(root, FLANNEL)
    loop = start()
    assert loop.one_pass() == loop.now  # the binary is compared next
    assert outputs(root) == ["00-multus.conf"] and (root / "ready").exists()
    loop.rest()
    before = snapshot(root)
    assert loop.one_pass() is None
    assert snapshot(root) == before
    assert Ledger(loop._settings.ledger_file).path.exists()


def test_without_a_master_all_else_is_prepared_and_nobody_is_told_that_the_node_is_configured(root, start, caplog):
    caplog.set_level(logging.INFO)
    loop = start("--wait-timeout=30")
    assert loop.passes() == 130.0
    assert (root / "bin/multus").exists() and (root / "net.d/multus.d/multus.kubeconfig").exists()
    assert not (root / "ready").exists()
    assert [text for text in texts(caplog) if "configured" in text] == []
    assert sum(text.startswith("waiting for") for text in texts(caplog)) == 1


def test_at_the_time_out_it_gives_up_with_the_directory_and_every_reason(root, start):
    put(root, b"[]", "05-a.conf")
    put(root, b'{"name": "m", "type": "multus"}', "70-multus.conf")
    loop = start("--wait-timeout=3")
    assert loop.passes() == 103.0
    loop.now = 103.0
    with pytest.raises(GaveUpError) as gave_up:
        loop.one_pass()
    for part in ("gave up after 3 s", f"{root}/net.d", "'05-a.conf'", "found a list", "'70-multus.conf'"):
        assert part in str(gave_up.value)


def test_once_configured_a_master_is_waited_for_without_limit(root, start):
    put(root, FLANNEL)
    loop = start("--wait-timeout=1")
    loop.rest()
    (root / "net.d" / MASTER).unlink()
    loop.now = 1e6
    assert loop.passes() is None
    assert not (root / "ready").exists()


@pytest.mark.parametrize("fault", ["token", "binary", "step"])
def test_what_cannot_get_better_by_itself_ends_the_first_pass_and_only_that(root, start, failing, fault):
    def spoil():
        if fault == "step":
            return failing(Copy)
        path = root / {"token": "sa/token", "binary": "src/multus"}[fault]
        return path.write_bytes(b" ") if fault == "token" else path.unlink()

    put(root, FLANNEL)
    before = snapshot(root / "net.d")
    running = start()
    running.rest()
    (root / "bin/multus").write_bytes(b"x")
    spoil()
    running.passes()
    assert outputs(root) == ["00-multus.conf"]
    fresh = start()
    with pytest.raises(GaveUpError, match="No space left" if fault == "step" else r"empty|does not exist"):
        fresh.one_pass()
    assert before.keys() <= snapshot(root / "net.d").keys()


def test_a_look_that_fails_is_made_again_ever_later_and_ends_no_start_before_the_time_out(root, start, monkeypatch):
    put(root, FLANNEL)
    loop = start("--wait-timeout=40")
    real, waits = os.scandir, []

    def scandir(path):
        raise OSError(5, "Input/output error", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        for _ in range(5):
            until = loop.passes()  # what an event brings before is no further try
            waits.append(until - loop.now)
            loop.now = until
        loop.now = 140.0
        with pytest.raises(GaveUpError, match=r"gave up after 40 s: the directory .*Input/output error"):
            loop.one_pass()
    assert waits == [1, 2, 4, 8, 16]
    assert os.scandir is real
    loop.rest()
    assert (root / "ready").exists()


def test_of_a_bad_rollout_the_pod_is_not_ready_although_the_old_configuration_works(root, start, running):
    running().close()
    (root / "70-multus.conf").write_bytes(b'{"name": "n", "type": "multus", "delegates": []}')
    loop = start(f"--multus-conf-file={root}/70-multus.conf")  # the network's own file would be read first
    loop.rest()
    assert (outputs(root), (root / "ready").exists()) == (["00-multus.conf"], False)


# ---- in a safe order ----


@pytest.mark.parametrize("kind", [Write, Copy])
def test_the_first_configuration_waits_for_what_it_refers_to(root, start, failing, kind):
    loop = start()
    loop.passes()
    (root / "sa/token").write_text("token-2")
    (root / "bin/multus").unlink()
    failing(kind)
    put(root, FLANNEL)
    assert loop.one_pass() == 101.0
    assert outputs(root) == [] and not (root / "ready").exists()


def test_nothing_is_removed_or_renamed_before_its_successor_is_written(root, running, failing, caplog):
    loop = running(RENAME)
    failing(Write)
    put(root, CRIO)
    assert loop.passes() == 101.0
    assert outputs(root) == ["00-multus.conf"] and (root / "net.d" / MASTER).exists()
    assert len(texts(caplog, logging.ERROR)) == 1
    assert (root / "ready").exists()  # pods still get Multus
    failing.end()
    loop.rest()
    assert outputs(root) == ["00-multus.conflist"] and not (root / "net.d" / MASTER).exists()


@pytest.mark.parametrize("kind", [Retire, Remove])
def test_what_fails_behind_the_write_is_tried_again_and_leaves_the_node_ready(root, running, failing, kind, caplog):
    loop = running(RENAME)
    tried = failing(kind)
    put(root, CRIO)
    assert loop.one_pass() == 101.0
    loop.passes(5)
    assert len(tried) == 1
    assert (outputs(root)[-1], (root / "net.d" / MASTER).exists()) == ("00-multus.conflist", True)
    assert (root / "ready").exists() is (kind is Retire)  # of two, the runtime reads the older one
    assert "No space left" in texts(caplog, logging.ERROR)[0]
    failing.end()
    loop.rest()
    assert (outputs(root), (root / "net.d" / MASTER).exists()) == (["00-multus.conflist"], False)


def test_once_configured_a_binary_that_cannot_be_repaired_does_not_stop_the_configuration(root, running, failing):
    loop = running()
    failing(Copy)
    (root / "bin/multus").chmod(0o644)
    put(root, CRIO)
    loop.passes()
    assert outputs(root) == ["00-multus.conflist"]
    assert not (root / "ready").exists()


def test_nor_does_one_that_a_start_finds_to_be_damaged(root, start, running, failing):
    running().close()
    (root / "bin/multus").write_bytes(b"\x7fELF mu1tus")
    loop, tried = start(), failing(Copy)
    loop.passes()
    put(root, FLANNEL.replace(b"cbr0", b"cbr1"))
    loop.one_pass()
    assert tried
    assert b"cbr1" in (root / "net.d/00-multus.conf").read_bytes()


def test_a_mesh_that_takes_its_plugin_out_just_before_ours_is_written_has_the_last_word(root, start, monkeypatch):
    put(root, CRIO)
    loop = start()
    loop.rest()
    ours = json.loads((root / "net.d/00-multus.conflist").read_bytes())

    def chain(*plugins):
        put(root, json.dumps({**ours, "plugins": [*ours["plugins"], *plugins]}).encode(), "00-multus.conflist")

    chain({"type": "istio-cni"})
    loop.rest()
    real, left = loops.attempted, []

    def attempted(step, doing):
        if isinstance(step, Write) and not left:
            chain()
            left.append((root / "net.d/00-multus.conflist").read_bytes())
        return real(step, doing)

    monkeypatch.setattr(loops, "attempted", attempted)
    put(root, CRIO.replace(b'"cni0"', b'"cni1"'))
    assert loop.one_pass() == loop.now
    assert (root / "net.d/00-multus.conflist").read_bytes() == left[0]
    loop.rest()
    (multus,) = json.loads((root / "net.d/00-multus.conflist").read_bytes())["plugins"]
    assert multus["delegates"][0]["plugins"][0]["bridge"] == "cni1"


# ---- how often ----


@pytest.mark.parametrize("changing", [False, True], ids=["a fight", "a master that flips"])
def test_a_file_is_written_five_times_in_any_five_seconds_and_the_last_state_wins(root, running, changing):
    loop = running()
    loop.now += 100
    path, written, number = root / "net.d/00-multus.conf", [], 0
    for number in range(100):
        if changing:
            put(root, FLANNEL.replace(b"cbr0", b"net%d" % number))
        else:
            path.write_text("{}")
        before = path.read_bytes()
        until = loop.one_pass()
        if path.read_bytes() != before:
            written.append(loop.now)
        else:
            assert until is not None
        loop.now += 0.2
    assert len(written) > 15
    assert all(later - earlier >= 5.0 - 1e-6 for earlier, later in zip(written, written[5:], strict=False))
    loop.rest()
    assert json.loads(path.read_bytes())["delegates"][0]["name"] == (f"net{number}" if changing else "cbr0")


def test_a_fight_over_one_file_does_not_hold_up_another_one(root, running):
    loop = running()
    for _ in range(9):
        (root / "net.d/00-multus.conf").write_text("{}")
        loop.one_pass()
    (root / "sa/token").write_text("token-2")
    loop.one_pass()
    assert b"token-2" in (root / "net.d/multus.d/multus.kubeconfig").read_bytes()


def test_a_repair_is_said_and_the_fifth_in_a_minute_is_one_warning_that_names_the_file(root, running, caplog):
    caplog.set_level(logging.INFO)
    loop = running()
    path, said = root / "net.d/00-multus.conf", []
    for _ in range(24):
        loop.now += 5
        caplog.clear()
        path.write_text("{}")
        loop.rest()
        said.append([text.removeprefix("wrote ") for text in texts(caplog)])
    for number, lines in enumerate(said):
        if number < 4:
            assert lines == [f"{path}: it was changed"]
        elif number in {4, 16}:  # once a minute
            (line,) = lines
            assert line.startswith(f"{path} was put right 5 times within 60 s")
        else:
            assert lines == []


def test_what_is_repaired_after_it_was_removed_is_said_to_have_been_missing(root, running, caplog):
    caplog.set_level(logging.INFO)
    loop = running()
    (root / "bin/multus").unlink()
    loop.rest()
    assert texts(caplog)[-1] == f"installed {root}/bin/multus from {root}/src/multus: it was missing"


def test_a_step_that_fails_is_tried_ever_later_and_another_one_at_once(root, running, failing):
    loop = running()
    began = loop.now
    tried = failing(Write)
    (root / "sa/token").write_text("token-2")
    times = []
    for _ in range(7):
        until = loop.one_pass()
        times.append(loop.now - began)
        loop.one_pass()
        loop.now = until
    assert (times, len(tried)) == ([0, 1, 3, 7, 15, 31, 61], 7)
    (root / "sa/token").write_text("token-3")
    loop.now -= 20
    loop.one_pass()
    assert len(tried) == 8  # what is to be written is another now
    failing.end()
    loop.rest()
    assert b"token-3" in (root / "net.d/multus.d/multus.kubeconfig").read_bytes()


def test_a_comparison_that_fails_is_made_again_later_and_not_all_the_time(root, start, failing):
    put(root, FLANNEL)
    start().rest()
    loop, tried = start(), failing(Compare)
    assert (loop.passes(9), len(tried)) == (101.0, 1)
    assert (root / "ready").exists()


def test_success_after_failures_is_no_repair(root, running, failing, caplog):
    caplog.set_level(logging.INFO)
    loop = running()
    for number in range(8):
        failing(Write)
        (root / "sa/token").write_text(f"token-{number}")
        loop.now = loop.one_pass()
        failing.end()
        caplog.clear()
        loop.rest()
        assert f"wrote {root}/net.d/multus.d/multus.kubeconfig" in texts(caplog)
    assert texts(caplog, logging.WARNING) == []


def test_a_signal_just_after_the_write_leaves_no_file_that_is_nobodys(root, start, monkeypatch):
    put(root, FLANNEL)
    loop, real = start(), loops.attempted

    def attempted(step, doing):
        real(step, doing)
        if step.path.name == "00-multus.conf":
            loop._wakeup.stop(15)

    monkeypatch.setattr(loops, "attempted", attempted)
    loop.one_pass()
    assert parsed(loop._settings.ledger_file.read_bytes()).configuration.name == "00-multus.conf"


def test_a_ledger_that_cannot_be_written_is_an_error_and_is_tried_again(root, start, monkeypatch, caplog):
    put(root, FLANNEL)
    loop = start()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "save", full)
        assert loop.passes() == 101.0
    (said,) = texts(caplog, logging.ERROR)
    assert said.startswith(f"cannot write {root}/net.d/multus.d/ledger.json: No space left on device; free some")
    assert (root / "ready").exists()
    loop.now = 101.0
    loop.rest()
    assert loop._settings.ledger_file.exists()


def test_a_directory_made_again_is_filled_at_once_and_that_is_no_fight(root, start, caplog):
    caplog.set_level(logging.INFO)
    put(root, FLANNEL)
    loop = start()
    loop._watch()
    loop.rest()
    for _ in range(7):
        shutil.rmtree(root / "net.d")
        loop._watch()
        loop.passes(1)
        (root / "net.d").mkdir()
        put(root, FLANNEL)
        loop._watch()
        loop.one_pass()
        assert outputs(root) == ["00-multus.conf"]
    assert not any("keeps changing it" in text for text in texts(caplog))
    loop._watcher.stop()


# ---- when something runs out ----


@pytest.mark.parametrize(
    ("where", "error", "said"),
    [
        ("entrypoint.disk.watch.Watcher.follow", OSError(24, "inotify instance limit reached"), "max_user_instances"),
        ("threading.Thread.start", RuntimeError("can't start new thread"), "can't start new thread"),
    ],
)
def test_a_node_without_watches_is_configured_and_looked_at_from_time_to_time(
    root, start, monkeypatch, caplog, where, error, said
):
    put(root, FLANNEL)
    loop = start()

    def exhausted(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(where, exhausted)
        for _ in range(4):
            until = loop.one_pass(loop._watch())
        assert until == loop.now + 2.0
        assert outputs(root) == ["00-multus.conf"]
        assert sum(said in text for text in texts(caplog)) == 1
    assert loop.one_pass(loop._watch()) is None
    loop._watcher.stop()


def test_without_a_thread_left_the_startup_taint_is_removed_later(root, start, monkeypatch, caplog):
    put(root, FLANNEL)
    loop = start("--startup-taint=x", environ={**IN_CLUSTER, "NODE_NAME": "node-1"})

    def exhausted(*_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", exhausted)
        assert loop.passes() > loop.now
        assert "cannot start a process of our own: can't start new thread" in caplog.text
        assert outputs(root) == ["00-multus.conf"]


# ---- the newer one ----


def test_who_comes_while_another_one_notes_something_writes_its_own_configuration_all_the_same(
    root, start, monkeypatch
):
    """What the older one wrote works, and yet it is not what this run wants."""
    put(root, FLANNEL)
    Node(root).settle()
    loop, overwritten = start("--skip-config-watch", "--multus-log-level=error"), [True]
    monkeypatch.setattr(Ledger, "overwritten", lambda self: bool(overwritten) and overwritten.pop())
    loop.one_pass()
    assert not (root / "ready").exists()  # else a rollout would end the older one, and the token that is in use
    loop.rest()
    assert json.loads((root / "net.d/00-multus.conf").read_bytes())["logLevel"] == "error"
    assert (root / "ready").exists()


def test_what_another_one_notes_before_our_turn_is_not_overwritten(root, start, monkeypatch):
    put(root, FLANNEL)
    loop, theirs = start(), Ledger(root / "net.d/multus.d/ledger.json")
    turn = loop._owner.turn

    def later(cancelled):
        theirs.note_program("macvlan", "d")
        theirs.save()
        monkeypatch.undo()
        return turn(cancelled)

    monkeypatch.setattr(loop._owner, "turn", later)
    loop.rest()
    assert parsed(theirs.path.read_bytes()).programs.keys() == {"macvlan", "multus"}


# ---- leaving ----


@pytest.mark.parametrize(
    ("before_the_end", "stays"), [(29.0, False), (31.0, True)], ids=["a preStop hook", "long before"]
)
@pytest.mark.parametrize("name", ["net.d/00-multus.conf", "bin/multus", "net.d/multus.d/multus.kubeconfig"])
def test_what_was_put_back_just_before_the_end_is_taken_away_again(root, running, name, before_the_end, stays):
    loop = running()
    (root / name).unlink()
    loop.rest()
    assert (root / name).exists()
    loop.now += before_the_end
    for other in ("net.d/00-multus.conf",):  # what refers to the others has gone as well
        if name != other and not stays:
            (root / other).unlink()
    loop._leave()
    assert (root / name).exists() is stays


@pytest.mark.parametrize(
    "damage", ["changed", "our own change of suffix", "missing at the start", "a mesh's conversion"]
)
def test_what_nobody_else_took_away_is_no_hooks_work(root, start, damage):
    put(root, FLANNEL)
    loop = start()
    if damage != "missing at the start":
        loop.rest()
    if damage == "changed":
        (root / "net.d/00-multus.conf").write_text("{}")
    elif damage == "our own change of suffix":
        put(root, CRIO)
        loop.rest()
        put(root, FLANNEL)
    elif damage == "a mesh's conversion":
        ours = json.loads((root / "net.d/00-multus.conf").read_bytes())
        chained = {"cniVersion": "0.3.0", "name": "k8s-pod-network", "plugins": [ours, {"type": "istio-cni"}]}
        put(root, json.dumps(chained).encode(), "00-multus.conflist")
        (root / "net.d/00-multus.conf").unlink()
        loop.rest()
        (root / "net.d/00-multus.conflist").write_bytes(json.dumps({**chained, "plugins": [ours]}).encode())
        put(root, FLANNEL.replace(b"cbr0", b"cbr1"))
    loop.rest()
    loop._leave()
    assert len(outputs(root)) == 1


def test_a_name_that_cannot_be_given_back_keeps_the_configuration(root, running, monkeypatch, caplog):
    loop = running(CLEANUP, RENAME)

    def fail(self, doing):
        raise OSError(30, "Read-only file system", str(self.path))

    monkeypatch.setattr(GiveBack, "do", fail)
    loop._leave()
    assert outputs(root) == ["00-multus.conf"]
    said = texts(caplog, logging.ERROR)
    assert "cannot clean up: cannot rename" in said[0] and "readOnly" in said[0]
    assert "the configuration stays" in said[1]
