"""The engine for many machines: Redis 7 or Valkey, alone, behind Sentinel, or as a Cluster.

All keys of a session carry one hash tag, and whatever must be one step is one Lua script. A session
whose server restarted or failed over gets a new epoch. With ``durability="full"`` a server that
started again from its own log keeps the epochs, and nothing is confirmed or read that is not on
a replica too, where the server has one at that time; a Cluster's replicas are not waited for.
Losses that somebody can prove bring a new epoch in any case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from edge.errors import Conflict, HistoryLost, SessionDeleted, StaleFence, StoreUnavailable
from edge.session.store.interface import (
    MAX_EXPIRED,
    MAX_PAGE,
    SIGNAL_MAX_BYTES,
    TOMBSTONE_S,
    DeadLetter,
    Draft,
    Durability,
    Entry,
    Grant,
    Head,
    Listener,
    OutboxRow,
    Page,
    Record,
    Resumed,
    SessionDetail,
    SessionInfo,
    SessionStore,
    Signal,
    check_name,
    now_ms,
)
from edge.session.store.listeners import Listeners
from edge.session.store.redis_link import RedisLink
from edge.session.store.redis_outbox import RedisOutbox
from edge.session.store.redis_signals import RedisSignals, channel

SESSIONS = "edgescribe:sessions"
MAX_KNOWN = 10_000

_encode = msgspec.msgpack.Encoder().encode


def prefix(session: str) -> str:
    """What the keys of a session begin with; quoted, so that a name cannot break the hash tag."""
    return f"edgescribe:{{{quote(session, safe='')}}}:"


def keys_of(session: str, *names: str) -> list[str]:
    start = prefix(session)
    return [start + name for name in names]


def place(answer: Sequence[Any]) -> Head:
    return Head(answer[1].decode(), int(answer[2]), int(answer[3]))


class RedisStore(SessionStore):
    """A store at a ``redis://`` URL; each worker of each node opens its own."""

    def __init__(
        self, url: str, durability: Durability = "normal", deadline_s: float = 5.0
    ) -> None:
        self._link = RedisLink(url, durability, deadline_s)
        self._listeners = Listeners()
        self._signals = RedisSignals(self._link, self._listeners)
        self._outbox = RedisOutbox(self._link, keys_of)
        self._known: set[str] = set()

    async def open(self) -> None:
        try:
            await self._link.open()
        except StoreUnavailable:
            await self._link.close()
            raise
        self._signals.open()

    async def close(self) -> None:
        await self._signals.close()
        await self._link.close()

    async def _index(self, session: str) -> None:
        """Put the session on the list before it exists, so that none is ever missing there."""
        if session in self._known:
            return
        check_name(session)
        await self._link.command("zadd", SESSIONS, {session: 0})
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known.add(session)

    def _lost(self, session: str, epoch: bytes) -> HistoryLost:
        self._known.clear()
        return HistoryLost(session, epoch.decode())

    async def open_track(self, session: str, track: str) -> Grant:
        check_name(track)
        await self._index(session)
        answer = await self._link.run(
            "open_track",
            keys_of(session, "h"),
            *(track, channel(prefix(session)), _encode(Signal(session))),
            shown=True,
        )
        if answer[0] == b"deleted":
            raise SessionDeleted(session)
        return Grant(session, track, int(answer[1]), answer[2].decode(), int(answer[3]))

    async def _append(
        self,
        grant: Grant,
        batch: str,
        drafts: Sequence[Draft],
        outbox: Sequence[tuple[int, bytes]],
    ) -> int:
        session = grant.session
        await self._index(session)
        if outbox:
            await self._outbox.expect(session)
        answer = await self._link.run(
            "append",
            keys_of(session, "h", "l", "o"),
            *(grant.track, grant.fence, grant.epoch, grant.acked, batch, len(drafts)),
            *(part for draft in drafts for part in (draft.kind, draft.body)),
            *(len(outbox), *(part for row in outbox for part in row)),
            *(channel(prefix(session)), session),
            repeat=bool(grant.track),
            shown=True,
        )
        match answer[0]:
            case b"deleted":
                raise SessionDeleted(session)
            case b"lost":
                raise self._lost(session, answer[1])
            case b"stale":
                raise StaleFence(session, grant.track, grant.fence, int(answer[1]))
        if outbox:
            await self._outbox.expect(session)
        return int(answer[1])

    async def read(self, session: str, after: int, limit: int = MAX_PAGE) -> Page | None:
        count = min(limit, MAX_PAGE)
        answer = await self._link.run("read", keys_of(session, "h", "l"), after, count, shown=True)
        if answer[0] == b"none":
            return None
        return Page(place(answer), [entry(name, fields) for name, fields in answer[4]])

    async def head(self, session: str) -> Head | None:
        answer = await self._link.run("read", keys_of(session, "h", "l"), 0, 0, shown=True)
        return None if answer[0] == b"none" else place(answer)

    async def resume(self, session: str, epoch: str, offset: int) -> Resumed | None:
        answer = await self._link.run("resume", keys_of(session, "h"), epoch, offset, shown=True)
        if answer[0] == b"none":
            return None
        return Resumed(place(answer), bool(answer[4]))

    async def clear(self, session: str) -> Head:
        await self._index(session)
        answer = await self._link.run(
            "clear",
            keys_of(session, "h", "l"),
            *(channel(prefix(session)), _encode(Signal(session))),
            shown=True,
        )
        if answer[0] == b"deleted":
            raise SessionDeleted(session)
        return place(answer)

    async def _found(self, scope: str, family: str, *key: str) -> list[Record]:
        rows = await self._link.run("get", keys_of(scope, "h", f"r:{family}"), *key)
        found = [Record(name.decode(), int(version), body) for name, version, body in rows]
        return sorted(found, key=lambda record: record.key)

    async def get(self, scope: str, family: str, key: str) -> Record | None:
        found = await self._found(scope, family, key)
        return found[0] if found else None

    async def records(self, scope: str, family: str) -> list[Record]:
        return await self._found(scope, family)

    async def put(
        self, scope: str, family: str, key: str, body: bytes, version: int, ttl_s: float = 0.0
    ) -> int:
        for name in (scope, family, key):
            check_name(name)
        return await self._change(scope, family, key, version, int(ttl_s * 1000), body)

    async def drop(self, scope: str, family: str, key: str, version: int) -> None:
        await self._change(scope, family, key, version, 0, None)

    async def _change(
        self, scope: str, family: str, key: str, version: int, ttl_ms: int, body: bytes | None
    ) -> int:
        is_session = not scope.startswith("\x1f")
        if is_session and body is not None:
            await self._index(scope)
        answer = await self._link.run(
            "put",
            keys_of(scope, "h", f"r:{family}", f"x:{family}", "families"),
            *(int(is_session), key, version, ttl_ms, int(body is None), body or b"", family),
            *(channel(prefix(scope)), _encode(Signal(scope))),
            repeat=False,
        )
        if answer[0] == b"deleted":
            raise SessionDeleted(scope)
        if answer[0] == b"conflict":
            raise Conflict(key, int(answer[1]), answer[2])
        return int(answer[1])

    def listen(self, session: str, listener: Listener) -> Callable[[], None]:
        return self._listeners.add(session, listener)

    async def listening(self, session: str) -> None:
        await self._signals.subscribe(session, channel(prefix(session)))

    def publish(self, session: str, body: bytes) -> None:
        if len(body) > SIGNAL_MAX_BYTES:
            raise ValueError(f"a signal has at most {SIGNAL_MAX_BYTES} bytes")
        self._signals.publish(channel(prefix(session)), Signal(session, 0, body))

    async def sessions(self, after: str = "", limit: int = 100) -> list[SessionInfo]:
        infos: list[SessionInfo] = []
        while len(infos) < limit:
            names = await self._names(after, limit - len(infos))
            if not names:
                break
            after = names[-1].decode()
            found = await asyncio.gather(*(self._info(name.decode()) for name in names))
            infos += [info for info in found if info is not None]
        return infos

    async def _names(self, after: str, count: int) -> list[bytes]:
        start = b"(" + after.encode() if after else b"-"
        found: list[bytes] = await self._link.command(
            "zrangebylex", SESSIONS, start, b"+", 0, count
        )
        return found

    async def _info(self, session: str) -> SessionInfo | None:
        values = await self._link.command(
            "hmget", prefix(session) + "h", ["created", "changed", "head", "deleted"]
        )
        if values[0] is None or values[3] is not None:
            return None
        return SessionInfo(session, *(int(value) for value in values[:3]))

    async def detail(self, session: str) -> SessionDetail | None:
        head, info = await self.head(session), await self._info(session)
        if head is None or info is None:
            return None
        names = await self._link.command("hkeys", prefix(session) + "h")
        tracks = sorted(name[2:].decode() for name in names if name.startswith(b"f:"))
        return SessionDetail(info, head, tuple(tracks))

    async def delete(self, session: str) -> bool:
        return await self._delete(session, None)

    async def _delete(self, session: str, unchanged_ms: int | None) -> bool:
        answer = await self._link.run(
            "delete",
            keys_of(session, "h", "l", "o", "d", "families"),
            *(prefix(session), int(TOMBSTONE_S * 1000)),
            *(channel(prefix(session)), _encode(Signal(session))),
            "" if unchanged_ms is None else unchanged_ms,
            shown=True,
        )
        if answer[0] != b"ok":
            return False
        self._known.discard(session)
        await self._link.command("zrem", SESSIONS, session)
        await self._outbox.forget(session)
        return True

    async def expire(self, unchanged_s: float, limit: int = MAX_EXPIRED) -> list[str]:
        await self._outbox.forget_letters()
        gone: list[str] = []
        after, before_ms = "", now_ms() - int(unchanged_s * 1000)
        while page := await self.sessions(after, 200):
            after = page[-1].name
            for info in page:
                if info.changed_ms <= before_ms and await self._delete(
                    info.name, int(unchanged_s * 1000)
                ):
                    gone.append(info.name)
                if len(gone) >= limit:
                    return gone
        return gone

    async def claim(self, owner: str, limit: int = 100, lease_s: float = 30.0) -> list[OutboxRow]:
        return await self._outbox.claim(owner, limit, lease_s)

    async def ack(self, owner: str, rows: Sequence[OutboxRow]) -> None:
        await self._outbox.settle(owner, "ack", rows)

    async def retry(self, owner: str, row: OutboxRow, delay_s: float) -> None:
        await self._outbox.settle(owner, "retry", [row], int(delay_s * 1000))

    async def bury(self, owner: str, row: OutboxRow, reason: str) -> None:
        await self._outbox.settle(owner, "bury", [row], reason)

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        return await self._outbox.dead_letters(limit)

    async def redrive(self, letters: Sequence[DeadLetter]) -> int:
        return await self._outbox.redrive(letters)

    async def outbox_size(self) -> int:
        return await self._outbox.size()

    async def oldest_ms(self) -> int | None:
        return await self._outbox.oldest_ms()

    async def hasten(self, ahead_s: float) -> None:
        await self._outbox.hasten(ahead_s)

    async def shed(self, keep: int) -> int:
        return await self._outbox.shed(keep)


def entry(name: bytes, fields: Sequence[bytes]) -> Entry:
    """A stream's entry as one of ours."""
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    kind: Any = values[b"k"].decode()
    return Entry(
        int(name.partition(b"-")[0]),
        kind,
        values[b"t"].decode(),
        int(values[b"f"]),
        int(values[b"a"]),
        values[b"b"],
    )
