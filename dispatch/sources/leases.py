"""Which partitions of a Redis queue this consumer reads: each is read by one at a time.

Consumers write into a sorted set when they were last alive; partitions are shared out evenly among
those that are. A partition is held by a key that expires: nobody reads it longer than that after
its consumer has died.
"""

from __future__ import annotations

import math
import time
from typing import Any

from dispatch.redis_stream import GROUP, Partition, Script, partitions

_hold = Script("""
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return owner and 1 or 2
""")
_release = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")
_alive = Script("""
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
""")


class Leases:
    """The partitions that one consumer holds. Times are of the monotonic clock."""

    def __init__(
        self, client: Any, prefix: str, name: str, lease_s: float, group: str = GROUP
    ) -> None:
        self._client = client
        self._all = partitions(prefix)
        self._group = group
        self._alive = f"{{{prefix}}}:consumers:{group}"
        self._name = name
        self._lease_ms = int(lease_s * 1000)
        self._held: dict[Partition, float] = {}
        self._taken: dict[Partition, None] = {}
        """Newly held, and not told yet."""
        self._look_at_s = 0.0
        self.share = len(self._all)
        """How many partitions are this consumer's, now that so many consumers are alive."""

    @property
    def is_due(self) -> bool:
        """Whether it is time to renew; it is three times in a lease."""
        return time.monotonic() >= self._look_at_s

    def holds(self, partition: Partition) -> bool:
        """Whether nobody else may read it."""
        return self._held.get(partition, 0.0) > time.monotonic()

    async def renew(self) -> list[Partition]:
        """Keep what is held, take what is free up to the share; those newly taken.

        What was taken before a call that failed is told by the next one.
        """
        look_at_s = time.monotonic() + self._lease_ms / 3000
        alive = await _alive.run(self._client, [self._alive], self._name, self._lease_ms)
        self.share = math.ceil(len(self._all) / max(int(alive), 1))
        for partition in self._all:
            if partition not in self._held and len(self._held) >= self.share:
                continue
            until_s = time.monotonic() + self._lease_ms / 1000
            answer = await _hold.run(
                self._client, [partition.lease(self._group)], self._name, self._lease_ms
            )
            if not answer:
                self._held.pop(partition, None)
                self._taken.pop(partition, None)
                continue
            if int(answer) == 2 or partition not in self._held:
                self._taken[partition] = None
            self._held[partition] = until_s
        self._look_at_s = look_at_s
        taken, self._taken = list(self._taken), {}
        return taken

    async def release(self, partition: Partition) -> None:
        """Let somebody else have it."""
        self._held.pop(partition, None)
        self._taken.pop(partition, None)
        await _release.run(self._client, [partition.lease(self._group)], self._name)

    async def leave(self) -> None:
        """Let others have all."""
        for partition in list(self._held):
            await self.release(partition)
        await self._client.zrem(self._alive, self._name)
