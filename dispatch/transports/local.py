"""``local``: the embedded queue on this machine, which ``edgescribe dispatcher`` empties."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from dispatch.errors import Unreachable
from dispatch.interface import Transport
from dispatch.local_queue import LocalQueue
from dispatch.messages import Envelope

MAX_WAITING = 1_000_000
"""Messages that may wait in the queue; beyond, they wait where they come from."""
COUNT_EVERY = 100


class LocalTransport(Transport):
    """Puts messages into the queue, all of a call in one transaction."""

    def __init__(self, path: Path, deadline_s: float = 10.0, most: int = MAX_WAITING) -> None:
        self._queue = LocalQueue(path)
        self._deadline_s = deadline_s
        self._most = most
        self._sends = 0

    async def close(self) -> None:
        await self._queue.close()

    async def send(self, envelopes: Sequence[Envelope]) -> int:
        try:
            async with asyncio.timeout(self._deadline_s):
                if self._sends % COUNT_EVERY == 0 and await self._is_full():
                    raise Unreachable(f"the local queue is full: {self._most} messages wait")
                self._sends += 1
                await self._queue.put(envelopes)
        except TimeoutError as error:
            raise Unreachable(
                f"the local queue did not answer in {self._deadline_s:g} s"
            ) from error
        return len(envelopes)

    async def _is_full(self) -> bool:
        return await self._queue.outbox_size() >= self._most
