"""The main process's watch over its workers: start, readiness, and a stop that always ends.

It replaces Sanic's ``WorkerManager`` because that one never ends when a signal arrives before all
workers have acknowledged their start (sanic-org/sanic#2997), kills its own process group at a
second signal, and waits for ever for a worker that hangs.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import Any

from sanic.worker.manager import WorkerManager
from sanic.worker.process import WorkerProcess

from edge.errors import EdgescribeError
from edge.logs import get_logger
from edge.server.board import WorkerBoard
from edge.server.process import STOP_SIGNALS, release_stop_signals, stop_signals_held

START_DEADLINE_S = 60.0
HELPER_DEADLINE_S = 3.0
REMIND_EVERY_S = 0.5
REVIVE_EVERY_S = 1.0
STABLE_AFTER_S = 30.0
"""A worker that lived this long is replaced at once when it ends."""
LONGEST_PAUSE_S = 10.0
"""Between the starts of a worker that keeps ending early."""

_log = get_logger("edge.server")


class WorkerFailed(EdgescribeError):
    """A worker did not start, or could not be stopped."""


class Watch(WorkerManager):
    """Runs the workers until a signal or a failure, then stops them within a deadline.

    ``plan`` must be set on the class before Sanic makes the one instance. Stop signals must be held
    back until ``run``.
    """

    plan: Plan

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        self._stop_requested = False
        self._revive_after_s = 0.0
        self._lives: dict[int, Life] = {}

    def run(self) -> None:
        """Start everything, watch it, stop it; failures are left in ``plan.failure``.

        Stop signals are held back until everything has started, and workers begin with them held.
        """
        if signal.sigpending() & set(STOP_SIGNALS):
            return
        self.start()  # type: ignore[no-untyped-call]
        release_stop_signals()
        try:
            self._watch()
        except WorkerFailed as failure:
            self.plan.failure = failure
        finally:
            self._shutting_down = True
            self._stop(self._servers(), self.plan.stop_deadline_s)
            self._stop(self.processes, HELPER_DEADLINE_S)
            self._forget_states()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop_requested = True

    def _watch(self) -> None:
        deadline_s = time.monotonic() + START_DEADLINE_S
        ready = False
        while not self._stop_requested:
            if self.monitor_subscriber.poll(0.05):
                self._handle(self.monitor_subscriber.recv())
            self._notice_deaths(ready)
            self._revive_helpers()
            if ready:
                continue
            if self.plan.board.all_alive:
                ready = True
                self.plan.on_ready()
                self.plan.board.start()
            elif time.monotonic() > deadline_s:
                raise WorkerFailed(f"not all workers started within {START_DEADLINE_S:g} s")

    def _handle(self, message: Any) -> None:
        """What a worker may say: that its start failed, or that everything should stop."""
        if message == "__TERMINATE_EARLY__" and not self._stop_requested:
            raise WorkerFailed("a worker could not start; its log says why")
        if message is None or message == "__TERMINATE__":
            self._stop_requested = True

    def _notice_deaths(self, ready: bool) -> None:
        """Replace workers that ended or hang, one at a time; before all are ready, give up."""
        now_s = time.monotonic()
        for index, process in enumerate(self._servers()):
            life = self._lives.setdefault(index, Life(now_s))
            if process.is_alive():
                if ready and self.plan.board.silence_s(index) > self.plan.hang_deadline_s:
                    _log.error("a worker hangs and is killed", worker=index)
                    _send(process, signal.SIGKILL)
            elif self._stop_requested:
                return  # whoever told this process to stop may have told that one, too
            elif not ready:
                raise WorkerFailed("a worker ended before it was ready; its log says why")
            elif life.replace_at_s is None:
                life.ended(now_s)
                self.plan.board.clear(index)
                self.plan.on_exit(process.pid)
                _log.error("a worker ended", worker=index, status=process.exitcode)
            elif now_s >= life.replace_at_s:
                life.began(now_s)
                self._replace(process)
                return

    def _replace(self, process: WorkerProcess) -> None:
        """Start a worker again under its old name."""
        if process.name not in self.worker_state:
            self.worker_state[process.name] = {"server": True, "starts": 1}
        with stop_signals_held():
            process.restart()

    def _revive_helpers(self) -> None:
        """Start again what serves all workers, at most once in a while."""
        for process in self.durable_processes:
            if process.is_alive() or time.monotonic() < self._revive_after_s:
                continue
            self._revive_after_s = time.monotonic() + REVIVE_EVERY_S
            _log.error("a process ended, another starts", process=process.name)
            with stop_signals_held():
                process.restart()

    def _stop(self, group: Iterable[WorkerProcess], deadline_s: float) -> None:
        """End the processes of ``group``; those that are not gone by the deadline are killed.

        The signal is repeated because a worker that is still starting may lose the first one.
        """
        processes = [process for process in group if process.is_alive()]
        until_s = time.monotonic() + deadline_s
        remind_s = 0.0
        while processes and time.monotonic() < until_s:
            if time.monotonic() >= remind_s:
                remind_s = time.monotonic() + REMIND_EVERY_S
                for process in processes:
                    _send(process, signal.SIGTERM)
            time.sleep(0.02)
            processes = [process for process in processes if process.is_alive()]
        for process in processes:
            _log.error("a process did not stop in time and was killed", process=process.name)
            self.plan.failure = WorkerFailed(f"{process.name} did not stop within {deadline_s:g} s")
            _send(process, signal.SIGKILL)
        for process in processes:
            process.join()

    def _forget_states(self) -> None:
        """Sanic waits for its shared table of states to empty; a dead table is empty enough."""
        with suppress(OSError, EOFError):
            self.worker_state.clear()

    def _servers(self) -> list[WorkerProcess]:
        return [
            process
            for worker in self.transient.values()
            for process in worker.processes
            if process.pid
        ]


class Life:
    """When a worker began, and when the next one may take its place. Times are monotonic."""

    def __init__(self, now_s: float) -> None:
        self._began_s = now_s
        self._pause_s = 0.0
        self.replace_at_s: float | None = None
        """Set while there is no worker."""

    def ended(self, now_s: float) -> None:
        """It is gone: replace it at once, or after a pause that doubles if it never lives long."""
        lived_long = now_s - self._began_s >= STABLE_AFTER_S
        self.replace_at_s = now_s + (0.0 if lived_long else self._pause_s)
        self._pause_s = 0.0 if lived_long else min(max(0.5, 2 * self._pause_s), LONGEST_PAUSE_S)

    def began(self, now_s: float) -> None:
        """Its successor starts."""
        self._began_s = now_s
        self.replace_at_s = None


class Plan:
    """What the watch needs to know, and where it leaves its verdict."""

    def __init__(
        self,
        board: WorkerBoard,
        stop_deadline_s: float,
        hang_deadline_s: float,
        on_ready: Callable[[], None],
        on_exit: Callable[[int], None],
    ) -> None:
        self.board = board
        self.stop_deadline_s = stop_deadline_s
        self.hang_deadline_s = hang_deadline_s
        self.on_ready = on_ready
        self.on_exit = on_exit
        self.failure: WorkerFailed | None = None


def _send(process: WorkerProcess, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)
