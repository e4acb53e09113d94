"""The inference threads and the order in which they take requests.

Comes in: requests of all workers' streams. Goes out: exactly one answer for each, from any thread.
Finals go first, in the order they came. One thread is kept free of interims when there are several,
so that a final never waits for more than what is running. Newest wins: a request that waits and is
not final is skipped when a newer one of its segment comes.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

from edge.asr.embedded.messages import Answer, Decode, Kind, Outcome
from edge.asr.embedded.moonshine import Moonshine
from edge.asr.embedded.runtime import to_floats
from edge.logs import get_logger

MOST_WAITING_FINALS: Final = 256
LONGEST_INTERIM_WAIT_S: Final = 1.0
"""An interim older than this is skipped: its stream has newer audio by then."""
LOAD_MEMORY_S: Final = 3.0
"""Time constant of the reported load."""

_log: Final = get_logger("edge.asr.embedded")


class Job:
    """One request while it waits or runs."""

    def __init__(self, owner: object, request: Decode, answer: Callable[[Answer], None]) -> None:
        self.owner = owner
        self.request = request
        self.answer = answer
        self.since_s = time.monotonic()
        self.began_s = math.inf
        self.unwanted = False

    @property
    def key(self) -> tuple[object, int, int]:
        """What it is about: connection, stream and segment."""
        return self.owner, self.request.stream, self.request.segment

    def skip(self) -> None:
        """Answer that it was not decoded."""
        self.answer(Answer(self.request.id, Outcome.SKIPPED))


class DecodePool:
    """A bounded priority queue and the threads that empty it. Safe to use from any thread."""

    def __init__(self, engine: Moonshine, threads: int) -> None:
        self._engine = engine
        self._wake = threading.Condition()
        self._finals: list[Job] = []
        self._interims: list[Job] = []
        self._running: list[Job] = []
        self._most_interims = max(1, threads - 1)
        self._stopping = False
        self._load = 0.0
        self._load_at_s = time.monotonic()
        self._threads = [
            threading.Thread(target=self._work, name=f"inference-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Queue ``job``; it is answered sooner or later, at once when it is refused."""
        refused = False
        with self._wake:
            skipped = self._withdraw(job)
            if job.request.kind is Kind.INTERIM:
                self._interims.append(job)
            else:
                for running in self._running:
                    if running.key == job.key and running.request.kind is Kind.INTERIM:
                        running.unwanted = True
                refused = len(self._finals) >= MOST_WAITING_FINALS
                if not refused:
                    self._finals.append(job)
            self._wake.notify()
        for old in skipped:
            old.skip()
        if refused:
            job.answer(Answer(job.request.id, Outcome.REFUSED))

    def forget(self, owner: object) -> None:
        """Drop every request of ``owner``, unanswered."""
        with self._wake:
            self._finals = [job for job in self._finals if job.owner is not owner]
            self._interims = [job for job in self._interims if job.owner is not owner]
            for job in self._running:
                job.unwanted = job.unwanted or job.owner is owner

    def longest_s(self) -> float:
        """For how long the oldest running decode has been running; 0 when none is."""
        with self._wake:
            return max((time.monotonic() - job.began_s for job in self._running), default=0.0)

    def stop(self) -> None:
        """End the threads; what runs is given up between two tokens, what waits is dropped."""
        with self._wake:
            self._stopping = True
            for job in self._running:
                job.unwanted = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    def _withdraw(self, newer: Job) -> list[Job]:
        """Take out what waits for the same segment as ``newer`` and is not final."""
        old = [
            job
            for job in (*self._finals, *self._interims)
            if job.key == newer.key and job.request.kind is not Kind.FINAL
        ]
        for job in old:
            (self._interims if job.request.kind is Kind.INTERIM else self._finals).remove(job)
        return old

    def _take(self) -> Job | None:
        """The next job, under the lock; None when there is none that may run now."""
        if self._finals:
            return self._finals.pop(0)
        interims = sum(job.request.kind is Kind.INTERIM for job in self._running)
        if self._interims and interims < self._most_interims:
            return self._interims.pop(0)
        return None

    def _work(self) -> None:
        while True:
            with self._wake:
                job = self._take()
                while job is None and not self._stopping:
                    self._wake.wait()
                    job = self._take()
                if job is None or self._stopping:
                    return
                job.began_s = time.monotonic()
                self._running.append(job)
            answer = self._decode(job)
            with self._wake:
                self._running.remove(job)
                self._wake.notify()
            job.answer(answer)

    def _decode(self, job: Job) -> Answer:
        request = job.request
        began_s = time.monotonic()
        if request.kind is Kind.INTERIM and began_s - job.since_s > LONGEST_INTERIM_WAIT_S:
            return Answer(request.id, Outcome.SKIPPED, load=1.0)
        try:
            decoded = self._engine.transcribe(
                to_floats(request.pcm), request.context, request.prefix, lambda: job.unwanted
            )
        except Exception:
            # One bad segment must not end the thread that serves everybody.
            _log.exception("a segment could not be decoded", samples=len(request.pcm) // 2)
            return Answer(request.id, Outcome.FAILED)
        load = self._note_busy(time.monotonic() - began_s)
        if decoded is None:
            return Answer(request.id, Outcome.SKIPPED, load=load)
        return Answer(
            request.id, Outcome.DONE, decoded.text, decoded.mean_log_p, decoded.tokens, load
        )

    def _note_busy(self, busy_s: float) -> float:
        """Add a decode to the load, an average that forgets exponentially; the new load."""
        with self._wake:
            now_s = time.monotonic()
            self._load *= math.exp((self._load_at_s - now_s) / LOAD_MEMORY_S)
            self._load += busy_s / (LOAD_MEMORY_S * len(self._threads))
            self._load_at_s = now_s
            return min(1.0, self._load)
