"""``redis``: entries of Redis streams, laid out as ``dispatch.redis_stream`` says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError

from dispatch.errors import Unreachable
from dispatch.interface import Transport
from dispatch.messages import Envelope
from dispatch.redis_stream import (
    MAX_SEEN,
    PREFIX,
    SEEN_FOR_S,
    Partition,
    Script,
    connect,
    disconnect,
    fields_of,
    partition_of,
    trim,
)

TRIM_EVERY_S = 10.0
TRIM_WITHIN_S = 2.0
ACKNOWLEDGED_KEPT_S = 3600.0
MAX_WAITING = 100_000
MAX_AT_ONCE = 32

_add = Script("""
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[2])
local room, taken = ARGV[1] - redis.call('XLEN', KEYS[1]), 0
for i = 4, #ARGV, 13 do
  if not redis.call('ZSCORE', KEYS[2], ARGV[i]) then
    if room <= 0 then break end
    redis.call('XADD', KEYS[1], '*', unpack(ARGV, i + 1, i + 12))
    redis.call('ZADD', KEYS[2], now, ARGV[i])
    room = room - 1
  end
  taken = taken + 1
end
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - ARGV[3])
return taken
""")


class RedisTransport(Transport):
    """Adds messages in one step, each once as long as its partition remembers it.

    ``max_waiting`` bounds a partition: while that many entries wait there, nothing is taken.
    ``url``: see ``dispatch.redis_stream.connect``, also for ``ValueError``.
    """

    def __init__(
        self,
        url: str,
        prefix: str = PREFIX,
        deadline_s: float = 10.0,
        *,
        kept_s: float = ACKNOWLEDGED_KEPT_S,
        max_waiting: int = MAX_WAITING,
        trim_every_s: float = TRIM_EVERY_S,
    ) -> None:
        """``kept_s`` is how long entries stay that were acknowledged."""
        self._client: Any = connect(url, deadline_s)
        self._prefix = prefix
        self._deadline_s = deadline_s
        self._kept_s = kept_s
        self._max_waiting = max_waiting
        self._trim_every_s = trim_every_s
        self._trim_at_s: dict[Partition, float] = {}
        self._room = asyncio.Semaphore(MAX_AT_ONCE)

    async def close(self) -> None:
        await disconnect(self._client)

    async def send(self, envelopes: Sequence[Envelope]) -> int:
        partition = partition_of(envelopes[0].session, self._prefix)
        try:
            async with asyncio.timeout(self._deadline_s), self._room:
                count = await self._add(partition, envelopes)
                if not count and await trim(self._client, partition, 0.0):
                    count = await self._add(partition, envelopes)
        except (RedisError, OSError, TimeoutError) as error:
            raise Unreachable(f"the server did not take it: {type(error).__name__}") from error
        if not count:
            raise Unreachable(f"{self._max_waiting} messages wait in partition {partition.number}")
        await self._trim(partition)
        return count

    async def _add(self, partition: Partition, envelopes: Sequence[Envelope]) -> int:
        added = await _add.run(
            self._client,
            [partition.messages, partition.seen],
            *(self._max_waiting, int(SEEN_FOR_S * 1000), MAX_SEEN),
            *(
                part
                for envelope in envelopes
                for part in (f"{envelope.epoch}/{envelope.message_id}", *fields_of(envelope))
            ),
        )
        return int(added)

    async def _trim(self, partition: Partition) -> None:
        """Now and then; what fails is done the next time."""
        now_s = time.monotonic()
        if now_s < self._trim_at_s.get(partition, 0.0):
            return
        self._trim_at_s[partition] = now_s + self._trim_every_s
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(TRIM_WITHIN_S):
                await trim(self._client, partition, self._kept_s)
