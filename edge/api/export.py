"""``GET /v1/sessions/{session}/export``: what a session's log holds, as a file.

The log is read in pages up to where it stood when the request came, and sent as it is read. One
that is deleted or begins a new epoch meanwhile cuts the connection, so that nobody takes half of a
file for the whole.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Annotated, Literal

import msgspec

from edge.api.http import Call, Streamed
from edge.api.meeting_cues import meeting_cues
from edge.api.parameters import choice
from edge.api.sessions import no_session
from edge.api.subtitles import (
    Cue,
    Flattened,
    InOrder,
    clock,
    new_cue,
    srt_piece,
    vtt_piece,
)
from edge.api.times import iso
from edge.errors import HistoryLost, SessionDeleted
from edge.meeting.view import Views, role_of
from edge.session.entries import FinalEntry, decode_entry
from edge.session.names import safe_name
from edge.session.store.interface import Entry, Head, SessionStore

PAGE = 50
"""Entries read and rendered in one turn of the event loop."""

Format = Literal["srt", "vtt", "txt", "json"]
CONTENT_TYPES: dict[Format, str] = {
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
    "json": "application/json; charset=utf-8",
}


class ExportQuery(msgspec.Struct, frozen=True):
    """The query of an export."""

    format: Annotated[Format, choice(tuple(CONTENT_TYPES))] = "json"


class ExportedEntry(msgspec.Struct, frozen=True):
    """One entry of a log in a JSON export."""

    offset: int
    kind: str
    track: str
    """Empty for what no track wrote."""
    at: str
    """When it was stored."""
    entry: msgspec.Raw
    """What the entry says, a JSON object with a ``type``."""


class ExportedLog(msgspec.Struct, frozen=True):
    """A JSON export."""

    session_id: str
    epoch: str
    head: int
    """The last offset there was; ``entries`` goes up to it."""
    entries: list[ExportedEntry]


_json = msgspec.json.Encoder()


class Exporter:
    """Answers export requests of one worker."""

    def __init__(self, store: SessionStore, views: Views) -> None:
        self._store = store
        self._views = views

    async def export(self, call: Call[ExportQuery, None]) -> Streamed:
        """The log of a session in the format that was asked for; 404 when there is none."""
        head = await self._store.head(call.session)
        if head is None:
            raise no_session()
        kind = call.query.format
        name = f"{safe_name(call.session)}.{kind}"
        pages = read_pages(self._store, call.session, head)
        return Streamed(
            content_type=CONTENT_TYPES[kind],
            parts=_log(call.session, head, pages)
            if kind == "json"
            else _text(kind, pages, await meeting_cues(self._store, self._views, call.session)),
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )


async def read_pages(
    store: SessionStore, session: str, head: Head
) -> AsyncGenerator[list[Entry], None]:
    """All entries up to ``head``, a page at a time; ``HistoryLost`` and ``SessionDeleted``."""
    after = head.tail - 1
    while after < head.head:
        page = await store.read(session, after, PAGE)
        if page is None:
            raise SessionDeleted(session)
        entries = [entry for entry in page.entries if entry.offset <= head.head]
        if page.head.epoch != head.epoch or not entries:
            raise HistoryLost(session, page.head.epoch)
        after = entries[-1].offset
        yield entries


async def _log(
    session: str, head: Head, pages: AsyncGenerator[list[Entry], None]
) -> AsyncGenerator[bytes, None]:
    empty = _json.encode(ExportedLog(session, head.epoch, head.head, []))
    yield empty[:-2]
    separator = b"\n"
    async with aclosing(pages):
        async for page in pages:
            yield separator + b",\n".join(_json.encode(_exported(entry)) for entry in page)
            separator = b",\n"
    yield b"\n]}\n"


def _exported(entry: Entry) -> ExportedEntry:
    body = msgspec.Raw(entry.body)
    return ExportedEntry(entry.offset, entry.kind, entry.track, iso(entry.at_ms), body)


async def _text(
    kind: Format, pages: AsyncGenerator[list[Entry], None], roles: Sequence[Cue] | None
) -> AsyncGenerator[bytes, None]:
    """The finals of the log; of a meeting ``roles`` stands for those of its roles."""
    renderer: Renderer = Srt() if kind == "srt" else Vtt() if kind == "vtt" else Txt()
    yield renderer.opening
    in_order = InOrder()
    waiting = deque(roles or ())
    async with aclosing(pages):
        async for page in pages:
            others = page if roles is None else [each for each in page if role_of(each) is None]
            ready: list[Cue] = []
            for said in cues(others):
                while waiting and waiting[0].start_ms <= said.start_ms:
                    ready += in_order.add(waiting.popleft())
                ready += in_order.add(said)
            yield "".join(renderer.add(ready)).encode()
    while waiting:
        batch = [waiting.popleft() for _ in range(min(PAGE, len(waiting)))]
        yield "".join(renderer.add([cue for said in batch for cue in in_order.add(said)])).encode()
        await asyncio.sleep(0)
    rest = in_order.rest()
    while batch := list(islice(rest, PAGE)):
        yield "".join(renderer.add(batch)).encode()
        await asyncio.sleep(0)
    yield "".join(renderer.rest()).encode()


def cues(page: Iterable[Entry]) -> Iterable[Cue]:
    """The finals of a page as cues."""
    for entry in page:
        if entry.kind == "final" and isinstance(final := decode_entry(entry.body), FinalEntry):
            voice = "" if final.voice is None else f" (voice {final.voice})"
            cue = new_cue(final.start_ms, final.end_ms, final.speaker + voice, final.text)
            if cue is not None:
                yield cue


class Txt:
    """One line for each final, with its time and speaker."""

    opening = b""

    def add(self, ready: Iterable[Cue]) -> Iterable[str]:
        """The lines of cues."""
        for cue in ready:
            name = f"{cue.speaker}: " if cue.speaker else ""
            yield f"[{clock(cue.start_ms, '.')[:-4]}] {name}{cue.text}\n"

    def rest(self) -> Iterable[str]:
        """Nothing is held back."""
        return ()


class Srt:
    """SubRip: the speaker's name begins the text."""

    opening = b""

    def __init__(self) -> None:
        self._flattened = Flattened()
        self._number = 0

    def add(self, ready: Iterable[Cue]) -> Iterable[str]:
        """Cues of which nothing earlier can come."""
        for cue in ready:
            prefix = f"{cue.speaker}: " if cue.speaker else ""
            for piece, _ in self._flattened.add(cue, prefix):
                self._number += 1
                yield srt_piece(self._number, piece)

    def rest(self) -> Iterable[str]:
        """What was held back."""
        for piece, _ in self._flattened.rest():
            self._number += 1
            yield srt_piece(self._number, piece)


class Vtt:
    """WebVTT: the speaker is a voice span."""

    opening = b"WEBVTT\n\n"

    def __init__(self) -> None:
        self._flattened = Flattened()

    def add(self, ready: Iterable[Cue]) -> Iterable[str]:
        """Cues of which nothing earlier can come."""
        for cue in ready:
            for piece, said in self._flattened.add(cue):
                yield vtt_piece(piece, said)

    def rest(self) -> Iterable[str]:
        """What was held back."""
        for piece, cue in self._flattened.rest():
            yield vtt_piece(piece, cue)


Renderer = Srt | Vtt | Txt
