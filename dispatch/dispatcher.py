"""The task that empties an outbox into a transport."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import secrets
import time
from collections.abc import Iterable
from typing import Generic

import msgspec

from dispatch.errors import DispatchError, Refused, Unreachable
from dispatch.interface import Transport
from dispatch.outbox import Outbox, RowT, envelope, message_id

log = logging.getLogger("dispatch")

MAX_REFUSED_KNOWN = 10_000
MAX_SESSIONS = 100
"""Sessions that are delivered beside each other; those they leave out wait for the next end."""
SHED_EVERY_S = 60.0


class Retrying(msgspec.Struct, frozen=True, kw_only=True):
    """How often and when a delivery is tried again; delays double from ``first_delay_s``."""

    max_retries: int = 3
    first_delay_s: float = 1.0
    max_delay_s: float = 60.0
    failures_to_open: int = 5
    """So many times in a row unreachable: one session in ``probe_every_s`` probes for all."""
    probe_every_s: float = 5.0


DEFAULT_RETRYING = Retrying()


class Counts(msgspec.Struct):
    """What happened since the start, and the last latency from final to acknowledgement."""

    sent: int = 0
    retried: int = 0
    dead: int = 0
    overflowed: int = 0
    last_latency_ms: float = 0.0


class Dispatcher(Generic[RowT]):
    """Delivers an outbox's rows, each session in order, sessions beside each other.

    ``run`` until it is cancelled: what is not acknowledged then stays in the outbox.
    """

    def __init__(
        self,
        outbox: Outbox[RowT],
        transport: Transport,
        retrying: Retrying = DEFAULT_RETRYING,
        *,
        limit: int = 100,
        lease_s: float = 30.0,
        outbox_max: int = 100_000,
        idle_s: float = 0.25,
    ) -> None:
        self.counts = Counts()
        self._outbox = outbox
        self._transport = transport
        self._retrying = retrying
        self._limit = limit
        self._lease_s = lease_s
        self._outbox_max = outbox_max
        self._idle_s = idle_s
        self._owner = secrets.token_hex(8)
        self._refusals: dict[str, int] = {}
        self._unreachable = 0
        self._shed_at_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Deliver until cancelled; an outbox that does not answer is asked again later."""
        delay_s = self._idle_s
        try:
            while True:
                try:
                    await self._shed()
                    delay_s = 0.0 if await self._lease() else self._idle_s
                except Exception as error:
                    self._tell(error)
                    delay_s = min(max(delay_s, self._idle_s) * 2, self._retrying.max_delay_s)
                if self._unreachable >= self._retrying.failures_to_open:
                    delay_s = self._retrying.probe_every_s
                await asyncio.sleep(delay_s * random.uniform(0.75, 1.25))
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _lease(self) -> bool:
        """Start to deliver sessions that nobody delivers; whether there was one."""
        is_open = self._unreachable >= self._retrying.failures_to_open
        if is_open and self._tasks:
            return False
        if len(self._tasks) >= MAX_SESSIONS:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        limit = 1 if is_open else self._limit
        rows = await self._outbox.claim(self._owner, limit, self._lease_s)
        for _, of_session in itertools.groupby(rows, key=lambda row: row.session):
            task = asyncio.create_task(self._guarded(list(of_session)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return bool(rows)

    async def _guarded(self, rows: list[RowT]) -> None:
        try:
            await self._session(rows)
        except Exception as error:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        """The lease runs out, and what is not acknowledged comes again."""
        log.error("Error dispatching transcription: %s", type(error).__name__)

    async def _session(self, rows: list[RowT]) -> None:
        """Deliver a session's rows until one has to wait, or a third of the lease has passed."""
        until_s = time.monotonic() + self._lease_s / 3
        while rows:
            if time.monotonic() > until_s:
                await self._outbox.retry(self._owner, rows[0], 0.0)
                return
            try:
                count = await self._transport.send([envelope(row) for row in rows])
            except DispatchError as error:
                if not await self._give_up(rows[0], error):
                    return
                rows = rows[1:]
            else:
                await self._acknowledge(rows[:count])
                rows = rows[count:]

    async def _acknowledge(self, rows: list[RowT]) -> None:
        self._unreachable = 0
        await self._outbox.ack(self._owner, rows)
        self._forget(rows)
        self.counts.sent += len(rows)
        self.counts.last_latency_ms = max(time.time() * 1000 - rows[-1].enqueued_ms, 0.0)

    async def _give_up(self, row: RowT, error: DispatchError) -> bool:
        """Bury a row that is refused for good, else let it wait; whether it was buried."""
        log.error("Dispatcher error: %s (message %s)", error, message_id(row))
        if isinstance(error, Refused):
            self._unreachable = 0
            refusals = self._refusals.pop(message_id(row), 0) + 1
            if error.final or refusals > self._retrying.max_retries:
                await self._outbox.bury(self._owner, row, str(error))
                self.counts.dead += 1
                return True
            self._remember(message_id(row), refusals)
            await self._wait(row, refusals, None)
            return False
        self._unreachable += 1
        asked_s = error.retry_after_s if isinstance(error, Unreachable) else None
        await self._wait(row, row.attempt + 1, asked_s)
        return False

    async def _wait(self, row: RowT, failures: int, asked_s: float | None) -> None:
        """Full delays with jitter, never less than the target asked for."""
        retrying = self._retrying
        grown_s = retrying.first_delay_s * 2.0 ** min(failures - 1, 30)
        delay_s = min(grown_s, retrying.max_delay_s) * random.uniform(0.5, 1.0)
        await self._outbox.retry(self._owner, row, max(delay_s, asked_s or 0.0))
        self.counts.retried += 1

    def _remember(self, name: str, refusals: int) -> None:
        if len(self._refusals) >= MAX_REFUSED_KNOWN:
            del self._refusals[next(iter(self._refusals))]
        self._refusals[name] = refusals

    def _forget(self, rows: Iterable[RowT]) -> None:
        if self._refusals:
            for row in rows:
                self._refusals.pop(message_id(row), None)

    async def _shed(self) -> None:
        """Once a minute: keep the outbox within its bound, and say what that cost."""
        if time.monotonic() < self._shed_at_s:
            return
        self._shed_at_s = time.monotonic() + SHED_EVERY_S
        total = 0
        while count := await self._outbox.shed(self._outbox_max):
            total += count
        if total:
            self.counts.overflowed += total
            log.error("%d messages were given up: the outbox is full", total)
