"""What a session's log says: the bodies of its entries, and interims that are never stored.

Comes in and goes out: JSON whose ``type`` says which it is, so that a gateway of another version
and a page can read it. Members that are not known are ignored.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from edge.session.store.interface import Kind


class FinalEntry(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="final"):
    """A finished utterance; ``start_ms`` and ``end_ms`` are on the session's clock."""

    speaker: str
    """The name of the track."""
    turn: int
    """Grows with each turn of a speaker."""
    text: str
    start_ms: int
    end_ms: int
    timestamp_unix_ms: int
    item_id: str
    provider: str
    language: str | None = None
    confidence: float | None = None
    voice: int | None = None
    """Which of several voices on one track, where the recognizer tells them apart."""
    audio_seq: int | None = None
    """The last audio frame of ``edge.session.v1`` that this final covers."""
    sent: bool = True
    """Whether it had gone to its speaker's client before it was stored."""
    latency_ms: int | None = None
    """From the arrival of the audio that ends it to its text, where that was measured."""
    model: str | None = None
    """The recognizer's model, where it is known."""


class TurnStartEntry(Struct, frozen=True, tag_field="type", tag="turn_start"):
    """A speaker has begun to say something."""

    speaker: str
    turn: int
    start_ms: int


class TurnEndEntry(Struct, frozen=True, tag_field="type", tag="turn_end"):
    """A speaker has ended a turn."""

    speaker: str
    turn: int
    end_ms: int


class JoinEntry(Struct, frozen=True, tag_field="type", tag="join"):
    """A speaker has come."""

    speaker: str


class LeaveEntry(Struct, frozen=True, tag_field="type", tag="leave"):
    """A speaker has gone."""

    speaker: str


class ConfigEntry(Struct, frozen=True, tag_field="type", tag="config"):
    """Values that were changed; null: removed."""

    values: dict[str, str | int | float | bool | None]


class NoteEntry(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="note"):
    """Something worth knowing for whoever reads the log."""

    code: str
    text: str
    speaker: str = ""


class EndEntry(Struct, frozen=True, tag_field="type", tag="end"):
    """The session is over; nothing follows."""

    reason: str


class SpeakerEntry(Struct, frozen=True, tag_field="type", tag="speaker"):
    """Who said something; ``said`` is the JSON of ``edge.meeting.records.SpeakerSaid``."""

    role: str
    said: msgspec.Raw


class ResetEntry(Struct, frozen=True, tag_field="type", tag="reset"):
    """What was said under this role before, and by whom, no longer counts."""

    role: str


Body = (
    FinalEntry
    | TurnStartEntry
    | TurnEndEntry
    | JoinEntry
    | LeaveEntry
    | ConfigEntry
    | NoteEntry
    | SpeakerEntry
    | ResetEntry
    | EndEntry
)


class Part(Struct, frozen=True, array_like=True, tag="part"):
    """What a speaker has said of a turn so far; published, never stored."""

    speaker: str
    turn: int
    rev: int
    """Grows with each version of a turn's text."""
    text: str
    stable: int = 0
    """Leading characters (code points) that will not change."""
    eager: bool = False
    """Whether the recognizer thinks that the turn has ended, and may still take it back."""


class Wanted(Struct, frozen=True, array_like=True, tag="wanted"):
    """Somebody on some worker wants the interims of the session for a while; published."""


encode_entry = msgspec.json.Encoder().encode
_decode_entry = msgspec.json.Decoder(Body).decode
encode_passing = msgspec.msgpack.Encoder().encode
_decode_passing = msgspec.msgpack.Decoder(Part | Wanted).decode


def kind_of(body: Body) -> Kind:
    """How the store files an entry."""
    match body:
        case FinalEntry():
            return "final"
        case ConfigEntry():
            return "config"
        case EndEntry():
            return "finalized"
        case _:
            return "event"


def decode_entry(data: bytes) -> Body | None:
    """The body of an entry; None for a kind of another version."""
    try:
        body: Body = _decode_entry(data)
        return body
    except msgspec.MsgspecError:
        return None


def decode_passing(data: bytes) -> Part | Wanted | None:
    """What was published to a session's listeners; None for what this version does not know."""
    try:
        passing: Part | Wanted = _decode_passing(data)
        return passing
    except msgspec.MsgspecError:
        return None


def decode_part(data: bytes) -> Part | None:
    """An interim among what was published."""
    passing = decode_passing(data)
    return passing if isinstance(passing, Part) else None
