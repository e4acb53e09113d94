"""The task that empties an outbox into a transport."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Generic

import msgspec
from tenacity import AsyncRetrying, RetryCallState, wait_random_exponential

from dispatch.errors import DispatchError, Refused, Unreachable
from dispatch.interface import Transport
from dispatch.outbox import Outbox, RowT, envelope, message_id
from dispatch.pace import Pace

log = logging.getLogger("dispatch")

MAX_REFUSED_KNOWN = 10_000
MAX_SESSIONS = 100
"""Sessions that are delivered beside each other; those they leave out wait for the next end."""
LOOK_EVERY_S = 5.0
"""So often the outbox is measured, and held to its bound."""
LOOK_SHARE = 20
"""Unless that takes more than one part in so many of the time."""
TELL_EVERY_S = 60.0
CLOCK_SET_BACK_S = 2.0
LONGEST_WAIT_S = 3600.0
"""Whatever a target asks for."""


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
    """What happened since the start; and what waits in the outbox, as it was last measured."""

    sent: int = 0
    retried: int = 0
    dead: int = 0
    overflowed: int = 0
    last_latency_ms: float = 0.0
    """From a final to its acknowledgement."""
    waiting: int = 0
    oldest_age_s: float = 0.0


_NOBODY = AsyncRetrying()
"""Delays are computed by tenacity and kept in the outbox, where they outlive this process."""


class Dispatcher(Generic[RowT]):
    """Delivers an outbox's rows, each session in order, sessions beside each other.

    ``run`` until it is stopped or cancelled: what is not acknowledged then stays in the outbox.
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
        stop_within_s: float = 10.0,
        share: float = 1.0,
        acknowledged: Callable[[float], None] | None = None,
    ) -> None:
        """``share`` of the event loop may be used while others need it; ``acknowledged`` is told of
        each row how many ms it took from its final to here."""
        self.counts = Counts()
        self._outbox = outbox
        self._transport = transport
        self._retrying = retrying
        self._limit = limit
        self._lease_s = lease_s
        self._outbox_max = outbox_max
        self._idle_s = idle_s
        self._stop_within_s = stop_within_s
        self._is_stopping = False
        self._acknowledged = acknowledged
        self._pace = Pace(share)
        self._owner = secrets.token_hex(8)
        self._refusals: dict[str, int] = {}
        self._unreachable = 0
        self._wait_of = wait_random_exponential(retrying.first_delay_s, retrying.max_delay_s)
        self._look_at_s = 0.0
        self._shed = 0
        self._tell_at_s = 0.0
        self._clock_ahead_s = time.time() - time.monotonic()
        self._woken = asyncio.Event()
        self._quiet = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Something was put into the outbox: look now."""
        self._woken.set()

    def stop(self) -> None:
        """Claim nothing more; ``run`` ends within ``stop_within_s`` and gives the rest back."""
        self._is_stopping = True
        self.wake()

    async def drained(self) -> None:
        """Return once nothing is due any more, or the target is out of reach."""
        self._quiet.clear()
        self.wake()
        await self._quiet.wait()

    async def run(self) -> None:
        """Deliver until stopped; an outbox that does not answer is asked again later."""
        delay_s = self._idle_s
        is_first = True
        try:
            while not self._is_stopping:
                self._woken.clear()
                try:
                    await self._watch_clock(is_first=is_first)
                    await self._look()
                    is_first = False
                    delay_s = 0.0 if await self._lease() else self._idle_s
                    if self._is_open or not (delay_s == 0.0 or self._tasks):
                        self._quiet.set()
                except Exception as error:
                    self._tell(error)
                    delay_s = min(max(delay_s, self._idle_s) * 2, self._retrying.max_delay_s)
                if self._is_open:
                    delay_s = self._retrying.probe_every_s
                await self._pause(delay_s)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self._stop_within_s)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def _is_open(self) -> bool:
        """Whether the target was out of reach so often that one session probes for all."""
        return self._unreachable >= self._retrying.failures_to_open

    async def _pause(self, delay_s: float) -> None:
        """Wait so long, or until something is known to wait."""
        delay_s *= random.uniform(0.75, 1.25)
        if not delay_s:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._woken.wait()
                while self._is_open and not self._is_stopping:
                    self._woken.clear()
                    await self._woken.wait()

    async def _lease(self) -> bool:
        """Start to deliver sessions that nobody delivers; whether there was one."""
        if self._is_open and self._tasks:
            return False
        if len(self._tasks) >= MAX_SESSIONS:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        await self._pace.turn()
        limit = 1 if self._is_open else self._limit
        rows = await self._outbox.claim(self._owner, limit, self._lease_s)
        for _, of_session in itertools.groupby(rows, key=lambda row: row.session):
            task = asyncio.create_task(self._guarded(list(of_session)))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        return bool(rows)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """More of its session may wait."""
        self._tasks.discard(task)
        self.wake()

    async def _guarded(self, rows: list[RowT]) -> None:
        try:
            await self._session(rows)
        except asyncio.CancelledError:
            if self._is_stopping and rows:
                await self._outbox.retry(self._owner, rows[0], 0.0)
            raise
        except Exception as error:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        """The lease runs out, and what is not acknowledged comes again."""
        log.error("Error dispatching transcription: %s", type(error).__name__)

    async def _session(self, rows: list[RowT]) -> None:
        """Take rows off the list until one has to wait, or a third of the lease has passed."""
        until_s = time.monotonic() + self._lease_s / 3
        while rows:
            if self._is_stopping or time.monotonic() > until_s:
                await self._outbox.retry(self._owner, rows[0], 0.0)
                return
            await self._pace.turn()
            try:
                count = await self._transport.send([envelope(row) for row in rows])
            except DispatchError as error:
                if not await self._give_up(rows[0], error):
                    return
                del rows[0]
            else:
                await self._acknowledge(rows[:count])
                del rows[:count]

    async def _acknowledge(self, rows: list[RowT]) -> None:
        self._unreachable = 0
        await self._outbox.ack(self._owner, rows)
        self._forget(rows)
        self.counts.sent += len(rows)
        now_ms = time.time() * 1000
        for row in rows:
            self.counts.last_latency_ms = max(now_ms - row.enqueued_ms, 0.0)
            if self._acknowledged is not None:
                self._acknowledged(self.counts.last_latency_ms)

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
        """Delays that double, with jitter, and never less than the target asked for."""
        state = RetryCallState(_NOBODY, None, (), {})
        state.attempt_number = min(failures, 64)
        delay_s = self._wait_of(state)
        least_s = min(max(asked_s or 0.0, self._retrying.first_delay_s / 2), LONGEST_WAIT_S)
        await self._outbox.retry(self._owner, row, max(delay_s, least_s))
        self.counts.retried += 1

    def _remember(self, name: str, refusals: int) -> None:
        if len(self._refusals) >= MAX_REFUSED_KNOWN:
            del self._refusals[next(iter(self._refusals))]
        self._refusals[name] = refusals

    def _forget(self, rows: Iterable[RowT]) -> None:
        if self._refusals:
            for row in rows:
                self._refusals.pop(message_id(row), None)

    async def _watch_clock(self, *, is_first: bool) -> None:
        """Rows that wait by a clock that was set back since would wait for too long."""
        ahead_s = time.time() - time.monotonic()
        if is_first or ahead_s < self._clock_ahead_s - CLOCK_SET_BACK_S:
            await self._outbox.hasten(max(self._lease_s, self._retrying.max_delay_s))
        self._clock_ahead_s = ahead_s

    async def _look(self) -> None:
        """Now and then: measure the outbox and keep it within its bound."""
        now_s = time.monotonic()
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_EVERY_S
        self.counts.waiting = await self._outbox.outbox_size()
        while self.counts.waiting > self._outbox_max:
            count = await self._outbox.shed(self._outbox_max)
            if not count:
                break
            self._shed += count
            self.counts.overflowed += count
            self.counts.waiting -= count
        oldest_ms = await self._outbox.oldest_ms()
        age_s = 0.0 if oldest_ms is None else time.time() - oldest_ms / 1000
        self.counts.oldest_age_s = max(age_s, 0.0)
        # A look into thousands of sessions takes a while; it may never be most of what is done.
        every_s = max(LOOK_EVERY_S, LOOK_SHARE * (time.monotonic() - now_s))
        self._look_at_s = time.monotonic() + every_s * random.uniform(0.75, 1.25)
        if self._shed and now_s >= self._tell_at_s:
            self._tell_at_s = now_s + TELL_EVERY_S
            log.error("%d messages were given up: the outbox is full", self._shed)
            self._shed = 0
