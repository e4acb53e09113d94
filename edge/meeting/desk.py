"""A worker's desks, where the chunks of a role are put down: into the object store, then counted.

Comes in: chunks from the sockets of a role. Goes out: what became of each. Sockets on other workers
put chunks of the same role down, too: the record's compare-and-set decides what counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Literal
from urllib.parse import quote

import msgspec

from edge.errors import (
    ObjectError,
    ObjectExists,
    ObjectMissing,
    ObjectsUnavailable,
    SessionDeleted,
)
from edge.meeting import sequence
from edge.meeting.book import INGEST, Book, Versioned
from edge.meeting.keys import chunk_key, chunk_prefix, seq_of
from edge.meeting.records import RATE_HZ, Ingest, Role
from edge.objects.interface import ObjectStore
from edge.session.store.interface import SessionStore

PAGE = 1000
COUNTED_WITHIN_S = 0.5
"""A worker that lives counts what it has stored long before."""
LOOK_S = 0.02


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A second of a role's audio, or what was left at the end of its stream."""

    seq: int
    pcm: bytes
    timestamp_ms: float
    """When it was recorded, by its sender's clock: kept beside it, never counted with."""


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a chunk, and where the role stands after it."""

    status: Literal["stored", "duplicate"]
    key: str
    ingest: Ingest


class Desk:
    """One role's, shared by its sockets in this worker; made by ``Desks``."""

    def __init__(
        self, book: Book, objects: ObjectStore, session: str, role: Role, max_jump: int
    ) -> None:
        self.users = 0
        self._book = book
        self._objects = objects
        self.session = session
        self.role: Role = role
        self._max_jump = max_jump
        self._turn = asyncio.Lock()
        self._known: Versioned[Ingest] | None = None
        self._is_counted = False

    @property
    def ingest(self) -> Ingest:
        """Where the role stands, as far as this worker knows without asking."""
        return self._known.value if self._known else Ingest()

    async def status(self) -> Ingest:
        """Where the role stands, whoever put down what."""
        async with self._turn:
            if not self._is_counted:
                with contextlib.suppress(ObjectError):
                    return (await self._count()).value
                # The object store is away: what it may hold besides is counted later.
                return await self._book.read(self.session, INGEST[self.role])
            self._known = await self._book.look(self.session, INGEST[self.role])
            return self._known.value

    async def has(self, seq: int) -> bool:
        """Whether a chunk is stored, as far as this worker knows."""
        async with self._turn:
            known = self._known or await self._begin()
            return known.value.has(seq)

    async def repeat(self, seq: int) -> Taken:
        """Count a chunk that is stored already."""
        async with self._turn:
            self._known = await self._book.change(
                self.session, INGEST[self.role], sequence.repeat, self._known
            )
            key = chunk_key(self.session, self.role, seq)
            return Taken(status="duplicate", key=key, ingest=self._known.value)

    async def take(self, chunk: Chunk, sent_seq: int = 0) -> Taken:
        """Put a chunk down; one after another, in the order of the calls.

        ``sent_seq``: the last chunk that the recognizer has got. Raises ``ChunkRefused``,
        ``ObjectsUnavailable`` and what the session store raises; nothing is counted then, and the
        same chunk may come again.
        """
        key = chunk_key(self.session, self.role, chunk.seq)
        status: Literal["stored", "duplicate"] = "duplicate"

        def enter(ingest: Ingest) -> Ingest:
            nonlocal status
            if sequence.judge(ingest, chunk.seq, self._max_jump) == "duplicate":
                status = "duplicate"
                return sequence.repeat(ingest)
            status = "stored"
            entered = sequence.store(ingest, chunk.seq, len(chunk.pcm))
            return msgspec.structs.replace(entered, sent_seq=max(entered.sent_seq, sent_seq))

        async with self._turn:
            known = self._known or await self._begin()
            if sequence.judge(known.value, chunk.seq, self._max_jump) == "new":
                known = await self._put(key, chunk, known)
            try:
                known = await self._book.change(self.session, INGEST[self.role], enter, known)
            except SessionDeleted:
                await self._objects.remove([key])
                raise
            self._known = known
        return Taken(status=status, key=key, ingest=known.value)

    async def _put(self, key: str, chunk: Chunk, known: Versioned[Ingest]) -> Versioned[Ingest]:
        """Store a chunk, unless another worker has; the record as it is known then."""
        metadata = {
            "session_id": quote(self.session),
            "stream_role": self.role,
            "meeting_id": quote(self.session),
            "seq": str(chunk.seq),
            "timestamp_ms": f"{chunk.timestamp_ms:.0f}",
            "sample_rate": str(RATE_HZ),
            "channels": "1",
            "format": "pcm_s16le",
        }
        try:
            await self._objects.put(key, chunk.pcm, metadata=metadata, only_new=True)
        except ObjectExists:
            known = await self._counted(key, chunk)
            if not known.value.has(chunk.seq):
                # Left by one that died, or lost the store, before it was counted.
                await self._objects.put(key, chunk.pcm, metadata=metadata)
        return known

    async def _counted(self, key: str, chunk: Chunk) -> Versioned[Ingest]:
        """The record once whoever stored other audio under this number has counted it, if soon."""
        give_up_s = time.monotonic() + COUNTED_WITHIN_S
        known = await self._book.look(self.session, INGEST[self.role])
        while not known.value.has(chunk.seq) and time.monotonic() < give_up_s:
            with contextlib.suppress(ObjectMissing):
                if await self._objects.get(key) == chunk.pcm:
                    break
            await asyncio.sleep(LOOK_S)
            known = await self._book.look(self.session, INGEST[self.role])
        return known

    async def _begin(self) -> Versioned[Ingest]:
        """The record to go on from, though the object store may be away: what it may hold besides
        is counted with the next status."""
        try:
            return await self._count()
        except ObjectsUnavailable:
            self._known = await self._book.look(self.session, INGEST[self.role])
            return self._known

    async def _count(self) -> Versioned[Ingest]:
        """The record, with what a worker that died had stored and not counted."""
        known = await self._book.look(self.session, INGEST[self.role])
        sizes = {seq: size async for seq, size in self._uncounted(known.value)}

        def enter(ingest: Ingest) -> Ingest:
            for seq, size in sizes.items():
                if not ingest.has(seq):
                    ingest = sequence.store(ingest, seq, size)
            return ingest

        self._known = await self._book.change(self.session, INGEST[self.role], enter, known)
        self._is_counted = True
        return self._known

    async def _uncounted(self, ingest: Ingest) -> AsyncIterator[tuple[int, int]]:
        """Number and bytes of the chunks that are stored and not in the record."""
        prefix = chunk_prefix(self.session, self.role)
        first = ingest.missing[0][0] if ingest.missing else ingest.last_seq + 1
        after = chunk_key(self.session, self.role, first - 1)
        while keys := await self._objects.find(prefix, after, PAGE):
            for after in keys:
                seq = seq_of(after) if "/" not in after[len(prefix) :] else None
                if seq is None:
                    return  # of mixed: what follows are the folders of the other roles
                if not ingest.has(seq):
                    with contextlib.suppress(ObjectMissing):
                        yield seq, len(await self._objects.get(after))


class Desks:
    """The desks of one worker; there is one for each role while a socket of it is open."""

    def __init__(self, store: SessionStore, objects: ObjectStore, max_jump: int) -> None:
        self._book = Book(store)
        self._objects = objects
        self._max_jump = max_jump
        self._desks: dict[tuple[str, Role], Desk] = {}

    def enter(self, session: str, role: Role) -> Desk:
        """The desk of a role; ``leave`` it in the end."""
        desk = self._desks.get((session, role))
        if desk is None:
            desk = Desk(self._book, self._objects, session, role, self._max_jump)
            self._desks[session, role] = desk
        desk.users += 1
        return desk

    def leave(self, desk: Desk) -> None:
        """A socket has gone."""
        desk.users -= 1
        if desk.users == 0:
            del self._desks[desk.session, desk.role]
