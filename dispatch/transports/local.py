"""``local``: the embedded queue, for consumers on the same machine."""

from __future__ import annotations

from collections.abc import Sequence

from dispatch.interface import Transport
from dispatch.local_queue import LocalQueue
from dispatch.messages import Envelope


class LocalTransport(Transport):
    """Puts messages into a queue, which it closes in the end."""

    def __init__(self, queue: LocalQueue) -> None:
        self._queue = queue

    async def open(self) -> None:
        await self._queue.open()

    async def close(self) -> None:
        await self._queue.close()

    async def send(self, envelopes: Sequence[Envelope]) -> int:
        return await self._queue.put(envelopes)
