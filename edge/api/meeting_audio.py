"""``GET /v1/sessions/{session}/audio``: the stored chunks of a role as a WAV file."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated

import msgspec

from edge.api.http import ApiError, Call, Streamed
from edge.api.parameters import ROLE, count
from edge.meeting.audio import Recording
from edge.meeting.book import INGEST, Book
from edge.meeting.records import Role
from edge.objects.interface import ObjectStore
from edge.session.names import safe_name

WAV = "audio/wav"
AUDIO_DEADLINE_S = 30.0
"""For the first of it."""


class AudioQuery(msgspec.Struct, frozen=True):
    """The query of a recording."""

    stream_role: Annotated[Role, ROLE] = "mixed"
    from_seq: Annotated[int, count(1)] = 1
    to_seq: Annotated[int | None, count(None)] = None


class AudioEndpoint:
    """Answers for one worker."""

    def __init__(self, book: Book, objects: ObjectStore) -> None:
        self._book = book
        self._objects = objects

    async def get(self, call: Call[AudioQuery, None]) -> Streamed:
        """The chunks of a range, missing ones as silence; 404 when none of them is stored."""
        query, role = call.query, call.query.stream_role
        ingest = await self._book.read(call.session, INGEST[role])
        first = query.from_seq
        last = min(query.to_seq or ingest.last_seq, ingest.last_seq)
        if first > last or any(a <= first and last <= b for a, b in ingest.missing):
            raise ApiError(404, "no_audio", "No audio of this range is stored")
        recording = Recording(self._objects, call.session, role, ingest, first, last)
        name = f"{safe_name(call.session)}-{role}.wav"
        parts = recording.body()
        # An object store that is away is told before an answer begins.
        begun = [await anext(parts), await anext(parts)]
        return Streamed(
            content_type=WAV,
            parts=_all(begun, parts),
            headers={
                "Content-Disposition": f'attachment; filename="{name}"',
                "Content-Length": str(recording.size_bytes),
            },
        )


async def _all(
    begun: Sequence[bytes], rest: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        for part in begun:
            yield part
        async for part in rest:
            yield part
