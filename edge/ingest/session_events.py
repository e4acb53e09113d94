"""Entries of a session's log in the words of ``edge.session.v1``.

An entry's body is passed on as it was stored: a kind that a newer gateway writes reaches the page
as well.
"""

from __future__ import annotations

import msgspec

from edge.ingest.session_messages import PartMessage, encode
from edge.session.entries import Part
from edge.session.store.interface import Entry


class _Said(msgspec.Struct, frozen=True):
    """What this protocol has to know of an entry's body."""

    type: str
    speaker: str = ""
    turn: int = 0


class Event(msgspec.Struct, frozen=True, tag_field="type", tag="ev"):
    """An entry as clients get it; ``at`` is the store's wall clock, ms since 1970."""

    o: int
    k: str
    at: int
    data: msgspec.Raw


_decode = msgspec.json.Decoder(_Said).decode
UNKNOWN = _Said("note")


def said(entry: Entry) -> _Said:
    """The kind of an entry, and whose turn it speaks of."""
    try:
        return _decode(entry.body)
    except msgspec.MsgspecError:
        return UNKNOWN


def event_text(entry: Entry) -> bytes:
    """An entry as an ``ev`` message."""
    known = said(entry)
    body = b"{}" if known is UNKNOWN else entry.body
    return encode(Event(entry.offset, known.type, entry.at_ms, msgspec.Raw(body)))


def part_text(part: Part) -> bytes:
    """An interim as a ``part`` message."""
    return encode(
        PartMessage(part.speaker, part.turn, part.rev, part.text, part.stable, part.eager)
    )
