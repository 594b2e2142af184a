"""The resident process: look, decide, write, sleep until something happens; and leave in good order."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path

from entrypoint.disk import files, programs, signals
from entrypoint.disk.wakeup import Wakeup
from entrypoint.disk.watch import Watcher
from entrypoint.errands import child
from entrypoint.errands.errands import Errands
from entrypoint.node import leaving, places
from entrypoint.node.host import Host, StepError
from entrypoint.node.plan import decide
from entrypoint.node.values import Memory, Plan, Remove, Rename, Step, Write
from entrypoint.owner import Presence
from entrypoint.settings import Settings
from entrypoint.telling import logs
from entrypoint.telling.logs import logger
from entrypoint.telling.readiness import ReadyFile
from entrypoint.telling.report import Reporter, done
from entrypoint.telling.throttle import Throttle

_OBSTACLE_INTERVAL = 2.0
"""Seconds between looks while the node has no inotify watch left, or no room for the ready file."""
_INSTEAD = f"looking every {_OBSTACLE_INTERVAL:g} s instead until that is possible"


class GaveUpError(Exception):
    """The node cannot be made as it must be; the messages, one a line, say why."""


def serve(settings: Settings) -> int:
    """Be the resident process: keep the node as the settings want it until a signal comes; return the exit code."""
    logs.configure(settings.log_format)
    wakeup = Wakeup()
    with logs.failures_reported(), signals.handled(wakeup):
        daemon = Daemon(settings, wakeup)
        try:
            daemon.run()
        except GaveUpError as error:
            for line in str(error).splitlines():
                logger.error("%s", line)
            return 1
        finally:
            daemon.close()
    return 0


class Daemon:
    """The loop and what it remembers from one pass to the next."""

    def __init__(self, settings: Settings, wakeup: Wakeup) -> None:
        self._settings = settings
        self._wakeup = wakeup
        self._watcher = Watcher(wakeup)
        self._presence = Presence(settings.kubeconfig_file.parent)
        self._standing_by = False
        """A newer instance owns the node."""
        self._host = Host(settings, cancelled=lambda: wakeup.stopping or self._presence.overtaken())
        self._throttle = Throttle()
        self._errands = Errands(settings)
        self._reporter = Reporter()
        self._ready_file = ReadyFile(settings.ready_file)
        self._memory = Memory(started=time.monotonic())
        self._ours: bytes | None = None
        """The configuration that this run wrote, or found to be as it wanted it."""
        self._put_back = leaving.PutBack(settings)
        self._kubeconfig: Path | None = None
        """The kubeconfig that Multus is told to read, if it can be seen: perhaps somebody else's."""
        self._failing: dict[Path, str] = {}
        """Why the last step on a file failed, for as long as it has not been done."""

    def run(self) -> None:
        """Loop until the wake-up is stopped. Raises `GaveUpError`."""
        self._ready_file.set(ready=False)  # an earlier run's
        for path in files.sweep(places.swept(self._settings)):
            logger.info("removed the temporary file %s of an earlier run", path)
        while not self._wakeup.stopping:
            self._wakeup.clear()  # clear, then watch, then look: nothing is missed between
            child.reap_orphans()
            # Told to stop, or overtaken by a newer instance, in the middle of a long copy: look again.
            with contextlib.suppress(programs.CancelledError):
                self._wakeup.wait(until=self._pass())
        if self._wakeup.stopped_by is not None:
            logger.info("stopping on %s", signal.Signals(self._wakeup.stopped_by).name)
        self._leave()

    def close(self) -> None:
        """Take the ready file away, break off errands, make room for others. The watch ends with the process."""
        self._errands.stop()
        self._ready_file.set(ready=False)
        self._presence.leave()

    # ---- one pass ----

    def _pass(self) -> float | None:
        """Look, decide and write once; return until when to sleep (monotonic seconds, None for no limit)."""
        first = self._memory.first
        unwatched = self._follow()
        self._presence.look()
        if self._presence.superseded:
            return self._stand_by(unwatched)
        self._take_over()
        seen = self._host.observe()
        plan = decide(self._settings, seen, self._memory)
        fatal = [problem.message for problem in plan.problems if problem.fatal]
        if fatal:
            raise GaveUpError("\n".join(fatal))
        self._memory = plan.memory
        self._adopt(plan)
        self._throttle.forget(self._watcher.lost_directories())
        complaint = [self._presence.complaint] if self._presence.complaint else []
        self._reporter.warnings([*plan.warnings, *complaint], seen.now)  # before anything is written
        held = self._apply_in_turn(plan)
        if self._presence.superseded:
            return self._stand_by(unwatched)
        self._put_back.passed()
        failures = [message for path, message in self._failing.items() if any(path == step.path for step in plan.steps)]
        if first and failures:
            raise GaveUpError("\n".join(failures))
        configured = plan.satisfied and not failures
        ready = configured and not held
        obstacles = [*self._ready_file.set(ready=ready), *unwatched]
        now = time.monotonic()
        self._reporter.errors([*(each.message for each in plan.problems), *failures, *obstacles], now)
        if ready or not configured:  # what still has to be written decides; a repair that has to wait is no change
            self._reporter.configured(configured=ready, now=now)
        waiting = self._reporter.waiting(plan.waiting if plan.memory.output is None else None, now)
        errands = self._errands.pass_done(configured=ready, now=now)
        deadlines = [plan.deadline, waiting, errands, self._ready_file.held_until(), self._presence.deadline, *held]
        deadlines.append(self._reporter.held_until)
        if obstacles:
            deadlines.append(seen.now + _OBSTACLE_INTERVAL)
        if plan.reads not in {self._kubeconfig, self._settings.kubeconfig_file}:
            deadlines.append(seen.now)  # it is not watched yet
        self._kubeconfig = plan.reads
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _stand_by(self, unwatched: list[str]) -> float | None:
        """Leave the node, and the ready file, to the newer instance; return until when to sleep."""
        if not self._standing_by:
            self._standing_by = True
            self._errands.pass_done(configured=False, now=time.monotonic())  # whether it is, the newer one says
            logger.info("a newer instance on this node is at work: standing by, and writing nothing until it ends")
        deadlines = [self._presence.deadline, time.monotonic() + _OBSTACLE_INTERVAL if unwatched else None]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _take_over(self) -> None:
        """Be the one that writes again, if this instance stood by."""
        if self._standing_by:
            self._standing_by = False
            self._throttle = Throttle()  # what the newer one wrote was no fight
            logger.info("the newer instance has ended: this one is at work again")

    def _follow(self) -> list[str]:
        """Watch what the next look reads; return what to complain of when that is not possible."""
        frozen = self._settings.skip_config_watch and self._memory.output is not None
        try:
            read = [self._kubeconfig] if self._kubeconfig else []
            self._watcher.follow(
                [*places.followed_files(self._settings), *read],
                places.followed_listings(self._settings, frozen=frozen),
            )
        except OSError as error:
            advice = "Raise fs.inotify.max_user_instances and fs.inotify.max_user_watches on this node"
            return [f"cannot watch files: {error.strerror}; {_INSTEAD}. {advice}"]
        except RuntimeError as error:
            return [f"cannot watch files: {error}; {_INSTEAD}. Raise the limit on the processes of this pod"]
        return []

    def _adopt(self, plan: Plan) -> None:
        """Take a configuration that is found as it is wanted for ours, unless it has replaced one that was."""
        if plan.memory.output is None:
            self._ours = None
        elif self._ours is None:
            self._ours = plan.accepted

    def _apply_in_turn(self, plan: Plan) -> list[float]:
        """Do what the plan says if this instance owns the node; return when to go on with the rest.

        It takes the node once it can make it as it must be, or when nobody else is there.
        """
        if plan.satisfied or (plan.steps and not self._presence.accompanied):
            self._presence.join()
        if not plan.steps:
            return []
        with self._presence.turn(cancelled=lambda: self._wakeup.stopping) as mine:
            return self._apply(plan) if mine else []

    def _apply(self, plan: Plan) -> list[float]:
        """Do what the plan says, as far as it may be done now; return when to go on with the rest.

        As long as the node is not configured, the configuration waits for all that it refers to.
        """
        held: list[float] = []
        unwritten = False
        for step in plan.steps:
            if self._wakeup.stopping:
                raise programs.CancelledError  # whoever removed what is missing may have meant it
            if unwritten and (isinstance(step, Remove | Rename) or step is plan.record):
                continue  # never take a name away before its successor is there, or before that is remembered
            not_before = self._throttle.held_until(step, time.monotonic())
            if not_before is None:
                not_before = self._do(step)
            if not_before is None:
                continue
            held.append(not_before)
            if step is plan.configuration or step is plan.record:
                unwritten = True
            elif (step is plan.kubeconfig or step is plan.binary) and self._ours is None:
                break
        return held

    def _do(self, step: Step) -> float | None:
        """Do one step; return None, or when to try again after it failed."""
        removed = self._put_back.removed(step)
        try:
            self._host.apply(step)
        except StepError as error:
            self._failing[step.path] = str(error)
            return self._throttle.failed(step, time.monotonic())
        except files.ReplacedError:
            return time.monotonic()  # look again: what is to be carried over is another now
        self._failing.pop(step.path, None)
        self._put_back.done(step, removed=removed)
        if isinstance(step, Write) and step.path in self._settings.output_files:
            self._ours = step.content
        if step.path in self._settings.output_files and self._memory.output is not None:
            self._errands.configuration_changed()
        now = time.monotonic()
        warning = self._throttle.done(step, now)
        if warning:
            logger.warning("%s", warning)
        elif not self._throttle.known_fight(step, now):
            logger.info("%s", done(step))
        return None

    # ---- leaving ----

    def _leave(self) -> None:
        """Take away what must not stay, unless another instance is there that needs it."""
        self._presence.look()
        if not self._presence.accompanied:
            leaving.clean_up(self._settings, self._host, self._memory, self._ours, self._put_back)
        elif self._settings.cleanup_on_exit:
            logger.info("another instance on this node is at work: nothing is cleaned up")
