"""The outbox in Redis: a stream a session, and an index of the sessions in which something waits.

The index lies in another slot of a Cluster, so it cannot change in the same step. It is therefore
set before rows are added, and a session found empty leaves it only after a grace longer than any
call.
"""

from __future__ import annotations

import heapq
import math
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from edge.session.store.interface import (
    DEAD_LETTERS_KEPT_S,
    MAX_SHED,
    DeadLetter,
    OutboxRow,
    now_ms,
)
from edge.session.store.redis_link import RedisLink

WAITING = "edgescribe:waiting"
DEAD = "edgescribe:dead"
AT_ONCE = 1 << 40
"""Scores below mean now on every clock; each is another one, so that a change is noticed."""
GRACE_MS = 60_000
SET_BACK_MS = 2000
PATIENCE_S = 60.0
"""No lease or delay is longer, but for those that a target asks for."""
MAX_HASTENED = 100_000
MARKED = 0.5
"""Added to the score of a session that was found empty once."""

Keys = Callable[..., list[str]]


class RedisOutbox:
    """Leases, settles and buries rows; all scores of the index are ms since 1970."""

    def __init__(self, link: RedisLink, keys_of: Keys) -> None:
        self._link = link
        self._keys_of = keys_of
        self._ahead_ms = -math.inf
        """The server's clock against the monotonic one of this machine."""

    async def _command(self, name: str, *args: Any, **options: Any) -> Any:
        return await self._link.command(name, *args, **options)

    async def expect(self, session: str) -> None:
        """Something waits in this session, or will at once."""
        await self._command("zadd", WAITING, {session: secrets.randbelow(AT_ONCE)})

    async def forget(self, session: str) -> None:
        await self._command("zrem", WAITING, session)
        await self._command("zrem", DEAD, session)

    async def _due(self, limit: int, ahead_ms: int | str = "") -> list[tuple[str, float]]:
        """Sessions and their scores: those that are due, or those that are later than ahead."""
        now_ms, *found = await self._link.index("due", WAITING, limit, ahead_ms)
        await self._watch_clock(int(now_ms))
        return [
            (name.decode(), float(score))
            for name, score in zip(found[::2], found[1::2], strict=True)
        ]

    async def _watch_clock(self, now_ms: int) -> None:
        """What waits by a server's clock that was set back would wait for too long."""
        ahead_ms = now_ms - time.monotonic() * 1000
        set_back_ms, self._ahead_ms = self._ahead_ms - ahead_ms, ahead_ms
        if set_back_ms > SET_BACK_MS:
            await self.hasten(PATIENCE_S)

    async def claim(self, owner: str, limit: int, lease_s: float) -> list[OutboxRow]:
        due = await self._due(limit)
        claimed: list[OutboxRow] = []
        for name, score in due:
            if len(claimed) >= limit:
                break
            room = limit - len(claimed)
            claimed += await self._claim_one(name, score, owner, room, lease_s)
        return claimed

    async def _claim_one(
        self, session: str, score: float, owner: str, limit: int, lease_s: float
    ) -> list[OutboxRow]:
        answer = await self._link.run(
            "claim", self._keys_of(session, "h", "o"), owner, limit, int(lease_s * 1000)
        )
        if answer[0] == b"busy":
            await self._link.index("move_due", WAITING, session, score, int(answer[1]))
            return []
        if not answer[2]:
            again = "" if score % 1 else int(answer[1]) + GRACE_MS + MARKED
            await self._link.index("move_due", WAITING, session, score, again)
            return []
        await self._link.index("move_due", WAITING, session, score, int(answer[1]))
        tries = answer[3].rpartition(b"=")
        rows = []
        for name, fields in answer[2]:
            attempt = int(tries[2]) if name == tries[0] else 0
            rows.append(outbox_row(session, name, fields, attempt))
        return rows

    async def settle(
        self, owner: str, what: str, rows: Sequence[OutboxRow], detail: Any = ""
    ) -> int:
        by_session: dict[str, list[str]] = {}
        for row in rows:
            by_session.setdefault(row.session, []).append(f"{row.number}-0")
        gone = 0
        for session, ids in by_session.items():
            if what == "bury":
                await self._command("zadd", DEAD, {session: now_ms()})
            keys = self._keys_of(session, "h", "o", "d")
            answer = await self._link.run("settle", keys, owner, what, detail, *ids)
            if answer[0] == b"ok" and int(answer[1]):
                await self._command("zadd", WAITING, {session: int(answer[1])})
            elif answer[0] == b"ok":
                await self.expect(session)
            gone += int(answer[2])
        return gone

    async def _sessions(self, index: str) -> list[str]:
        return [name.decode() for name in await self._command("zrange", index, 0, -1)]

    async def _letters(self, session: str) -> list[DeadLetter]:
        found = await self._command("hgetall", self._keys_of(session, "d")[0])
        return [dead_letter(session, name, value) for name, value in found.items()]

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        letters: list[DeadLetter] = []
        for session in await self._sessions(DEAD):
            letters += await self._letters(session)
        letters.sort(key=lambda letter: (letter.died_ms, letter.row.number))
        return letters[:limit]

    async def redrive(self, letters: Sequence[DeadLetter]) -> int:
        count = 0
        for letter in letters:
            session = letter.row.session
            await self.expect(session)
            keys = self._keys_of(session, "h", "o", "d")
            count += await self._link.run("redrive", keys, f"{letter.row.number}-0", repeat=False)
            await self.expect(session)
        return count

    async def forget_letters(self) -> None:
        """Forget dead letters that were kept long enough, and sessions that have none."""
        before_ms = now_ms() - int(DEAD_LETTERS_KEPT_S * 1000)
        for session in await self._sessions(DEAD):
            key = self._keys_of(session, "d")[0]
            letters = await self._letters(session)
            old = [letter for letter in letters if letter.died_ms <= before_ms]
            if old:
                await self._command("hdel", key, *(f"{letter.row.number}-0" for letter in old))
            if len(old) == len(letters):
                await self._command("zremrangebyscore", DEAD, "-inf", before_ms)

    async def _waiting(self) -> dict[str, str]:
        """The streams in which something may wait, and whose they are."""
        return {self._keys_of(name, "o")[0]: name for name in await self._sessions(WAITING)}

    async def size(self) -> int:
        return sum(await self._link.each("xlen", list(await self._waiting())))

    async def oldest_ms(self) -> int | None:
        fronts = await self._link.each("xrange", list(await self._waiting()), count=1)
        return min((int(front[0][1][b"q"]) for front in fronts if front), default=None)

    async def hasten(self, ahead_s: float) -> None:
        for session, score in await self._due(MAX_HASTENED, int(ahead_s * 1000)):
            due_ms = int(self._ahead_ms + (time.monotonic() + ahead_s) * 1000)
            await self._command("hset", self._keys_of(session, "h")[0], "due", due_ms)
            await self._link.index("move_due", WAITING, session, score, due_ms)

    async def shed(self, keep: int) -> int:
        streams = await self._waiting()
        sizes = dict(zip(streams, await self._link.each("xlen", list(streams)), strict=True))
        filled = [key for key in streams if sizes[key]]
        over = min(sum(sizes.values()) - keep, MAX_SHED)
        if over <= 0:
            return 0
        # The oldest are spread over the sessions, somehow: pages of each, and more where those end.
        page = min(over, over // len(filled) * 2 + 8)
        fronts: list[tuple[int, int, str, int]] = []
        pages = await self._link.each("xrange", filled, count=page)
        for key, entries in zip(filled, pages, strict=True):
            fronts += ranked(key, entries)
        heapq.heapify(fronts)
        oldest: list[OutboxRow] = []
        while fronts and len(oldest) < over:
            enqueued_ms, number, key, left = heapq.heappop(fronts)
            oldest.append(OutboxRow(streams[key], number, 0, "", 0, enqueued_ms, b""))
            if not left:
                entries = await self._command("xrange", key, min=f"({number}-0", count=page)
                for each in ranked(key, entries):
                    heapq.heappush(fronts, each)
        return await self.settle("", "bury", oldest, "overflow")


def ranked(key: str, entries: Sequence[Any]) -> list[tuple[int, int, str, int]]:
    """Entries of one stream: when they came, their numbers, and how many follow in the page."""
    return [
        (int(fields[b"q"]), number_of(name), key, len(entries) - index)
        for index, (name, fields) in enumerate(entries, 1)
    ]


def number_of(name: bytes) -> int:
    return int(name.partition(b"-")[0])


def outbox_row(session: str, name: bytes, fields: Any, attempt: int) -> OutboxRow:
    """A stream's entry as a row; a script hands its fields out in a list, the client in a dict."""
    if not isinstance(fields, dict):
        fields = dict(zip(fields[::2], fields[1::2], strict=True))
    return OutboxRow(
        session,
        number_of(name),
        int(fields[b"o"]),
        fields[b"e"].decode(),
        attempt,
        int(fields[b"q"]),
        fields[b"b"],
    )


def dead_letter(session: str, name: bytes, value: bytes) -> DeadLetter:
    """offset:epoch:enqueued_ms:died_ms:length:reason, and the body after it."""
    offset, epoch, enqueued_ms, died_ms, length, rest = value.split(b":", 5)
    reason, body = rest[: int(length)].decode(), rest[int(length) :]
    row = OutboxRow(
        session, number_of(name), int(offset), epoch.decode(), 0, int(enqueued_ms), body
    )
    return DeadLetter(row, reason, int(died_ms))
