"""Chunks into the object store, and what is stored into the record of their role.

Comes in: chunks of a role, over any number of sockets and workers. Goes out: an object and a
changed record for each that is new. The object is written first, only where there is none: whoever
writes it has stored the chunk, whoever counts it. What a worker wrote that died before it counted
is counted by the next one to use the role.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from functools import partial
from typing import Literal

import msgspec

from edge.errors import ChunkRefused, ObjectExists, SessionDeleted
from edge.meeting.book import FAMILY, INGEST, Book, Versioned
from edge.meeting.keys import chunk_key, chunk_prefix
from edge.meeting.records import CHUNK_BYTES, RATE_HZ, ROLES, Ingest, Role
from edge.meeting.sequence import doubled, first_missing, judge, stored, uncounted
from edge.meeting.settings import MeetingSettings
from edge.meeting.status import Ingests, ingest_status
from edge.objects.interface import ObjectStore
from edge.session.store.interface import SessionStore

PAGE = 1000


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One second of a role's audio as it came, or the shorter rest of it that is ``final``."""

    seq: int
    timestamp_ms: float
    """The client's own time, kept with the object and used for nothing."""
    content: str | bytes
    """Base64, or the samples themselves."""
    final: bool = False

    def pcm(self) -> bytes:
        """The samples; raises ``ChunkRefused`` when they cannot be read or have a wrong length."""
        pcm = self.content
        if isinstance(pcm, str):
            try:
                pcm = base64.b64decode(pcm, validate=True)
            except (binascii.Error, ValueError):
                raise ChunkRefused("bad_audio", "content_b64 is not base64") from None
        size = len(pcm)
        if size == CHUNK_BYTES or (self.final and 0 < size < CHUNK_BYTES and size % 2 == 0):
            return pcm
        rule = f"a chunk has {CHUNK_BYTES} bytes, the last of a stream, with final, may have fewer"
        raise ChunkRefused("bad_audio", f"{rule}, in whole samples; this one has {size}")


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a chunk, and what is stored of its role now."""

    status: Literal["stored", "duplicate"]
    seq: int
    key: str
    pcm: bytes
    """Of one that is stored."""
    ingest: Ingest


class Desk:
    """One worker's way to one role's chunks; one chunk at a time."""

    def __init__(
        self, book: Book, objects: ObjectStore, session: str, role: Role, max_seq_jump: int
    ) -> None:
        self.session = session
        self.role = role
        self.users = 0
        self._book = book
        self._objects = objects
        self._leaf = INGEST[role]
        self._max_seq_jump = max_seq_jump
        self._turn = asyncio.Lock()
        self._known: Versioned[Ingest] | None = None
        """None until what a dead worker left uncounted is counted."""

    @property
    def ingest(self) -> Ingest:
        """What is stored as far as this worker knows."""
        return self._known.value if self._known else self._leaf.default

    async def take(self, chunk: Chunk) -> Taken:
        """Store a chunk, durable and counted when this returns.

        Raises ``ChunkRefused``; what the object store and the session store raise, and then it
        may be sent again: it is stored and counted once.
        """
        async with self._turn:
            try:
                return await self._take(chunk)
            except SessionDeleted:
                self._known = None
                raise

    async def status(self) -> Ingest:
        """What is stored now, over all workers."""
        async with self._turn:
            if self._known is None:
                self._known = await self._recount()
            else:
                self._known = await self._book.look(self.session, self._leaf)
            return self._known.value

    async def _take(self, chunk: Chunk) -> Taken:
        if self._known is None:
            self._known = await self._recount()
        seq, key = chunk.seq, chunk_key(self.session, self.role, chunk.seq)
        if self.ingest.has(seq) and (taken := await self._double(seq, key)):
            return taken
        verdict = judge(self.ingest, seq, self._max_seq_jump)
        if verdict != "new":
            self._known = await self._book.look(self.session, self._leaf)
            verdict = judge(self.ingest, seq, self._max_seq_jump)
        if verdict == "seq_jump":
            limit = f"{self._max_seq_jump} ahead of the last one, {self.ingest.last_seq}"
            raise ChunkRefused(verdict, f"chunk {seq} is too far ahead: at most {limit}")
        if verdict == "too_many_gaps":
            raise ChunkRefused(verdict, "too many chunks are missing; send those first")
        pcm = chunk.pcm()
        try:
            await self._objects.put(key, pcm, metadata=self._metadata(chunk), only_new=True)
        except ObjectExists:
            pcm, is_ours = await self._held(key, pcm)
        else:
            is_ours = True
        known = await self._count(seq, len(pcm))
        if not is_ours and (taken := await self._double(seq, key)):
            return taken
        return Taken(status="stored", seq=seq, key=key, pcm=pcm, ingest=known.value)

    async def _held(self, key: str, pcm: bytes) -> tuple[bytes, bool]:
        """What there is under a key already, and whether it is what came now.

        It is when an earlier attempt was stored and the answer was lost.
        """
        held = await self._objects.get(key)
        return held, held == pcm

    async def _count(self, seq: int, size: int) -> Versioned[Ingest]:
        self._known = await self._book.change(
            self.session, self._leaf, lambda ingest: stored(ingest, seq, size), self._known
        )
        return self._known

    async def _double(self, seq: int, key: str) -> Taken | None:
        """Count a chunk that is stored already; None when it is not."""
        known = self._known = await self._book.change(
            self.session,
            self._leaf,
            lambda ingest: doubled(ingest) if ingest.has(seq) else ingest,
            self._known,
        )
        if not known.value.has(seq):
            return None
        return Taken(status="duplicate", seq=seq, key=key, pcm=b"", ingest=known.value)

    async def _recount(self) -> Versioned[Ingest]:
        """The record, with what is in the object store and was not counted."""
        known = await self._book.look(self.session, self._leaf)
        for seq in uncounted(known.value, await self._found(first_missing(known.value))):
            size = len(await self._objects.get(chunk_key(self.session, self.role, seq)))
            known = await self._book.change(
                self.session, self._leaf, partial(stored, seq=seq, size=size), known
            )
        return known

    async def _found(self, first: int) -> list[int]:
        """The numbers of the chunks in the object store, those from ``first`` on."""
        prefix = chunk_prefix(self.session, self.role)
        after = chunk_key(self.session, self.role, first - 1)
        found: list[int] = []
        while page := await self._objects.find(prefix, after, PAGE):
            for key in page:
                name = key.removeprefix(prefix).removesuffix(".pcm")
                if name.isdecimal():
                    found.append(int(name))
            after = page[-1]
            if len(page) < PAGE or not after.removeprefix(prefix)[0].isdecimal():
                break
        return found

    def _metadata(self, chunk: Chunk) -> dict[str, str]:
        return {
            "session_id": self.session,
            "stream_role": self.role,
            "meeting_id": self.session,
            "seq": str(chunk.seq),
            "timestamp_ms": f"{chunk.timestamp_ms:.15g}",
            "sample_rate": str(RATE_HZ),
            "channels": "1",
            "format": "pcm_s16le",
        }


class Desks:
    """One worker's desks; those that nobody uses are forgotten."""

    def __init__(
        self, store: SessionStore, objects: ObjectStore, settings: MeetingSettings
    ) -> None:
        self._store = store
        self._book = Book(store)
        self._objects = objects
        self._settings = settings
        self._desks: dict[tuple[str, Role], Desk] = {}

    def desk(self, session: str, role: Role) -> Desk:
        """The desk of a role; to be given back with ``leave``."""
        desk = self._desks.get((session, role))
        if desk is None:
            jump = self._settings.max_seq_jump
            desk = Desk(self._book, self._objects, session, role, jump)
            self._desks[session, role] = desk
        desk.users += 1
        return desk

    def leave(self, desk: Desk) -> None:
        """One user needs it no longer."""
        desk.users -= 1
        if not desk.users:
            del self._desks[desk.session, desk.role]

    async def ingests(self, session: str) -> Ingests:
        """The status objects of all roles; raises what the session store raises."""
        bodies = {each.key: each.body for each in await self._store.records(session, FAMILY)}
        found = {}
        for role in ROLES:
            leaf = INGEST[role]
            ingest = leaf.decode(bodies[leaf.key]) if leaf.key in bodies else leaf.default
            found[role] = ingest_status(session, role, ingest)
        return Ingests(**found)
