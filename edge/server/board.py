"""What the workers tell each other: a table in shared memory with one row per worker.

Comes in: each worker's counts, a few times a second, into its own row. Goes out: totals that any
process can read without asking anybody. Rows have one writer each, and every cell is one aligned
word, so that nothing needs a lock.
"""

from __future__ import annotations

import ctypes
import time
from multiprocessing.sharedctypes import RawArray, RawValue
from typing import Any

import msgspec

BEAT_INTERVAL_S = 0.25
STALE_AFTER_S = 5.0
"""A worker that has not beaten for this long counts as gone."""


class Row(ctypes.Structure):
    """One worker's cells."""

    _fields_ = (
        ("beat_s", ctypes.c_double),
        ("pid", ctypes.c_int64),
        ("active", ctypes.c_int64),
        ("detached", ctypes.c_int64),
        ("tracks", ctypes.c_int64),
        ("draining", ctypes.c_int64),
        ("load", ctypes.c_int64),
        ("asked_s", ctypes.c_double),
        ("told_s", ctypes.c_double),
    )


class Totals(msgspec.Struct, frozen=True):
    """Sums over the workers that are alive; the body of ``/status``."""

    detached: int
    active: int
    tracks: int
    workers: int
    draining: int
    """How many of the workers are stopping."""


class WorkerBoard:
    """Reads and writes the shared table.

    ``rows`` and ``started`` (ctypes in shared memory) are what goes to other processes, in
    ``app.shared_ctx``.
    """

    def __init__(self, rows: Any, started: Any) -> None:
        self.rows = rows
        self.started = started

    @classmethod
    def create(cls, workers: int) -> WorkerBoard:
        """An empty board; call it in the main process, before any worker starts."""
        return cls(RawArray(Row, workers), RawValue(ctypes.c_bool, False))

    @property
    def is_started(self) -> bool:
        """Whether the main process has seen every worker at work."""
        return bool(self.started.value)

    def start(self) -> None:
        """Say that every worker is at work; the main process's part."""
        self.started.value = True

    def beat(
        self, worker: int, *, pid: int, active: int, detached: int, tracks: int, draining: bool
    ) -> None:
        """Publish a worker's counts and that it is alive."""
        row = self.rows[worker]
        row.pid = pid
        row.active = active
        row.detached = detached
        row.tracks = tracks
        row.draining = draining
        row.beat_s = time.monotonic()

    def carry(self, worker: int, load: int) -> None:
        """Publish how loaded a worker is, at once: others compare themselves with it."""
        self.rows[worker].load = load

    def loads_beside(self, worker: int) -> list[int]:
        """The loads of the other workers that take connections."""
        return [
            self.rows[other].load
            for other in range(len(self.rows))
            if other != worker and self.is_alive(other) and not self.rows[other].draining
        ]

    def ask(self, worker: int, at_s: float) -> None:
        """This worker wants to know, from now (``time.monotonic()``), what all tracks do."""
        self.rows[worker].asked_s = at_s

    def asked_s(self) -> float:
        """When a worker asked last; 0 if none has."""
        return max(float(row.asked_s) for row in self.rows)

    def tell(self, worker: int, asked_s: float) -> None:
        """This worker has told what its tracks do, to who asked then."""
        self.rows[worker].told_s = asked_s

    def told_s(self, worker: int) -> float:
        """The latest question that a worker has answered."""
        return float(self.rows[worker].told_s)

    def living(self) -> list[int]:
        """The workers that are alive."""
        return [worker for worker in range(len(self.rows)) if self.is_alive(worker)]

    def clear(self, worker: int) -> None:
        """Take a worker off the board."""
        self.rows[worker].beat_s = 0.0
        self.rows[worker].load = 0

    def is_alive(self, worker: int) -> bool:
        """Whether a worker has beaten lately."""
        beat_s: float = self.rows[worker].beat_s
        return beat_s > 0.0 and time.monotonic() - beat_s < STALE_AFTER_S

    def silence_s(self, worker: int) -> float:
        """Seconds since a worker's last beat; 0 for one that has not begun to beat."""
        beat_s: float = self.rows[worker].beat_s
        return time.monotonic() - beat_s if beat_s > 0.0 else 0.0

    @property
    def all_alive(self) -> bool:
        """Whether every worker is there."""
        return all(self.is_alive(worker) for worker in range(len(self.rows)))

    def totals(self) -> Totals:
        """The sums over all living workers."""
        rows = [self.rows[worker] for worker in range(len(self.rows)) if self.is_alive(worker)]
        return Totals(
            detached=sum(row.detached for row in rows),
            active=sum(row.active for row in rows),
            tracks=sum(row.tracks for row in rows),
            workers=len(rows),
            draining=sum(row.draining for row in rows),
        )
