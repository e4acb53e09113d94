"""The messages of the plain socket: those of Deepgram Flux, and others in the same shape.

docs/listen-protocol.md explains them to page authors. Source of the shape: Deepgram API reference,
Listen turn-based (v2).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from edge.session.entries import FinalEntry
from edge.session.interface import SpokenLine

SURE = 1.0
"""What stands for a confidence that a recognizer does not give."""

_encoder = msgspec.json.Encoder()
_members: msgspec.json.Decoder[dict[str, Raw]] = msgspec.json.Decoder(dict[str, Raw])


class Connected(Struct, frozen=True, kw_only=True, tag="Connected"):
    """A recognizer is there; the first message of a connection."""

    request_id: str
    sequence_id: int


class Word(Struct, frozen=True):
    """One word as it is written, with its punctuation."""

    word: str
    confidence: float


class TurnInfo(Struct, frozen=True, kw_only=True, tag="TurnInfo"):
    """What is known of a turn: all its text so far."""

    request_id: str
    sequence_id: int
    event: str
    """StartOfTurn, Update or EndOfTurn."""
    turn_index: int
    audio_window_start: float
    """Seconds of audio where the turn begins."""
    audio_window_end: float
    """Seconds of audio up to which it has been heard."""
    transcript: str
    words: tuple[Word, ...]
    end_of_turn_confidence: float
    languages: tuple[str, ...] | UnsetType = UNSET
    text: str | UnsetType = UNSET
    """The finished text; in EndOfTurn only."""


class Resumed(Struct, frozen=True, kw_only=True, tag="Resumed"):
    """The answer to ``resume=``: whether what follows goes on where the client was."""

    recovered: bool
    epoch: str
    offset: int


class Logged(Struct, frozen=True, kw_only=True, tag="Logged"):
    """A turn is in the session's log: ``resume=<epoch>:<offset>`` goes on after it."""

    turn_index: int
    epoch: str
    offset: int


Message = Connected | TurnInfo | Resumed | Logged


def encode_message(message: Message) -> bytes:
    """A message as it is sent."""
    return _encoder.encode(message)


def turn_of(
    line: SpokenLine, event: str, *, request_id: str, sequence_id: int, turn_index: int
) -> TurnInfo:
    """An interim or final of a recognizer that has no turns of its own, as one."""
    transcript = line.transcript
    text = transcript.text
    return TurnInfo(
        request_id=request_id,
        sequence_id=sequence_id,
        event=event,
        turn_index=turn_index,
        audio_window_start=seconds(transcript.start_ms),
        audio_window_end=seconds(transcript.end_ms),
        transcript=text,
        words=words_of(text, transcript.confidence),
        end_of_turn_confidence=SURE if transcript.is_final else 0.0,
        languages=(transcript.language,) if transcript.language else UNSET,
        text=text if transcript.is_final else UNSET,
    )


def turn_of_entry(
    entry: FinalEntry, *, request_id: str, sequence_id: int, turn_index: int
) -> TurnInfo:
    """A final of the log as the end of a turn; its times are those of the session."""
    return TurnInfo(
        request_id=request_id,
        sequence_id=sequence_id,
        event="EndOfTurn",
        turn_index=turn_index,
        audio_window_start=seconds(entry.start_ms),
        audio_window_end=seconds(entry.end_ms),
        transcript=entry.text,
        words=words_of(entry.text, entry.confidence),
        end_of_turn_confidence=SURE,
        languages=(entry.language,) if entry.language else UNSET,
        text=entry.text,
    )


def words_of(text: str, confidence: float | None) -> tuple[Word, ...]:
    """The words of a text, each as sure as all of it."""
    sure = SURE if confidence is None else round(confidence, 4)
    return tuple(Word(word, sure) for word in text.split())


def amended(body: bytes, changes: Mapping[str, object]) -> bytes:
    """A service's message with some members as they should be; as it came if they are already."""
    members = _members.decode(body)
    changed = False
    for name, value in changes.items():
        raw = _encoder.encode(value)
        before = members.get(name)
        if before is None or bytes(before) != raw:
            members[name] = Raw(raw)
            changed = True
    return _encoder.encode(members) if changed else body


def member(body: bytes, name: str) -> str:
    """A text member of a service's message, empty if there is none."""
    raw = _members.decode(body).get(name)
    value = None if raw is None else msgspec.json.decode(raw)
    return value if isinstance(value, str) else ""


def seconds(milliseconds: float) -> float:
    """A time as messages write it."""
    return round(milliseconds / 1000, 3)
