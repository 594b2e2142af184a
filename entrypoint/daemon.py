"""The resident process: look, decide, write, sleep until something happens; and leave in good order."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from typing import TYPE_CHECKING

from entrypoint import cniconf, files, logs
from entrypoint.host import Host, StepError, swept_directories
from entrypoint.logs import logger
from entrypoint.node import File, Memory, Remove, Rename, Write
from entrypoint.plan import decide, decide_removal
from entrypoint.report import done
from entrypoint.throttle import REPAIR_INTERVAL, Throttle
from entrypoint.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from types import FrameType

    from entrypoint.errands import Errands
    from entrypoint.node import Identity, Plan, Seen, Step
    from entrypoint.settings import Settings
    from entrypoint.watch import Watcher


_WAITING_LOG_INTERVAL = 30.0  # seconds
_OBSTACLE_INTERVAL = 2.0
"""Seconds between looks while the node has no inotify watch left, or no room for the ready file."""
_INSTEAD = f"looking every {_OBSTACLE_INTERVAL:g} s instead until that is possible"


class GaveUpError(Exception):
    """The node cannot be made as it must be; the messages, one a line, say why."""


def serve(settings: Settings) -> int:
    """Be the resident process: keep the node as the settings want it until a signal comes; return the exit code."""
    logs.configure(settings.log_format)
    wakeup = Wakeup()
    with logs.failures_reported(), _signals(wakeup):
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
        self._watcher: Watcher | None = None
        self._host = Host(settings, cancelled=lambda: wakeup.stopping, trusting=True)
        self._throttle = Throttle()
        self._errands = _errands(settings)
        self._memory = Memory(started=time.monotonic())
        self._ours: Identity | None = None
        """The configuration file that this run wrote, or found to be as it wanted it."""
        self._failing: dict[Path, str] = {}
        """Why the last step on a file failed, for as long as it has not been done."""
        self._said: frozenset[str] = frozenset()
        self._waiting_said = float("-inf")
        self._configured = False
        self._ready: bool | None = None
        self._ready_not_before = 0.0

    def run(self) -> None:
        """Loop until the wake-up is stopped. Raises `GaveUpError`.

        The first pass is made before anything is watched, because loading the watch takes a sixth of a start's CPU time
        and pods are waiting. What changes meanwhile is seen by the second pass, which follows at once.
        """
        self._set_ready(ready=False)  # an earlier run's
        for path in files.sweep(swept_directories(self._settings)):
            logger.info("removed the temporary file %s of an earlier run", path)
        try:
            self._pass()
            if not self._wakeup.stopping:
                self._start_watching()
            while not self._wakeup.stopping:
                self._wakeup.clear()  # clear, then watch, then look: nothing is missed between
                self._wakeup.wait(until=self._pass())
        except files.CancelledError:
            pass  # told to stop in the middle of a long copy
        if self._wakeup.stopped_by is not None:
            logger.info("stopping on %s", signal.Signals(self._wakeup.stopped_by).name)
        self._leave()

    def close(self) -> None:
        """Take the ready file away and break off errands.

        The watch ends with the process. To take it down before that keeps the kernel busy for 10 ms longer.
        """
        if self._errands is not None:
            self._errands.stop()
        self._set_ready(ready=False)

    # ---- one pass ----

    def _pass(self) -> float | None:
        """Look, decide and write once; return until when to sleep (monotonic seconds, None for no limit)."""
        first = self._memory.first
        unwatched = self._follow()
        seen = self._host.observe()
        plan = decide(self._settings, seen, self._memory)
        fatal = [problem.message for problem in plan.problems if problem.fatal]
        if fatal:
            raise GaveUpError("\n".join(fatal))
        self._memory = plan.memory
        self._adopt(seen, plan)
        if self._watcher is not None:
            self._throttle.forget(self._watcher.lost_directories())
        held = self._apply(plan)
        failures = [message for path, message in self._failing.items() if any(path == step.path for step in plan.steps)]
        if first and failures:
            raise GaveUpError("\n".join(failures))
        configured = plan.satisfied and not failures and not held
        obstacles = [*self._set_ready(ready=configured), *unwatched]
        self._report([*(problem.message for problem in plan.problems), *failures, *obstacles], plan.warnings)
        self._say_configured(configured=plan.satisfied and not failures)
        if self._errands is not None:
            self._errands.pass_done(configured=configured)
        deadlines = [plan.deadline, self._say_waiting(plan), self._ready_held(), *held]
        if obstacles:
            deadlines.append(seen.now + _OBSTACLE_INTERVAL)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _start_watching(self) -> None:
        from entrypoint.watch import Watcher

        self._watcher = Watcher(self._wakeup)

    def _follow(self) -> list[str]:
        """Watch what the next look reads; return what to complain of when that is not possible."""
        if self._watcher is None:
            return []
        try:
            self._watcher.follow(_followed_files(self._settings), self._followed_listings())
        except OSError as error:
            advice = "Raise fs.inotify.max_user_instances and fs.inotify.max_user_watches on this node"
            return [f"cannot watch files: {error.strerror}; {_INSTEAD}. {advice}"]
        except RuntimeError as error:
            return [f"cannot watch files: {error}; {_INSTEAD}. Raise the limit on the processes of this pod"]
        return []

    def _followed_listings(self) -> list[tuple[Path, tuple[str, ...]]]:
        settings = self._settings
        frozen = settings.skip_config_watch and self._memory.output is not None
        if settings.static_conf_file is not None or settings.master_name is not None or frozen:
            return []
        old = tuple(suffix + cniconf.RETIRED_SUFFIX for suffix in cniconf.SUFFIXES) if settings.rename_master else ()
        return [(settings.autoconfig_dir, (*cniconf.SUFFIXES, *old))]

    def _adopt(self, seen: Seen, plan: Plan) -> None:
        """Take a configuration that is found as it is wanted for ours, unless it has replaced one that was."""
        output = plan.memory.output
        if output is None:
            self._ours = None
        elif self._ours is None and plan.configuration is None:
            standing = seen.outputs[output.file_name]
            self._ours = standing.identity if isinstance(standing, File) else None

    def _apply(self, plan: Plan) -> list[float]:
        """Do what the plan says, as far as it may be done now; return when to go on with the rest.

        As long as the node is not configured, the configuration waits for all that it refers to.
        """
        held: list[float] = []
        unwritten = False
        for step in plan.steps:
            if unwritten and isinstance(step, Remove | Rename):
                continue  # never take a configuration away before its successor is there
            not_before = self._throttle.held_until(step, time.monotonic())
            if not_before is None:
                not_before = self._do(step)
            if not_before is None:
                continue
            held.append(not_before)
            if step is plan.configuration:
                unwritten = True
            elif (step is plan.kubeconfig or step is plan.binary) and self._ours is None:
                break
        return held

    def _do(self, step: Step) -> float | None:
        """Do one step; return None, or when to try again after it failed."""
        try:
            written = self._host.apply(step)
        except StepError as error:
            self._failing[step.path] = str(error)
            return self._throttle.failed(step, time.monotonic())
        self._failing.pop(step.path, None)
        if isinstance(step, Write) and step.path in self._settings.output_files:
            self._ours = written
        if self._errands is not None and step.path in self._settings.output_files and self._memory.output is not None:
            self._errands.configuration_changed()
        now = time.monotonic()
        warning = self._throttle.done(step, now)
        if warning:
            logger.warning("%s", warning)
        elif not self._throttle.known_fight(step, now):
            logger.info("%s", done(step))
        return None

    # ---- what others hear of it ----

    def _report(self, errors: Sequence[str], warnings: Sequence[str]) -> None:
        """Log what is new: each message once for as long as its cause lasts."""
        for level, messages in ((logging.ERROR, errors), (logging.WARNING, warnings)):
            for message in messages:
                if message not in self._said:
                    logger.log(level, "%s", message)
        self._said = frozenset([*errors, *warnings])

    def _say_waiting(self, plan: Plan) -> float | None:
        """Log what is waited for, at once and then every 30 s; return when to say it again."""
        if plan.waiting is None or plan.memory.output is not None:
            self._waiting_said = float("-inf")
            return None
        now = time.monotonic()
        if now >= self._waiting_said + _WAITING_LOG_INTERVAL:
            logger.info("%s", plan.waiting)
            self._waiting_said = now
        return self._waiting_said + _WAITING_LOG_INTERVAL

    def _set_ready(self, *, ready: bool) -> list[str]:
        """Write or remove the ready file; return what to complain of when that is not possible.

        What somebody else does to it is undone once a second at most, as with every other file.
        """
        path = self._settings.ready_file
        if path is None or os.path.lexists(path) == ready:
            self._ready = ready
            return [f"--ready-file={path} is a directory"] if path is not None and os.path.isdir(path) else []
        now = time.monotonic()
        if ready is self._ready and now < self._ready_not_before:
            return []
        self._ready, self._ready_not_before = ready, now + REPAIR_INTERVAL
        try:
            if ready:
                files.mark(path)
            else:
                files.unmark(path)
        except OSError as error:
            return [f"cannot {'write' if ready else 'remove'} --ready-file={path}: {error.strerror}"]
        return []

    def _ready_held(self) -> float | None:
        """Return when to look at the ready file again; None when it is as it must be."""
        path = self._settings.ready_file
        if path is None or self._ready is None or os.path.lexists(path) is self._ready:
            return None
        return self._ready_not_before

    def _say_configured(self, *, configured: bool) -> None:
        """Log when that changes; a repair that has to wait a moment is no such change."""
        if configured != self._configured:
            logger.info("the node is configured" if configured else "the node is not configured any more")
        self._configured = configured

    # ---- leaving ----

    def _leave(self) -> None:
        """Undo what `--cleanup-config-on-exit` asks for; try everything, then say what failed."""
        if not self._settings.cleanup_on_exit:
            return
        seen = self._host.observe(binary=False)  # a comparison of binaries would take too long here
        renames, removal = decide_removal(self._settings, seen, self._memory, self._ours)
        restored = 0
        for rename in renames:
            with _failure_logged():
                if files.rename_unless_taken(rename.path, rename.to):
                    logger.info("%s", done(rename))
                restored += 1
        if restored < len(renames):
            # On a disk without a free inode, or where there are no hard links.
            logger.error("the configuration stays: the master does not have its name back, and there is no other")
            return
        with _failure_logged():
            if removal is not None:
                files.remove(removal.path)
                logger.info("%s", done(removal))


def _errands(settings: Settings) -> Errands | None:
    """Return what is to be done beside the node's files; None for nothing, so that nothing is loaded for it."""
    if not settings.restart_crio and settings.startup_taint is None:
        return None

    from entrypoint.errands import Errands

    return Errands(settings)


def _followed_files(settings: Settings) -> Iterable[Path]:
    """Return the files whose change is a reason to look again."""
    yield from (settings.token_file, settings.ca_file, settings.kubeconfig_file, *settings.output_files)
    if not settings.skip_binary_copy:
        yield from (settings.multus_bin_file, settings.binary_file)
    if settings.static_conf_file is not None:
        yield settings.static_conf_file
    elif settings.master_name is not None:
        yield settings.autoconfig_dir / settings.master_name
        yield settings.autoconfig_dir / (settings.master_name + cniconf.RETIRED_SUFFIX)
    if settings.ready_file is not None:
        yield settings.ready_file


@contextlib.contextmanager
def _failure_logged() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        logger.error("cannot clean up %s: %s", error.filename, error.strerror)


@contextlib.contextmanager
def _signals(wakeup: Wakeup) -> Iterator[None]:
    """Let SIGTERM and SIGINT stop the wake-up."""

    def stop(number: int, _frame: FrameType | None) -> None:
        wakeup.stop(number)  # and no more: a log record could be half written at this moment

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    # A signal that comes just before the sleep, or in another thread, does not interrupt it, and Python would run the
    # handler only after it: the byte that Python writes at once ends the sleep.
    signal.set_wakeup_fd(wakeup.writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
