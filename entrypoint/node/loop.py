"""The loop: watch, look, wish, do, tell, sleep. It knows no part by name."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from entrypoint.disk import files, programs
from entrypoint.disk.looks import Inode, inode
from entrypoint.disk.wakeup import Wakeup, end_in_good_order
from entrypoint.disk.watch import Watcher
from entrypoint.errands import child
from entrypoint.errands.errands import Errands
from entrypoint.node.decision import Decision, decide, parts
from entrypoint.node.ledger import Ledger
from entrypoint.node.part import Before, Interest, Leaving, LookFailedError, Wish, missing
from entrypoint.node.steps import Copy, Doing, Save, Step, StepError, Write, attempted
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


class _History:
    """What has been done to one file, and when the next may be done."""

    def __init__(self) -> None:
        self.step: Step | None = None
        """The last one, done or failed."""
        self.failure: str | None = None
        self._writes = Pace(_WRITES, _WRITES_WINDOW)
        self._repairs = Pace(_REPAIRS, _REPAIRS_WINDOW)
        self._warnings = Pace(1, _REPAIRS_WINDOW)
        self._retry = Backoff(_FIRST_RETRY, _LAST_RETRY)

    def not_before(self, step: Step, now: float) -> float | None:
        """Return when this step may be done; None for at once."""
        at = earliest(self._writes.free_at(now), self._retry.at if self.step == step else None)
        return at if at is not None and now < at else None

    def failed(self, step: Step, why: str, now: float) -> float:
        """Take note that a step failed; return when to try it again."""
        self.step, self.failure = step, why
        return self._retry.failed(now)

    def succeeded(self, step: Step, was: str, now: float) -> None:
        """Take note of a step that was done, and log it; of a fight one warning a minute, no line for each repair."""
        repaired = self.step == step and self._retry.at is None  # whatever was there before
        self.failure = None
        self._retry.succeeded()
        if step.writes:
            self._writes.took(now)
        if not step.did:
            return
        self.step = step
        if not repaired or not isinstance(step, Write | Copy):
            logger.info("%s", step.did)
            return
        often = self._repairs.took(now)
        if self._warnings.free_at(now) is not None:
            return
        if not often:
            logger.info("%s: it was %s", step.did, was)
            return
        self._warnings.took(now)
        logger.warning(
            "%s was put right %d times within %g s: something else on this node, perhaps a second installer, "
            "keeps changing it",
            step.path,
            _REPAIRS,
            _REPAIRS_WINDOW,
        )


class _Removals:
    """What somebody else has taken away, as preStop hooks do just before the end, and this run has put back."""

    def __init__(self) -> None:
        self._stood: frozenset[Path] = frozenset()
        """What this instance wanted on the node and found there after its last pass."""
        self._put_back: dict[Path, float] = {}
        """And when each was put back that was gone then."""

    def forget(self, directories: Sequence[Path]) -> None:
        """Forget what stood in directories that are others now: nobody has removed it."""
        self._stood = frozenset(path for path in self._stood if not any(map(path.is_relative_to, directories)))

    def found(self, stands: Iterable[Path]) -> None:
        """Take note of what is on the node after a pass."""
        self._stood = frozenset([*stands, *(path for path in self._stood if not os.path.lexists(path))])

    def is_one(self, step: Step) -> bool:
        """Say whether a step is about to put back what somebody has removed since the last pass.

        Only what nobody of ours took away counts: a mesh's list is the configuration too, under its other name.
        """
        if not isinstance(step, Write | Copy):
            return False
        paths = (step.path, *step.instead)
        return not self._stood.isdisjoint(paths) and not any(map(os.path.lexists, paths))

    def done(self, step: Step, now: float, *, removed: bool) -> None:
        """Take note of a step that was done; it is `removed` what it has put back."""
        if removed:
            self._put_back[step.path] = now
        elif step.did and not isinstance(step, Write | Copy):
            self._put_back.pop(step.path, None)
            self._stood -= {step.path}

    def since(self, when: float) -> frozenset[Path]:
        """Return what was put back since then."""
        return frozenset(path for path, at in self._put_back.items() if at >= when)


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
        """The last verdict; nothing was in this run's way once."""
        self._retry = Backoff(_FIRST_RETRY, _LAST_RETRY)
        self._standing_by = False
        self._histories: dict[Path, _History] = {}
        self._removals = _Removals()
        self._mounted: dict[Path, Inode | None] = {}
        """Which directory each of the host's was in the last pass."""

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
        self._take_sides()
        watched, later = self._interests(), list[float]()
        decision = self._decide()
        if self._standing_by:
            self._ready = decision.ready
        else:
            self._give_up_if_fatal(decision)
            self._reporter.warnings(self._warnings(decision), self._clock())  # before anything is written
            done, later = self._do_in_turn(decision)
            if self._owner.superseded:
                return self.one_pass(unwatched)
            if done:
                decision = self._decide()
            self._first = False
            self._removals.found(path for wish in decision.wishes for path in wish.stands)
            self._able = self._able or decision.able
            # What stands may be the work of another, as in a bad rollout: not ready until this run has written.
            first = not any(isinstance(step, Write) for step in decision.steps) and self._able
            self._ready = decision.ready and (self._configured or first)
            self._configured = self._configured or self._ready
            if done and not later and decision.steps:
                later.append(self._clock())  # what is left to do after that is done at once
            if self._waits(decision):
                later.append(self._started + self._settings.wait_timeout)
        if self._interests() != watched:
            later.append(self._clock())  # and so is the look at what is watched only now
        return earliest(
            *later,
            *(wish.until for wish in decision.wishes),
            self._tell(decision, unwatched),
            self._retried(decision),
            self._owner.deadline,
        )

    # ---- deciding ----

    def _decide(self) -> Decision:
        settings = self._settings
        before = Before(
            configured=self._configured,
            in_use=self._ready,
            standing_by=self._standing_by,
            give_up_at=float("inf") if self._configured else self._started + settings.wait_timeout,
        )
        decision = decide(self._parts, self._ledger, before)
        if settings.ready_file and not os.path.isdir(settings.ready_file.parent):
            decision.wishes.append(Wish(faults=(missing("--ready-file", settings.ready_file.parent),), in_use=False))
        return decision

    def _give_up_if_fatal(self, decision: Decision) -> None:
        """End the program over what cannot get better: here and nowhere else. Raises `GaveUpError`."""
        fatal = [str(fault) for fault in decision.faults if fault.fatal or (fault.at_start and self._first)]
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

    def _do_in_turn(self, decision: Decision) -> tuple[bool, list[float]]:
        """Do the steps if this instance owns the node; return whether any was done, and when to go on with others.

        It takes the node once it can configure it. Before, it writes what it can where nobody else can.
        """
        if decision.able:
            self._owner.join(able=True)
        elif decision.steps and not self._owner.accompanied:
            self._owner.join(able=False)
        self._forget_lost()
        if not decision.steps and self._ledger.stands():
            return False, []
        with self._owner.turn(cancelled=lambda: self._wakeup.stopping) as mine:
            if not mine:
                return False, []
            if self._ledger.overwritten():  # by one that has ended since: what was decided is of no use
                return False, [self._clock()]
            done, later = self._do(decision)
            if os.path.isdir(self._settings.cni_conf_dir) and not self._ledger.stands():
                later.append(self._attempt(Save(self._ledger.path)))
            return done, [at for at in later if at is not None]

    def _forget_lost(self) -> None:
        """Start anew for the files of directories that are others now: making them again is no fight and no repair."""
        mounted = {path: inode(path) for path in (self._settings.cni_conf_dir, self._settings.cni_bin_dir)}
        others = [path for path, identity in mounted.items() if self._mounted.get(path, identity) != identity]
        kept = {path: each for path, each in self._histories.items() if not any(map(path.is_relative_to, others))}
        self._histories, self._mounted = kept, mounted
        self._removals.forget(others)

    def _do(self, decision: Decision) -> tuple[bool, list[float | None]]:
        """Do each part's steps in their order; when one has to wait, so do those behind it."""
        done, later = False, list[float | None]()
        for wish in decision.wishes:
            for step in wish.steps:
                again = self._attempt(step)
                if again is not None:
                    later.append(again)
                    break
                done = True
            if later and not self._configured:
                break  # the first configuration waits for all that it refers to
        failed = [each for each in self._histories.values() if each.failure and each.step and each.step.vital]
        if self._first and failed:
            raise GaveUpError("\n".join(each.failure or "" for each in failed))
        if not done and not later:
            later = [self._attempt(step) for step in decision.afterwards]
            done = None in later
        return done, later

    def _attempt(self, step: Step) -> float | None:
        """Do one step; return None, or when to try it again."""
        if self._wakeup.stopping and not isinstance(step, Save):
            raise programs.CancelledError  # whoever removed what is missing may have meant it
        history = self._histories.setdefault(step.path, _History())
        not_before = history.not_before(step, self._clock())
        if not_before is not None:
            return not_before
        was, removed = "changed" if os.path.lexists(step.path) else "missing", self._removals.is_one(step)
        now = self._clock()
        try:
            attempted(step, Doing(self._ledger, self._cancelled))
        except StepError as error:
            return history.failed(step, str(error), self._clock())
        except files.ReplacedError:
            return self._clock()  # look again: what is to be carried over is another now
        history.succeeded(step, was, now)
        self._removals.done(step, self._clock(), removed=removed)
        if step.path in self._settings.output_files and step.did and self._ledger.says.configuration:
            self._errands.configuration_changed()
        return None

    def _cancelled(self) -> bool:
        return self._wakeup.stopping or self._owner.overtaken()

    # ---- telling ----

    def _tell(self, decision: Decision, unwatched: Sequence[str]) -> float | None:
        """Let the ready file, the log and the errands follow the verdict; return when they want to go on."""
        now = self._clock()
        ready_file = self._ready_file.told(ready=self._ready, now=now)
        obstacles = [*self._ready_file.complaints, *unwatched]
        until = earliest(ready_file, now + _UNWATCHED if obstacles else None)
        if self._standing_by:
            return until  # all else the newer one says
        wanted = {step.path for step in decision.steps} | {self._ledger.path}
        failures = [each.failure for path, each in self._histories.items() if each.failure and path in wanted]
        verdict = Verdict(
            ready=self._ready,
            errors=[*decision.messages, *failures, *obstacles],
            warnings=self._warnings(decision),
            waits=decision.waits,
        )
        errands = self._errands.pass_done(configured=self._ready, now=now)
        return earliest(until, self._reporter.told(verdict, now), errands)

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
        try:
            self._watcher.follow(self._interests())
        except OSError as error:
            why, limit = error.strerror, "fs.inotify.max_user_instances and fs.inotify.max_user_watches on this node"
        except RuntimeError as error:
            why, limit = str(error), "the limit on the processes of this pod"
        else:
            return []
        instead = f"looking every {_UNWATCHED:g} s instead until that is possible"
        return [f"cannot watch files: {why}; {instead}. Raise {limit}"]

    # ---- whose turn it is ----

    def _take_sides(self) -> None:
        """Leave the node to a newer instance and forget, or begin afresh when that has ended."""
        before, self._standing_by = self._standing_by, self._owner.superseded
        if self._standing_by or before:
            self._ledger.forget()
        if self._standing_by and not before:
            self._errands.pass_done(configured=False, now=self._clock())  # whether it is, the newer one says
            logger.info("a newer instance on this node is at work: standing by, and writing nothing until it ends")
            self._histories = {}
            self._removals = _Removals()
        if before and not self._standing_by:
            self._parts = parts(self._settings, self._ledger, clock=self._clock)
            logger.info("the newer instance has ended: this one is at work again")

    # ---- leaving ----

    def _leave(self) -> None:
        """Take away what must not stay, unless another instance is there that needs it."""
        # What was removed before another instance ended was removed for that one's end.
        since = max(self._clock() - _REMOVAL_COUNTS, self._owner.bereaved)
        hooked = self._removals.since(since)
        if self._standing_by:
            self._ledger.forget()
        with self._owner.ending() as last:
            if not last:
                if self._settings.cleanup_on_exit:
                    logger.info("another instance on this node is at work: nothing is cleaned up")
                return
            self._undo(Leaving(hooked=hooked))

    def _undo(self, why: Leaving) -> None:
        """Take away what is ours, the configuration first; as long as one stands, what it refers to stays as well."""
        ledger, settings = self._ledger, self._settings
        try:
            ledger.load()
            for part in reversed(self._parts):
                for step in list(part.leave(part.look(), Before(ledger.says), why)):
                    attempted(step, Doing(ledger, lambda: False))
                    if step.did:
                        logger.info("%s", step.did)
                if any(map(os.path.lexists, settings.output_files)):
                    break
        except (LookFailedError, StepError, OSError) as error:
            reason = f"{error.filename} {error.strerror}" if isinstance(error, OSError) else error
            logger.error("cannot clean up: %s", reason)
            if isinstance(error, StepError) and any(map(os.path.lexists, settings.output_files)):
                logger.error("the configuration stays, and so does what it refers to")
            return
        ledger.strike_out_what_is_gone(settings.cni_conf_dir, settings.cni_bin_dir)
        if os.path.lexists(ledger.path):  # else somebody has removed it, as preStop hooks do
            with contextlib.suppress(OSError):
                ledger.save()
