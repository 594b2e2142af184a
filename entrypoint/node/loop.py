"""The loop: watch, look, wish, do, tell, sleep. It knows no part by name."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from entrypoint.disk import files, programs
from entrypoint.disk.looks import Inode, inode
from entrypoint.disk.wakeup import Wakeup, end_in_good_order
from entrypoint.disk.watch import Watcher
from entrypoint.errands import child
from entrypoint.errands.errands import Errands
from entrypoint.node.binary import Binary
from entrypoint.node.configuration import Configuration
from entrypoint.node.kubeconfig import Kubeconfig
from entrypoint.node.ledger import Book, Ledger
from entrypoint.node.part import Before, Interest, Leaving, LookFailedError, Part, Wish, missing
from entrypoint.node.steps import Copy, Doing, Step, StepError, Write, advice, attempted, failure
from entrypoint.owner import SUFFIXES, Owner
from entrypoint.settings import Settings
from entrypoint.telling import log
from entrypoint.telling.log import logger
from entrypoint.telling.pace import Backoff, Pace, earliest
from entrypoint.telling.ready_file import ReadyFile
from entrypoint.telling.reporter import Reporter, Verdict

_UNWATCHED = 2.0
"""Seconds between looks while the node has no inotify watch left, or no room for the ready file."""
_FIRST_RETRY, _LAST_RETRY = 1.0, 30.0
"""Seconds until a step or a look that failed is tried again."""
_WRITES, _WRITES_WINDOW = 5, 5.0
"""So many steps on one file in so many seconds, whatever is written; a single one is never held back."""
_REPAIRS, _REPAIRS_WINDOW = 5, 60.0
"""So many repairs of one file in so many seconds are worth a warning."""
_REMOVAL_COUNTS = 30.0
"""Seconds before the end within which a removal by somebody else is taken for a preStop hook's."""


class GaveUpError(Exception):
    """The node cannot be made as it must be; the messages, one a line, say why."""


def serve(settings: Settings) -> int:
    """Keep the node as the settings want it until a signal comes; return the exit code."""
    log.configure(settings.log_format)
    wakeup = Wakeup()
    with log.failures_reported():
        end_in_good_order(wakeup)
        loop = Loop(settings, wakeup)
        try:
            loop.run()
        except GaveUpError as error:
            for line in str(error).splitlines():
                logger.error("%s", line)
            return 1
        finally:
            loop.close()
    return 0


def parts(
    settings: Settings, ledger: Ledger, *, patient: bool = True, clock: Callable[[], float] = time.monotonic
) -> list[Part]:
    """Return the parts of the node, in the order in which they are made: what the configuration refers to comes first.

    Who looks only once is not patient: it takes each file for what it is, and not for one that is being written.
    """
    return [
        Kubeconfig(settings),
        Binary(settings),
        Configuration(settings, ledger, patient=patient, clock=clock),
    ]


class Decision(NamedTuple):
    """What all parts wish, in their order, and which looks failed."""

    seen: list[Any]
    """What each part has seen; None where its look failed."""
    wishes: list[Wish]
    failed: list[LookFailedError]
    ledger: Book = Book()

    @property
    def able(self) -> bool:
        """Nothing is in the way of a node that is as it must be, once the steps are done."""
        barred = any(wish.waits or any(fault.bars for fault in wish.faults) for wish in self.wishes)
        return not self.failed and not barred

    @property
    def ready(self) -> bool:
        """The runtime uses Multus now, and that works."""
        return not self.failed and all(wish.in_use for wish in self.wishes)

    @property
    def messages(self) -> list[str]:
        """Return what is wrong with the node."""
        faults = (str(fault) for wish in self.wishes for fault in wish.faults)
        return list(dict.fromkeys([*faults, *map(str, self.failed)]))

    @property
    def warnings(self) -> list[str]:
        """Return what an operator should hear of."""
        return [each for wish in self.wishes for each in wish.warnings]

    @property
    def waits(self) -> str | None:
        """Return what a first configuration is waited for."""
        return next((wish.waits for wish in self.wishes if wish.waits), None)


def decide(each_part: Sequence[Part], before: Before) -> Decision:
    """Ask each part; one that cannot tell what is there leaves all as it is, and is no news."""
    seen, wishes, failed = list[Any](), list[Wish](), list[LookFailedError]()
    for part in each_part:
        look, wish = None, Wish(in_use=False)
        try:
            look = part.look()
            wish = part.wish(look, before)
        except LookFailedError as error:
            failed.append(error)
        seen.append(look)
        wishes.append(wish)
        before = before.and_then(wish)
    return Decision(seen, wishes, failed, before.ledger)


def _unknown(error: OSError) -> Decision:
    """Decide nothing, because nobody can tell what the ledger says."""
    return Decision([], [Wish(in_use=False)], [LookFailedError(f"{error.filename} {error.strerror}")])


def decide_once(settings: Settings, *, running: bool = False) -> Decision:
    """Decide as the loop would, without patience; compare binaries too. Nothing is written.

    For `--dry-run`, and for `check`, which looks at a node that is configured as far as the ledger knows (`running`).
    """
    ledger = Ledger(settings.ledger_file)
    each_part = parts(settings, ledger, patient=False)
    try:
        ledger.load()
    except OSError as error:
        return _unknown(error)
    before = Before(ledger.says, configured=running and ledger.says.configuration is not None)
    decision = decide(each_part, before)
    for step in (step for wish in decision.wishes for step in wish.afterwards):
        with contextlib.suppress(OSError):
            step.do(Doing(ledger, lambda: False))
    return decide(each_part, before)


class _History:
    """What has been done to one file."""

    def __init__(self) -> None:
        self.step: Step | None = None
        """The last one, done or failed."""
        self.writes = Pace(_WRITES, _WRITES_WINDOW)
        self.repairs = Pace(_REPAIRS, _REPAIRS_WINDOW)
        self.warnings = Pace(1, _REPAIRS_WINDOW)
        self.retry = Backoff(_FIRST_RETRY, _LAST_RETRY)
        self.failure: str | None = None
        self.vital = False
        """Without the step that failed the node is not configured."""


class Loop:
    """The resident process, and what it remembers from one pass to the next."""

    def __init__(self, settings: Settings, wakeup: Wakeup, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._wakeup, self._clock = settings, wakeup, clock
        self._watcher = Watcher(wakeup)
        self._owner = Owner(settings.kubeconfig_file.parent)
        self._ledger = Ledger(settings.ledger_file)
        self._parts = parts(settings, self._ledger, clock=clock)
        self._ready_file, self._errands, self._reporter = ReadyFile(settings.ready_file), Errands(settings), Reporter()
        self._started, self._first = clock(), True
        self._configured = False
        """The node was configured once in this run."""
        self._ready, self._able = False, False
        self._retry = Backoff(_FIRST_RETRY, _LAST_RETRY)
        self._standing_by = False
        self._histories: dict[Path, _History] = {}
        self._stood: frozenset[Path] = frozenset()
        """What this instance wanted on the node and found there after its last pass."""
        self._mounted: dict[Path, Inode | None] = {}
        """Which directory each of the host's was in the last pass."""
        self._put_back: dict[Path, float] = {}
        """When this run put a file back that somebody had removed."""

    # ---- the whole ----

    def run(self) -> None:
        """Loop until the wake-up is stopped. Raises `GaveUpError`."""
        settings = self._settings
        self._ready_file.told(ready=False, now=self._clock())  # an earlier run's
        places = (settings.cni_conf_dir, settings.kubeconfig_file.parent, settings.cni_bin_dir)
        for path in files.sweep([*places, *([settings.ready_file.parent] if settings.ready_file else [])]):
            logger.info("removed the temporary file %s of an earlier run", path)
        while not self._wakeup.stopping:
            self._wakeup.clear()  # clear, then watch, then look: nothing is missed between
            child.reap_orphans()
            unwatched = self._watch()
            with contextlib.suppress(programs.CancelledError):  # told to stop, or overtaken, in a long copy: look again
                self._wakeup.wait(until=self.one_pass(unwatched))
        if self._wakeup.stopped_by is not None:
            logger.info("stopping on %s", signal.Signals(self._wakeup.stopped_by).name)
        self._leave()

    def close(self) -> None:
        """Take the ready file away, break off errands, make room for others. The watch ends with the process."""
        self._errands.stop()
        self._ready_file.told(ready=False, now=float("inf"))
        self._owner.leave()

    def one_pass(self, unwatched: Sequence[str] = ()) -> float | None:
        """Look, wish, do and tell once; return until when to sleep (monotonic seconds, None for no limit)."""
        self._owner.look()
        if self._owner.superseded:
            return self._stand_by(unwatched)
        self._be_at_work()
        watched = self._interests()
        decision = self._decide()
        self._give_up_if_fatal(decision)
        self._reporter.warnings(self._warnings(decision), self._clock())  # before anything is written
        mine, done, later = self._do_in_turn(decision)
        if self._owner.superseded:
            return self._stand_by(unwatched)
        if done:
            decision = self._decide()
        self._first = False
        stands = (path for wish in decision.wishes for path in wish.stands)
        self._stood = frozenset([*stands, *(path for path in self._stood if not os.path.lexists(path))])
        self._able = self._able or decision.able
        self._ready = decision.ready and self._able  # of a bad rollout, the old configuration still works
        held_back = any(step.vital for wish in decision.wishes for step in wish.steps)  # what stands is not of this run
        self._configured = self._configured or (self._ready and not held_back)
        # What is left to do after that is done at once, and so is the look at what is watched only now.
        unfinished = mine and not later and any(wish.steps or wish.afterwards for wish in decision.wishes)
        again = unfinished or self._interests() != watched
        return earliest(
            *later,
            *(wish.until for wish in decision.wishes),
            self._tell(decision, unwatched),
            self._retried(decision),
            self._started + self._settings.wait_timeout if self._waits(decision) else None,
            self._owner.deadline,
            self._clock() if again else None,
        )

    # ---- deciding ----

    def _decide(self) -> Decision:
        settings = self._settings
        try:
            self._ledger.load()
        except OSError as error:
            return _unknown(error)
        before = Before(
            ledger=self._ledger.says,
            configured=self._configured,
            in_use=self._ready,
            standing_by=self._standing_by,
            give_up_at=float("inf") if self._configured else self._started + settings.wait_timeout,
        )
        decision = decide(self._parts, before)
        if settings.ready_file and not os.path.isdir(settings.ready_file.parent):
            decision.wishes.append(Wish(faults=(missing("--ready-file", settings.ready_file.parent),), in_use=False))
        return decision

    def _give_up_if_fatal(self, decision: Decision) -> None:
        """End the program over what cannot get better: here and nowhere else. Raises `GaveUpError`."""
        faults = [fault for wish in decision.wishes for fault in wish.faults]
        fatal = [str(fault) for fault in faults if fault.fatal or (fault.at_start and self._first)]
        fatal += [str(each) for each in decision.failed if each.at_start and self._first]
        timeout = self._settings.wait_timeout
        if not fatal and self._waits(decision) and self._clock() >= self._started + timeout:
            waits = [*(wish.waits for wish in decision.wishes if wish.waits), *map(str, decision.failed)]
            fatal += [f"gave up after {timeout:g} s: {each}" for each in waits]
        if fatal:
            raise GaveUpError("\n".join(dict.fromkeys(fatal)))

    def _waits(self, decision: Decision) -> bool:
        return not self._configured and bool(decision.waits or decision.failed)

    def _retried(self, decision: Decision) -> float | None:
        """Return when to look again after a look that failed; what an event brings before is no further try."""
        if not decision.failed:
            self._retry.succeeded()
            return None
        now, due = self._clock(), self._retry.at
        return due if due is not None and now < due else self._retry.failed(now)

    # ---- doing ----

    def _do_in_turn(self, decision: Decision) -> tuple[bool, bool, list[float]]:
        """Do the steps if this instance owns the node.

        Return whether it does, whether any was done, and when to go on with others.

        It takes the node once it can configure it. Before, it writes what it can where nobody else can.
        """
        wanted = any(wish.steps or wish.afterwards for wish in decision.wishes)
        if decision.able:
            self._owner.join(able=True)
        elif wanted and not self._owner.accompanied:
            self._owner.join(able=False)
        self._forget_lost()
        if not wanted and self._ledger.stands():
            return False, False, []
        with self._owner.turn(cancelled=lambda: self._wakeup.stopping) as mine:
            if not mine:
                return False, False, []
            if self._ledger.overwritten():  # by one that has ended since: what was decided is of no use
                return False, False, [self._clock()]
            done, later = self._do(decision) if wanted else (False, [])
            return True, done, [*later, *self._save_ledger()]

    def _do(self, decision: Decision) -> tuple[bool, list[float]]:
        """Do each part's steps in their order; when one has to wait, so do those behind it."""
        done, later = False, list[float]()
        for wish in decision.wishes:
            for step in wish.steps:
                again = self._attempt(step)
                if again is not None:
                    later.append(again)
                    break
                done = True
            if later and not self._configured:
                break  # the first configuration waits for all that it refers to
        failures = [each.failure for each in self._histories.values() if each.failure and each.vital]
        if self._first and failures:
            raise GaveUpError("\n".join(failures))
        if not done and not later:
            for step in (step for wish in decision.wishes for step in wish.afterwards):
                done = self._attempt(step) is None or done
        return done, later

    def _attempt(self, step: Step) -> float | None:
        """Do one step; return None, or when to try it again."""
        if self._wakeup.stopping:
            raise programs.CancelledError  # whoever removed what is missing may have meant it
        now, history = self._clock(), self._histories.setdefault(step.path, _History())
        repeats = history.step == step  # whatever was there before
        not_before = earliest(history.writes.free_at(now), history.retry.at if repeats else None)
        if not_before is not None and now < not_before:
            return not_before
        missing_now, removed = not os.path.lexists(step.path), self._was_removed(step)
        try:
            attempted(step, Doing(self._ledger, self._cancelled))
        except StepError as error:
            history.step, history.failure, history.vital = step, str(error), step.vital
            return history.retry.failed(self._clock())
        except files.ReplacedError:
            return self._clock()  # look again: what is to be carried over is another now
        repaired = repeats and history.retry.at is None
        history.step, history.failure = step if step.did else history.step, None
        history.retry.succeeded()
        self._note_removal(step, removed=removed)
        if step.did:
            history.writes.took(now)
            self._say_done(step, history, repaired=repaired, was="missing" if missing_now else "changed")
        if step.path in self._settings.output_files and step.did and self._configured_by(step):
            self._errands.configuration_changed()
        return None

    def _configured_by(self, step: Step) -> bool:
        """Say whether the runtime has to read a changed configuration after this step."""
        return isinstance(step, Write) or self._ledger.says.configuration is not None

    def _say_done(self, step: Step, history: _History, *, repaired: bool, was: str) -> None:
        """Log a step; of a fight one warning a minute, and no lines for each of its repairs."""
        now = self._clock()
        if not repaired or not isinstance(step, Write | Copy):
            logger.info("%s", step.did)
            return
        if history.repairs.took(now) and history.warnings.free_at(now) is None:
            history.warnings.took(now)
            logger.warning(
                "%s was put right %d times within %g s: something else on this node, perhaps a second installer, "
                "keeps changing it",
                step.path,
                _REPAIRS,
                _REPAIRS_WINDOW,
            )
        elif history.warnings.free_at(now) is None:
            logger.info("%s: it was %s", step.did, was)

    def _save_ledger(self) -> list[float]:
        """Put the ledger on disk; return when to try again where that failed."""
        if not os.path.isdir(self._settings.cni_conf_dir):
            return []  # once it is back, that is an event
        now, history = self._clock(), self._histories.setdefault(self._ledger.path, _History())
        not_before = earliest(history.writes.free_at(now), history.retry.at)
        if not_before is not None and now < not_before:
            return [not_before]
        try:
            if self._ledger.save():
                history.writes.took(now)
        except OSError as error:
            history.failure = f"cannot write {self._ledger.path}: {error.strerror}{advice(error)}"
            return [history.retry.failed(now)]
        history.failure = None
        history.retry.succeeded()
        return []

    def _cancelled(self) -> bool:
        return self._wakeup.stopping or self._owner.overtaken()

    # ---- what others removed ----

    def _was_removed(self, step: Step) -> bool:
        """Say whether a step is about to put back what somebody has removed since the last pass.

        Only what nobody of ours took away counts: a mesh's list is the configuration too, under its other name.
        """
        if not isinstance(step, Write | Copy):
            return False
        paths = (step.path, *step.instead)
        return not self._stood.isdisjoint(paths) and not any(map(os.path.lexists, paths))

    def _note_removal(self, step: Step, *, removed: bool) -> None:
        if removed:
            self._put_back[step.path] = self._clock()
        elif step.did and not isinstance(step, Write | Copy):
            self._put_back.pop(step.path, None)
            self._stood -= {step.path}

    def _forget_lost(self) -> None:
        """Start anew for the files of directories that are others now: making them again is no fight and no repair."""
        mounted = {path: inode(path) for path in (self._settings.cni_conf_dir, self._settings.cni_bin_dir)}
        others = [path for path, identity in mounted.items() if self._mounted.get(path, identity) != identity]
        lost = {path for path in {*self._histories, *self._stood} if any(map(path.is_relative_to, others))}
        self._histories = {path: history for path, history in self._histories.items() if path not in lost}
        self._stood, self._mounted = self._stood - lost, mounted

    # ---- telling ----

    def _tell(self, decision: Decision, unwatched: Sequence[str]) -> float | None:
        """Let the ready file, the log and the errands follow the verdict; return when they want to go on."""
        now = self._clock()
        ready_file = self._ready_file.told(ready=self._ready, now=now)
        obstacles = [*self._ready_file.complaints, *unwatched]
        wanted = {step.path for wish in decision.wishes for step in (*wish.steps, *wish.afterwards)}
        failures = [
            each.failure
            for path, each in self._histories.items()
            if each.failure and (path in wanted or path == self._ledger.path)
        ]
        verdict = Verdict(
            ready=self._ready,
            errors=[*decision.messages, *failures, *obstacles],
            warnings=self._warnings(decision),
            waits=decision.waits,
        )
        return earliest(
            ready_file,
            self._reporter.told(verdict, now),
            self._errands.pass_done(configured=self._ready, now=now),
            now + _UNWATCHED if obstacles else None,
        )

    def _warnings(self, decision: Decision) -> list[str]:
        return [*decision.warnings, *([self._owner.complaint] if self._owner.complaint else [])]

    # ---- watching ----

    def _interests(self) -> list[Interest]:
        """Return what the next look reads."""
        interests: list[Interest] = [each for part in self._parts for each in part.follows()]
        interests += [self._ledger.path, (self._settings.kubeconfig_file.parent, SUFFIXES)]
        return [*interests, *([self._settings.ready_file] if self._settings.ready_file else [])]

    def _watch(self) -> list[str]:
        """Watch what the next look reads; return what to complain of when that is not possible."""
        instead = f"looking every {_UNWATCHED:g} s instead until that is possible"
        try:
            self._watcher.follow(self._interests())
        except OSError as error:
            advice = "Raise fs.inotify.max_user_instances and fs.inotify.max_user_watches on this node"
            return [f"cannot watch files: {error.strerror}; {instead}. {advice}"]
        except RuntimeError as error:
            return [f"cannot watch files: {error}; {instead}. Raise the limit on the processes of this pod"]
        return []

    # ---- whose turn it is ----

    def _stand_by(self, unwatched: Sequence[str]) -> float | None:
        """Leave the node to the newer instance and forget; the ready file follows what stands, whoever wrote it."""
        if not self._standing_by:
            self._standing_by = True
            self._errands.pass_done(configured=False, now=self._clock())  # whether it is, the newer one says
            logger.info("a newer instance on this node is at work: standing by, and writing nothing until it ends")
            self._histories, self._stood, self._put_back = {}, frozenset(), {}
        watched = self._interests()
        self._ledger.forget()
        decision = self._decide()
        self._ready = decision.ready
        ready_file = self._ready_file.told(ready=decision.ready, now=self._clock())
        retry = self._clock() + _UNWATCHED if unwatched else None
        again = self._clock() if self._interests() != watched else None
        until = [wish.until for wish in decision.wishes]  # the time that is given to others ends without an event
        return earliest(ready_file, retry, again, *until, self._retried(decision), self._owner.deadline)

    def _be_at_work(self) -> None:
        if self._standing_by:
            self._standing_by = False
            self._ledger.forget()
            self._parts = parts(self._settings, self._ledger, clock=self._clock)
            logger.info("the newer instance has ended: this one is at work again")

    # ---- leaving ----

    def _leave(self) -> None:
        """Take away what must not stay, unless another instance is there that needs it."""
        # What was removed before another instance ended was removed for that one's end.
        since = max(self._clock() - _REMOVAL_COUNTS, self._owner.bereaved)
        hooked = frozenset(path for path, when in self._put_back.items() if when >= since)
        if self._standing_by:
            self._ledger.forget()
        with self._owner.ending() as last:
            if not last:
                if self._settings.cleanup_on_exit:
                    logger.info("another instance on this node is at work: nothing is cleaned up")
                return
            for line, failed in undo(self._settings, self._parts, self._ledger, Leaving(hooked=hooked)):
                logger.log(logging.ERROR if failed else logging.INFO, "%s", line)


def undo(settings: Settings, each_part: Sequence[Part], ledger: Ledger, why: Leaving) -> Iterator[tuple[str, bool]]:
    """Take away what is ours, the configuration first; yield what was done, and whether that is a failure.

    As long as a configuration stands, what it refers to stays as well.
    """
    try:
        ledger.load()
    except OSError as error:
        yield f"cannot clean up: {error.filename} {error.strerror}", True
        return
    doing = Doing(ledger, lambda: False)
    for part in reversed(each_part):
        try:
            steps = list(part.leave(part.look(), Before(ledger.says), why))
        except LookFailedError as error:
            yield f"cannot clean up: {error}", True
            return
        for step in steps:
            try:
                step.do(doing)
            except OSError as error:
                yield f"cannot clean up: {failure(step, error)}", True
                if step.verb == "rename":
                    yield "the configuration stays: the master does not have its name back, and there is no other", True
                return
            if step.did:
                yield step.did, False
        if any(map(os.path.lexists, settings.output_files)):
            break
    ledger.strike_out_what_is_gone(settings.cni_conf_dir, settings.cni_bin_dir)
    if os.path.lexists(ledger.path):  # else somebody has removed it, as preStop hooks do
        with contextlib.suppress(OSError):
            ledger.save()
