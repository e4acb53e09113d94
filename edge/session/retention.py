"""Old sessions go: one worker of all nodes at a time looks for them, a few in each step.

Comes in: the session store and how long an untouched session is kept. Goes out: deleted sessions,
whose tombstones refuse whoever still writes, and forgotten tombstones, dead letters and records
that have expired. The lease is a record that runs out by itself, so a worker that dies in the
middle is followed by another.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec

from edge.errors import Conflict, StoreError
from edge.logs import Repeats, get_logger
from edge.option import option
from edge.session.store.interface import SessionStore, shared_scope

SCOPE = shared_scope("retention")
FAMILY = "lease"
KEY = "sweep"
BATCH = 20
"""Sessions deleted in one step: other writers wait for no more than that."""
PAUSE_S = 0.05
SHORTEST_LOOK_S = 1.0
LONGEST_LOOK_S = 3600.0
LEASED = 0.75
"""A lease's share of the time between two looks: of all workers, the first to look has it."""
FOR_EVER_S = 100 * 365 * 86400.0

Gone = Callable[[str], Awaitable[None]]
"""Told the name of a session that was deleted: what lies elsewhere may go, too. May raise what
stores raise."""

_log = get_logger("edge.session.retention")


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How long sessions are kept."""

    session_retention_s: Annotated[
        int,
        option("Delete sessions that nobody changed for so long, in seconds; 0: never", ge=0),
    ] = 30 * 86400
    """Their log and records go, and their names are refused for a week. Entries and records of a
    session are changes, so the presence of a connection keeps it."""


class Retention:
    """Sweeps the store; owns one task between ``start`` and ``stop``."""

    def __init__(self, unchanged_s: float, store: SessionStore, gone: Gone | None = None) -> None:
        """``gone`` is told of each session that was deleted."""
        self._store = store
        self._gone = gone
        self._unchanged_s = unchanged_s or FOR_EVER_S
        self._look_s = min(max(self._unchanged_s / 4, SHORTEST_LOOK_S), LONGEST_LOOK_S)
        self._owner = secrets.token_hex(8).encode()
        self._task: asyncio.Task[None] | None = None
        self._faults = Repeats(_log)

    def start(self) -> None:
        """Begin to look, from a random moment on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def sweep(self) -> int:
        """Delete what is due, if it is this worker's turn; how many sessions went."""
        lease_s = self._look_s * LEASED
        try:
            version = await self._store.put(SCOPE, FAMILY, KEY, self._owner, 0, lease_s)
        except Conflict:
            return 0
        gone = 0
        while True:
            names = await self._store.expire(self._unchanged_s, BATCH)
            gone += len(names)
            if self._gone is not None:
                for name in names:
                    await self._gone(name)
            if len(names) < BATCH:
                break
            await asyncio.sleep(PAUSE_S)
            try:
                version = await self._store.put(SCOPE, FAMILY, KEY, self._owner, version, lease_s)
            except Conflict:
                break
        if gone:
            _log.info("old sessions were deleted", sessions=gone, unchanged_s=self._unchanged_s)
        return gone

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._look_s * random.uniform(0.5, 1.0))
            try:
                await self.sweep()
                self._faults.summarize()
            except StoreError as error:
                self._faults.note("old sessions could not be deleted", reason=str(error))
