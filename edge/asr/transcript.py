"""What a supervisor hands to a session: one interim or final transcript of a track."""

from __future__ import annotations

import msgspec


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """One interim or final transcript; an item's interims and its final share ``item_id``."""

    provider: str
    """Name of the recognizer that heard it."""
    item_id: str
    text: str
    """Never blank. An interim carries the whole text of its item so far."""
    is_final: bool
    start_ms: float
    """Audio milliseconds since the track's first sample."""
    end_ms: float
    """Like ``start_ms``. An interim's times span the audio since the last final."""
    timestamp_unix_ms: int
    """Of an interim its arrival, of a final the arrival of its item's first interim, or its own."""
    confidence: float | None = None
    """From 0 to 1."""
    language: str | None = None
    """As the recognizer reports it."""
    speaker: int | None = None
    """Who of several on one track said it, where the recognizer tells them apart."""
