"""``redis``: streams as ``dispatch.redis_stream`` lays them out, shared by many consumers."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any, Self

import msgspec
from redis.asyncio import RedisCluster
from redis.exceptions import RedisError, ResponseError

from dispatch.messages import Envelope
from dispatch.redis_stream import (
    DEAD_LETTERS_KEPT_S,
    DIED_MS,
    GROUP,
    PREFIX,
    REASON,
    Partition,
    Script,
    connect,
    disconnect,
    fields_of,
    partition_of,
    partitions,
    trim,
)
from dispatch.sources.ending import end
from dispatch.sources.leases import Leases
from dispatch.sources.redis_rows import UNREADABLE, RedisLetter, RedisRow, letter_of, row_of
from dispatch.sources.sessions import Sessions

MAX_BUFFERED = 1000
"""Rows of a partition that are read ahead of their delivery."""
READ_AT_ONCE = 100
TRIM_EVERY_S = 10.0
ACKNOWLEDGED_KEPT_S = 3600.0


_read = Script("""
local found = {}
for i = 1, #KEYS, 2 do
  if redis.call('GET', KEYS[i + 1]) == ARGV[2] then
    local answer = redis.call(
      'XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS', KEYS[i], '>')
    if answer then found[#found + 1] = answer[1] end
  end
end
return found
""")
"""Who was held up for longer than a lease must not read what is another's by now."""

_redrive = Script("""
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 2))
return 1
""")
"""In one step: who dies half way neither loses a dead letter nor has it twice."""


class _Held(msgspec.Struct, eq=False):
    """A partition that this consumer reads."""

    sessions: Sessions[RedisRow]
    after: str | None = "0-0"
    """Up to where entries were taken over that were read before; None when all are."""
    last: str = "$"
    """The entry that was read last."""


class RedisSource:
    """Reads the partitions that it holds, those of dead consumers from where they were left.

    Calls raise ``RedisError`` or ``OSError`` (``TimeoutError``) while the server does not answer;
    what was read stays and is handed out again when its lease ends.
    """

    def __init__(
        self,
        url: str,
        prefix: str = PREFIX,
        *,
        group: str = GROUP,
        lease_s: float = 5.0,
        block_s: float = 0.5,
        deadline_s: float = 10.0,
        kept_s: float = ACKNOWLEDGED_KEPT_S,
    ) -> None:
        """``lease_s``: partitions of a consumer that died are taken over after so long at most;
        ``kept_s``: entries that were acknowledged stay for so long. ``ValueError`` for the URL."""
        self._client = connect(url, deadline_s)
        self._prefix = prefix
        self._group = group
        self._name = f"consumer-{secrets.token_hex(8)}"
        self._leases = Leases(self._client, prefix, self._name, lease_s, group)
        self._block_ms = max(int(block_s * 1000), 1)
        self._deadline_s = deadline_s
        self._kept_s = kept_s
        self._held: dict[Partition, _Held] = {}
        self._turn = asyncio.Lock()
        """Of whoever reads or takes and gives up partitions."""
        self._lease_s = lease_s
        self._keeping: asyncio.Task[None] | None = None
        self._has_groups = False
        self._trim_at_s = 0.0
        self._trimmed = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keeping is not None:
            await end([self._keeping])
        with contextlib.suppress(RedisError, OSError):
            async with asyncio.timeout(self._deadline_s):
                await self._leases.leave()
        await disconnect(self._client)

    async def claim(self, owner: str, limit: int = 100, lease_s: float = 30.0) -> list[RedisRow]:
        """Rows read before, else those that come while it waits for them a moment."""
        async with self._turn:
            await self._keep_up()
            taken = self._take(limit, lease_s)
            if len(taken) < limit:
                # Who delivers something may be done with it at any moment, and asks again then.
                await self._read(0 if self._count() else self._block_ms)
                taken += self._take(limit - len(taken), lease_s)
        return taken

    def _count(self) -> int:
        """Rows that are read and not settled."""
        return sum(held.sessions.size + held.sessions.out for held in self._held.values())

    def _take(self, limit: int, lease_s: float) -> list[RedisRow]:
        taken: list[RedisRow] = []
        for partition, held in self._held.items():
            if len(taken) >= limit:
                break
            if self._leases.holds(partition) and not self._is_surplus(partition):
                taken += held.sessions.take(limit - len(taken), lease_s)
        return taken

    def _is_surplus(self, partition: Partition) -> bool:
        """Whether it is to go to a consumer that has too few, once nothing of it is out."""
        over = len(self._held) - self._leases.share
        return over > 0 and partition in list(self._held)[-over:]

    async def ack(self, owner: str, rows: Sequence[RedisRow]) -> None:
        async with asyncio.timeout(self._deadline_s):
            async with self._client.pipeline(transaction=False) as pipeline:
                for partition, names in self._by_partition(rows).items():
                    pipeline.xack(partition.messages, self._group, *names)
                await pipeline.execute()
        self._settle(rows)

    async def retry(self, owner: str, row: RedisRow, delay_s: float) -> None:
        held = self._held.get(partition_of(row.session, self._prefix))
        if held is not None:
            held.sessions.back(row, delay_s)

    async def bury(self, owner: str, row: RedisRow, reason: str) -> None:
        partition = partition_of(row.session, self._prefix)
        entry = Envelope(
            f"{row.session}:{row.offset}",
            row.session,
            row.body,
            row.attempt,
            row.epoch,
            row.enqueued_ms,
        )
        async with asyncio.timeout(self._deadline_s):
            await self._bury(partition, row.name, fields_of(entry), reason)
        self._settle([row])

    async def outbox_size(self) -> int:
        """How many rows are read and not settled."""
        async with self._turn:
            await self._keep_up()
            await self._read(0)
        return self._count()

    async def oldest_ms(self) -> int | None:
        ages = [held.sessions.oldest_ms() for held in self._held.values()]
        return min((age for age in ages if age is not None), default=None)

    async def shed(self, keep: int) -> int:
        """Nothing: the transport bounds the queue."""
        return 0

    async def hasten(self, ahead_s: float) -> None:
        for held in self._held.values():
            held.sessions.hasten(ahead_s)

    def _by_partition(self, rows: Iterable[RedisRow]) -> dict[Partition, list[str]]:
        names: dict[Partition, list[str]] = {}
        for row in rows:
            names.setdefault(partition_of(row.session, self._prefix), []).append(row.name)
        return names

    def _settle(self, rows: Sequence[RedisRow]) -> None:
        for row in rows:
            held = self._held.get(partition_of(row.session, self._prefix))
            if held is not None:
                held.sessions.settle([row])

    async def _keep(self) -> None:
        """Renew leases also while nobody claims, as when a sink is slow or away."""
        while True:
            await asyncio.sleep(self._lease_s / 6)
            with contextlib.suppress(RedisError, OSError):
                async with self._turn:
                    await self._keep_up()

    async def _keep_up(self) -> None:
        """Renew leases in time, give up what is another's, trim now and then."""
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())
        if not self._leases.is_due:
            return
        async with asyncio.timeout(self._deadline_s):
            await self._make_groups()
            taken = await self._leases.renew()
            for partition in taken:
                self._held[partition] = _Held(Sessions())
            for partition in [each for each in self._held if not self._leases.holds(each)]:
                del self._held[partition]
            for partition in [each for each in self._held if self._is_surplus(each)]:
                if not self._held[partition].sessions.out:
                    del self._held[partition]
                    await self._leases.release(partition)
            await self._trim()

    async def _make_groups(self) -> None:
        if self._has_groups:
            return
        for partition in partitions(self._prefix):
            try:
                await self._client.xgroup_create(
                    partition.messages, self._group, id="0", mkstream=True
                )
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        self._has_groups = True

    async def _trim(self) -> None:
        """One held partition at a time."""
        if time.monotonic() < self._trim_at_s or not self._held:
            return
        self._trim_at_s = time.monotonic() + TRIM_EVERY_S / len(self._held)
        self._trimmed += 1
        partition = list(self._held)[self._trimmed % len(self._held)]
        await trim(self._client, partition, self._kept_s)
        before_ms = int((time.time() - DEAD_LETTERS_KEPT_S) * 1000)
        await self._client.xtrim(partition.dead, minid=before_ms)

    async def _read(self, block_ms: int) -> None:
        """Entries that were left behind first, then new ones of all partitions at once."""
        wanted = [
            partition
            for partition, held in self._held.items()
            if self._leases.holds(partition)
            and not self._is_surplus(partition)
            and held.sessions.size + held.sessions.out < MAX_BUFFERED
        ]
        if not wanted:
            await asyncio.sleep(block_ms / 1000)
            return
        try:
            async with asyncio.timeout(self._deadline_s):
                fresh = []
                for partition in wanted:
                    if self._held[partition].after is None:
                        fresh.append(partition)
                    else:
                        await self._take_over(partition)
                if len(fresh) == len(wanted):
                    await self._read_new(fresh, block_ms)
        except ResponseError as error:
            if "NOGROUP" in str(error):
                self._has_groups = False
                await self._make_groups()
            raise

    async def _take_over(self, partition: Partition) -> None:
        held = self._held[partition]
        answer = await self._client.xautoclaim(
            partition.messages, self._group, self._name, 0, held.after, count=READ_AT_ONCE
        )
        known = {row.name for row in held.sessions.rows()}
        await self._put(partition, [each for each in answer[1] if each[0].decode() not in known])
        held.after = None if answer[0] in (b"0-0", "0-0") else answer[0]

    async def _read_new(self, fresh: Sequence[Partition], block_ms: int) -> None:
        by_name = {partition.messages: partition for partition in fresh}
        try:
            for name, entries in await self._read_all(fresh, block_ms):
                await self._put(by_name[name.decode()], entries)
        except BaseException:
            # What an answer that was lost held is ours by now, and comes before all that is new.
            for partition in fresh:
                self._held[partition].after = "0-0"
            raise

    async def _read_all(
        self, fresh: Sequence[Partition], block_ms: int
    ) -> list[tuple[bytes, list[Any]]]:
        if isinstance(self._client, RedisCluster):
            # Streams of several slots cannot be read or waited for together.
            answers = await asyncio.gather(*(self._read_some([each]) for each in fresh))
            found = [stream for answer in answers for stream in answer]
            if not found:
                await asyncio.sleep(block_ms / 1000)
            return found
        found = await self._read_some(fresh)
        if not found and block_ms:
            after = {each.messages: self._held[each].last for each in fresh}
            await self._client.xread(after, count=1, block=block_ms)
            found = await self._read_some(fresh)
        return found

    async def _read_some(self, fresh: Sequence[Partition]) -> list[tuple[bytes, list[Any]]]:
        keys = [key for each in fresh for key in (each.messages, each.lease(self._group))]
        answer = await _read.run(self._client, keys, self._group, self._name, READ_AT_ONCE)
        return [
            (stream, [(name, dict(zip(flat[::2], flat[1::2], strict=True))) for name, flat in read])
            for stream, read in answer
        ]

    async def _put(self, partition: Partition, entries: Iterable[Any]) -> None:
        rows = []
        for name, fields in entries:
            try:
                rows.append(row_of(name.decode(), fields))
            except ValueError:
                raw = [part for pair in (fields or {}).items() for part in pair]
                await self._bury(partition, name.decode(), raw, UNREADABLE)
            self._held[partition].last = name.decode()
        self._held[partition].sessions.put(rows)

    async def _bury(
        self, partition: Partition, name: str, fields: Sequence[Any], reason: str
    ) -> None:
        entry = dict(zip(fields[::2], fields[1::2], strict=True))
        entry |= {REASON: reason, DIED_MS: int(time.time() * 1000)}
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.xadd(partition.dead, entry)
            pipeline.xack(partition.messages, self._group, name)
            await pipeline.execute()

    async def dead_letters(self, limit: int = 100) -> list[RedisLetter]:
        """Of all partitions. What was no entry of ours is among them, as its session ``?``."""
        letters = []
        for partition in partitions(self._prefix):
            since = int((time.time() - DEAD_LETTERS_KEPT_S) * 1000)
            async with asyncio.timeout(self._deadline_s):
                found = await self._client.xrange(partition.dead, min=since, count=limit)
            letters += [letter_of(name.decode(), fields) for name, fields in found]
        letters.sort(key=lambda letter: letter.died_ms)
        return letters[:limit]

    async def redrive(self, letters: Sequence[RedisLetter]) -> int:
        count = 0
        for letter in letters:
            row = letter.row
            if letter.reason == UNREADABLE:
                continue
            partition = partition_of(row.session, self._prefix)
            name = f"{row.session}:{row.offset}"
            now_ms = int(time.time() * 1000)
            entry = Envelope(name, row.session, row.body, 0, row.epoch, now_ms)
            keys = [partition.dead, partition.messages]
            async with asyncio.timeout(self._deadline_s):
                count += await _redrive.run(self._client, keys, row.name, *fields_of(entry))
        return count
