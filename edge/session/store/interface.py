"""The one interface of the session store, and what goes in and out of it.

Every method is safe to call from any task of the event loop that opened the store, and may be
cancelled: a cancelled write has either happened as a whole or not at all. Engines raise
``StoreUnavailable`` when they cannot answer within their deadline (a write may then have happened)
and ``StoreBusy`` when their bounded queue is full (it has not).
"""

from __future__ import annotations

import asyncio
import secrets
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, Self

import msgspec

Kind = Literal["final", "event", "config", "finalized"]
Durability = Literal["normal", "full"]

MAX_NAME_BYTES = 256
MAX_PAGE = 1000
MAX_SHED = 1000
MAX_EXPIRED = 1000
SIGNAL_MAX_BYTES = 32768
MADE = "/session"
"""The track that is opened to make a session; nothing is written to it."""
TOMBSTONE_S = 7 * 86400.0
DEAD_LETTERS_KEPT_S = 4 * 86400.0


class Draft(msgspec.Struct, frozen=True):
    """An entry before the store has numbered it. ``body`` is encoded by whoever reads it."""

    kind: Kind
    body: bytes


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One entry of a session's log.

    ``offset`` counts 1, 2, 3 … without a hole; ``track`` is empty and ``fence`` 0 for an entry that
    no track wrote; ``at_ms`` is the store's wall clock, ms since 1970.
    """

    offset: int
    kind: Kind
    track: str
    fence: int
    at_ms: int
    body: bytes


class Head(msgspec.Struct, frozen=True):
    """Where a session's log stands: it holds the offsets ``tail`` to ``head`` of ``epoch``."""

    epoch: str
    tail: int
    head: int


class Page(msgspec.Struct, frozen=True):
    """Consecutive entries, and where the log stood when they were read."""

    head: Head
    entries: Sequence[Entry]


class Resumed(msgspec.Struct, frozen=True):
    """Where a session stands for one that was there before; ``recovered``: nothing is missing."""

    head: Head
    recovered: bool


class Grant(msgspec.Struct):
    """The right to write one track, until someone opens the track again.

    ``acked`` is the last offset the store confirmed to this holder: should the log ever be
    shorter, the store has lost history. ``batch`` counts its appends, so that one that is repeated
    after an unknown outcome is done once. Keep the object, appends move both.
    """

    session: str
    track: str
    fence: int
    epoch: str
    acked: int
    batch: int = 0
    turn: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)


class Record(msgspec.Struct, frozen=True):
    """A small mutable value; ``version`` counts its changes and must be named to change it."""

    key: str
    version: int
    body: bytes


class SessionInfo(msgspec.Struct, frozen=True):
    """One line of the list of sessions; times in ms since 1970."""

    name: str
    created_ms: int
    changed_ms: int
    head: int


class SessionDetail(msgspec.Struct, frozen=True):
    """What there is to know of one session without reading its log."""

    info: SessionInfo
    place: Head
    tracks: tuple[str, ...]
    """Names of the tracks that were ever opened, sorted."""


class OutboxRow(msgspec.Struct, frozen=True):
    """A message that waits for delivery.

    ``number`` orders the rows of a session, ``attempt`` counts earlier deliveries that failed,
    ``session:offset`` is the message id of redeliveries.
    """

    session: str
    number: int
    offset: int
    epoch: str
    attempt: int
    enqueued_ms: int
    body: bytes


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that was given up: why, and when (ms since 1970)."""

    row: OutboxRow
    reason: str
    died_ms: int


class Signal(msgspec.Struct, frozen=True, array_like=True):
    """A nudge about a session, at most once: its log grew to ``head``, or something was published.

    ``head`` 0 says nothing about the log. An empty ``session`` means: look again at everything.
    """

    session: str
    head: int = 0
    body: bytes = b""


Listener = Callable[[Signal], None]
"""Called on the event loop; must neither block nor raise."""


def now_ms() -> int:
    """The wall clock, ms since 1970."""
    return time.time_ns() // 1_000_000


def new_epoch() -> str:
    """A history's name, never given twice."""
    return secrets.token_hex(8)


def shared_scope(name: str) -> str:
    """A place for records that belong to no session; no session can have this name."""
    return f"\x1f{name}"


def check_name(name: str) -> str:
    """A name of a session, track or record within its bounds, or ``ValueError``."""
    if not 1 <= len(name.encode()) <= MAX_NAME_BYTES:
        raise ValueError(f"a name has 1 to {MAX_NAME_BYTES} bytes")
    return name


def check_drafts(drafts: Sequence[Draft], outbox: Sequence[tuple[int, bytes]]) -> None:
    """Refuse what could not be appended: too much, nothing, messages of no draft."""
    if not 1 <= len(drafts) <= MAX_PAGE:
        raise ValueError(f"1 to {MAX_PAGE} entries are appended at once")
    if any(not 0 <= index < len(drafts) for index, _ in outbox):
        raise ValueError("an outbox row belongs to one of the drafts beside it")


def digest(drafts: Sequence[Draft]) -> int:
    """Tells a repeated append from another one."""
    total = 0
    for draft in drafts:
        total = zlib.crc32(draft.body, zlib.crc32(draft.kind.encode(), total))
    return total


class SessionStore(ABC):
    """What both engines do, and all the rest of the room is built on."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @abstractmethod
    async def open(self) -> None:
        """Connect; raises ``StoreUnavailable`` or ``StoreDamaged`` with what to do about it."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what was asked for (bounded) and let go."""

    @abstractmethod
    async def open_track(self, session: str, track: str) -> Grant:
        """Take the track over from whoever had it; creates the session when there is none.

        The fence is above all earlier ones of the session. Raises ``SessionDeleted``.
        """

    async def ensure(self, session: str) -> Head:
        """Where the log stands; a session that is not there is made.

        Raises ``SessionDeleted`` for one that was deleted: without that, one that is not there any
        more was lost by the store.
        """
        while (head := await self.head(session)) is None:
            await self.open_track(session, MADE)
        return head

    async def append(
        self, grant: Grant, drafts: Sequence[Draft], outbox: Sequence[tuple[int, bytes]] = ()
    ) -> int:
        """Append all drafts and outbox rows in one atomic step; returns the offset of the last.

        ``outbox`` pairs the index of a draft with the message that goes out for it. Appends of one
        grant are done one at a time, in the order of the calls. Raises ``StaleFence`` when the
        track was opened again, ``HistoryLost`` when the log is not the one the grant was given for
        (a new epoch then says so), ``SessionDeleted``. After ``StoreUnavailable`` append the same
        again: what has happened already is not done twice.
        """
        check_drafts(drafts, outbox)
        async with grant.turn:
            batch = f"{grant.batch + 1}:{digest(drafts):x}"
            last = await self._append(grant, batch, drafts, outbox)
            grant.batch += 1
            grant.acked = last
            return last

    async def note(self, session: str, drafts: Sequence[Draft]) -> int:
        """Append entries that no track writes (joins, configurations); never finals.

        Creates the session when there is none. After ``StoreUnavailable`` it may have happened.
        """
        check_drafts(drafts, ())
        if any(draft.kind == "final" for draft in drafts):
            raise ValueError("a final is appended with the grant of its track")
        return await self._append(Grant(session, "", 0, "", 0), "", drafts, ())

    @abstractmethod
    async def _append(
        self,
        grant: Grant,
        batch: str,
        drafts: Sequence[Draft],
        outbox: Sequence[tuple[int, bytes]],
    ) -> int:
        """The atomic step; a grant without a track is that of a ``note``."""

    @abstractmethod
    async def read(self, session: str, after: int, limit: int = MAX_PAGE) -> Page | None:
        """The entries that follow the offset ``after``, at most ``limit``; None: no such session.

        A GET never writes, whatever is asked.
        """

    @abstractmethod
    async def head(self, session: str) -> Head | None:
        """Where the log stands, None if there is no such session."""

    @abstractmethod
    async def resume(self, session: str, epoch: str, offset: int) -> Resumed | None:
        """Whether one who has seen ``offset`` of ``epoch`` can go on from there.

        An offset beyond the head of the same epoch proves that history was lost: the session gets
        a new epoch in the same step.
        """

    @abstractmethod
    async def clear(self, session: str) -> Head:
        """Forget the entries and start a new epoch; offsets go on counting."""

    @abstractmethod
    async def get(self, scope: str, family: str, key: str) -> Record | None:
        """A record of a session or a ``shared_scope``; expired ones are not there."""

    @abstractmethod
    async def records(self, scope: str, family: str) -> list[Record]:
        """All records of a family that have not expired, by key; at most 10,000."""

    @abstractmethod
    async def put(
        self, scope: str, family: str, key: str, body: bytes, version: int, ttl_s: float = 0.0
    ) -> int:
        """Replace version ``version`` (0: must not exist) and return the new one.

        With ``ttl_s`` the record expires that long after this put. Raises ``Conflict``, which
        carries the record that is there.
        """

    @abstractmethod
    async def drop(self, scope: str, family: str, key: str, version: int) -> None:
        """Remove version ``version`` of a record; gone already is fine, another is ``Conflict``."""

    @abstractmethod
    def listen(self, session: str, listener: Listener) -> Callable[[], None]:
        """Hear signals of a session; the answer ends it. Await ``listening`` to be sure of all."""

    @abstractmethod
    async def listening(self, session: str) -> None:
        """Return once nothing that happens from here on can escape the listeners of a session."""

    @abstractmethod
    def publish(self, session: str, body: bytes) -> None:
        """Tell all listeners of all workers something passing; at most once, never waits.

        For interims and nudges: lost when a queue is full. ``ValueError`` above
        ``SIGNAL_MAX_BYTES``.
        """

    @abstractmethod
    async def sessions(self, after: str = "", limit: int = 100) -> list[SessionInfo]:
        """Sessions by name, those that follow the name ``after``."""

    @abstractmethod
    async def detail(self, session: str) -> SessionDetail | None:
        """One session, None if there is none of this name."""

    @abstractmethod
    async def delete(self, session: str) -> bool:
        """Remove log, records, outbox rows and dead letters; a tombstone refuses late writers.

        True if there was something to remove. The name can be used again after ``TOMBSTONE_S``.
        """

    @abstractmethod
    async def expire(self, unchanged_s: float, limit: int = MAX_EXPIRED) -> list[str]:
        """Delete sessions that nobody changed for so long; forget old tombstones and dead letters.

        At most ``limit`` a call; returns the names, so that their audio can go too. Sessions with
        messages in the outbox stay.
        """

    @abstractmethod
    async def claim(self, owner: str, limit: int = 100, lease_s: float = 30.0) -> list[OutboxRow]:
        """Lease sessions with waiting messages; their rows in order, those of a session together.

        No other owner gets rows of a leased session before its lease ends or its rows are settled.
        """

    @abstractmethod
    async def ack(self, owner: str, rows: Sequence[OutboxRow]) -> None:
        """Delivered: forget these rows. Rows that another owner has leased since are left alone."""

    @abstractmethod
    async def retry(self, owner: str, row: OutboxRow, delay_s: float) -> None:
        """Failed: give the session back; its rows from this one on wait for ``delay_s``."""

    @abstractmethod
    async def bury(self, owner: str, row: OutboxRow, reason: str) -> None:
        """Give a row up; those after it go on."""

    @abstractmethod
    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """What was given up, oldest first."""

    @abstractmethod
    async def redrive(self, letters: Sequence[DeadLetter]) -> int:
        """Put dead letters back at the end of their sessions' outboxes; how many were there."""

    @abstractmethod
    async def outbox_size(self) -> int:
        """How many messages wait, those under a lease included."""

    @abstractmethod
    async def oldest_ms(self) -> int | None:
        """When the message that waits longest was put in, ms since 1970; None when none waits."""

    @abstractmethod
    async def hasten(self, ahead_s: float) -> None:
        """No session's messages are due later than so far ahead, leased or not.

        Clocks that leases and delays are told by may have been set back.
        """

    @abstractmethod
    async def shed(self, keep: int) -> int:
        """Give the oldest messages up with reason ``overflow`` until ``keep`` wait; how many.

        At most 1,000 a call.
        """
