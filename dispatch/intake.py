"""A source as a consumer sees it: in batches, each message once, and only what is a message."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Generic

import msgspec

from dispatch.messages import decode_message
from dispatch.outbox import Outbox, Row, RowT, message_id
from dispatch.seen import Seen

log = logging.getLogger("dispatch")

NOT_A_MESSAGE = "not a transcription message"
AGAIN_S = 0.5
POLL_S = 0.1
"""How often a source is asked whether a batch is full."""


class IntakeCounts(msgspec.Struct):
    """What never reached the sink."""

    duplicates: int = 0
    garbage: int = 0


class Intake(Generic[RowT]):
    """An ``Outbox`` around another; what a sink has taken is not handed out again.

    A batch is handed out when it is full, or ``batch_wait_s`` after its first message was found.
    """

    def __init__(
        self, source: Outbox[RowT], *, batch_wait_s: float = 0.0, seen: Seen | None = None
    ) -> None:
        self.counts = IntakeCounts()
        self._source = source
        self._batch_wait_s = batch_wait_s
        self._seen = Seen() if seen is None else seen
        self._acks: list[tuple[Sequence[RowT], asyncio.Future[None]]] = []
        self._acking: asyncio.Task[None] | None = None
        self._is_flowing = False
        self._stopping = False

    def stop(self) -> None:
        """Wait for no batch to become full any more."""
        self._stopping = True

    async def claim(self, owner: str, limit: int = 100, lease_s: float = 30.0) -> list[RowT]:
        if self._batch_wait_s and not self._is_flowing and not await self._gather(limit):
            return []
        while not self._stopping:
            rows = await self._source.claim(owner, limit, lease_s)
            self._is_flowing = len(rows) >= limit
            try:
                fresh = await self._sift(owner, rows)
            except Exception:
                await self._give_back(owner, rows)
                raise
            if fresh:
                return fresh
            if not rows:
                break
        return []

    async def _gather(self, limit: int) -> bool:
        """Whether a batch is full, or has waited long enough; False at once if there is nothing."""
        until_s = time.monotonic() + self._batch_wait_s
        while not self._stopping:
            size = await self._source.outbox_size()
            left_s = until_s - time.monotonic()
            if not 0 < size < limit or left_s <= 0:
                return size > 0
            await asyncio.sleep(min(POLL_S, left_s))
        return False

    async def _sift(self, owner: str, rows: list[RowT]) -> list[RowT]:
        """Without what was taken before, comes twice, or is no message."""
        fresh: list[RowT] = []
        again: list[RowT] = []
        names = set[str]()
        for row in rows:
            name = identity(row)
            if name in self._seen or name in names:
                again.append(row)
                continue
            names.add(name)
            if is_message(row.body):
                fresh.append(row)
            else:
                log.error("Dispatcher error: %s (message %s)", NOT_A_MESSAGE, message_id(row))
                await self._source.bury(owner, row, NOT_A_MESSAGE)
                self.counts.garbage += 1
        if again:
            await self._source.ack(owner, again)
            self.counts.duplicates += len(again)
        return fresh

    async def ack(self, owner: str, rows: Sequence[RowT]) -> None:
        """Sessions that are acknowledged at the same time are so in one call of the source."""
        self._seen.add(identity(row) for row in rows)
        done = asyncio.get_running_loop().create_future()
        self._acks.append((rows, done))
        if self._acking is None:
            self._acking = asyncio.create_task(self._ack_all(owner))
        await asyncio.shield(done)

    async def _ack_all(self, owner: str) -> None:
        while self._acks:
            group, self._acks = self._acks, []
            failure: Exception | None = None
            try:
                await self._source.ack(owner, [row for rows, _ in group for row in rows])
            except Exception as error:
                failure = error
                await self._give_back(owner, [row for rows, _ in group for row in rows])
            for _, done in group:
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(failure)
                    # Whoever waited may have been cancelled meanwhile.
                    done.exception()
        self._acking = None

    async def _give_back(self, owner: str, rows: Sequence[RowT]) -> None:
        """The source failed: its rows soon come again, and are known if they were delivered."""
        first = {row.session: row for row in reversed(rows)}
        for row in first.values():
            with suppress(Exception):
                await self._source.retry(owner, row, AGAIN_S)

    async def retry(self, owner: str, row: RowT, delay_s: float) -> None:
        await self._source.retry(owner, row, delay_s)

    async def bury(self, owner: str, row: RowT, reason: str) -> None:
        await self._source.bury(owner, row, reason)

    async def outbox_size(self) -> int:
        return await self._source.outbox_size()

    async def oldest_ms(self) -> int | None:
        return await self._source.oldest_ms()

    async def hasten(self, ahead_s: float) -> None:
        await self._source.hasten(ahead_s)

    async def shed(self, keep: int) -> int:
        """A consumer gives nothing up: how much may wait is for those who fill the queue."""
        return 0


def identity(row: Row) -> str:
    """A session that is begun anew counts its messages anew, in another epoch."""
    return f"{row.epoch}/{message_id(row)}"


def is_message(body: bytes) -> bool:
    try:
        decode_message(body)
    except msgspec.DecodeError:
        return False
    return True
