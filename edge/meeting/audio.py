"""The audio of a role as it is stored: pieces of it, and WAV files of any length.

Comes in: the object store and which chunks a role has. Goes out: samples; what is missing is
silence of its length.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from msgspec import Struct

from edge.errors import ObjectMissing
from edge.meeting.keys import chunk_key
from edge.meeting.records import CHUNK_BYTES, Ingest, Role
from edge.meeting.wav import HEADER_BYTES, MOST_DATA_BYTES, header
from edge.objects.interface import ObjectStore

AT_ONCE = 8
"""Chunks that are asked for together."""


class Piece(Struct, frozen=True):
    """Some seconds of audio; ``missing`` are the chunks of them that were not there."""

    pcm: bytes
    missing: tuple[int, ...] = ()


def duration_bytes(ingest: Ingest, first: int, last: int) -> int:
    """How many bytes the chunks ``first`` to ``last`` of a role have, missing ones included."""
    whole = max(0, min(last, ingest.last_seq) - first + 1) * CHUNK_BYTES
    if ingest.short is not None and first <= ingest.last_seq <= last:
        seq, size = ingest.short
        whole -= CHUNK_BYTES - size if seq == ingest.last_seq else 0
    return whole


async def read(
    objects: ObjectStore, session: str, role: Role, ingest: Ingest, first: int, last: int
) -> Piece:
    """The samples of the chunks ``first`` to ``last``, at most to the end of what is stored.

    Raises what the object store raises, but for an object that is not there.
    """
    pieces: list[bytes] = []
    missing: list[int] = []
    for start in range(first, min(last, ingest.last_seq) + 1, AT_ONCE):
        seqs = range(start, min(start + AT_ONCE - 1, last, ingest.last_seq) + 1)
        found = await asyncio.gather(*(_chunk(objects, session, role, ingest, n) for n in seqs))
        for seq, body in zip(seqs, found, strict=True):
            size = duration_bytes(ingest, seq, seq)
            if body is None:
                missing.append(seq)
            pieces.append((body or b"")[:size].ljust(size, b"\0"))
    return Piece(b"".join(pieces), tuple(missing))


class Recording:
    """A WAV file of some chunks of a role, made while it is sent."""

    def __init__(
        self,
        objects: ObjectStore,
        session: str,
        role: Role,
        ingest: Ingest,
        from_seq: int = 1,
        to_seq: int | None = None,
    ) -> None:
        """Without ``to_seq`` it goes on to the end; a file holds 37 hours at most."""
        self._objects = objects
        self._session = session
        self._role = role
        self._ingest = ingest
        self._first = max(1, from_seq)
        last = ingest.last_seq if to_seq is None else min(to_seq, ingest.last_seq)
        self._last = min(last, self._first - 1 + MOST_DATA_BYTES // CHUNK_BYTES)
        self._data_bytes = duration_bytes(ingest, self._first, self._last)

    @property
    def size_bytes(self) -> int:
        """The length of the file."""
        return HEADER_BYTES + self._data_bytes

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The file in pieces of a few seconds, ``size_bytes`` in all; raises as ``read`` does."""
        yield header(self._data_bytes)
        for start in range(self._first, self._last + 1, AT_ONCE):
            last = min(start + AT_ONCE - 1, self._last)
            piece = await read(self._objects, self._session, self._role, self._ingest, start, last)
            yield piece.pcm


async def _chunk(
    objects: ObjectStore, session: str, role: Role, ingest: Ingest, seq: int
) -> bytes | None:
    if not ingest.has(seq):
        return None
    try:
        return await objects.get(chunk_key(session, role, seq))
    except ObjectMissing:
        return None
