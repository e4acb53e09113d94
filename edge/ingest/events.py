"""Media events: the JSON a media server sends, and the JSON it gets back.

Field names and shapes are those of the wire; see ``docs/media-protocol.md``. Media events in the
shape bridges send are read by ``_native.envelope`` in one pass; everything else comes here.
"""

from __future__ import annotations

import binascii
import json
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

MAX_TRACK_TAG_BYTES = 256
"""A longer participant tag is refused: tags are kept for the life of the connection."""

_INT64 = 1 << 63


class BadEvent(ValueError):
    """A message that cannot be used; ``str()`` names the reason in one stable word."""


class Media(msgspec.Struct, frozen=True, gc=False):
    """One packet of one tag."""

    tag: str
    chunk: int | None
    timestamp: int | None
    payload: bytes


class Start(msgspec.Struct, frozen=True):
    """A tag announces its format; ``problem`` says why the format cannot be used, if so."""

    tag: str
    encoding: str = "opus"
    rate_hz: int = 48000
    channels: int = 2
    problem: str | None = None


class Ping(msgspec.Struct, frozen=True):
    """The bridge's own keep-alive; ``id`` is echoed only when it was a JSON number."""

    id: int | float | None = None


class SessionEnd(msgspec.Struct, frozen=True):
    """Transcription was stopped: end all tracks now."""


class PeerInfo(msgspec.Struct, frozen=True):
    """What the other side says of itself, for the log."""

    application: str | None = None
    version: str | None = None
    region: str | None = None


Event = Media | Start | Ping | SessionEnd | PeerInfo | None
"""A usable event; None is one that is ignored by design (``stop``, ``sources``, unknown names)."""


class _Wire(msgspec.Struct):
    event: Any = UNSET
    media: Any = UNSET
    start: Any = UNSET
    id: Any = UNSET
    application: Any = UNSET
    version: Any = UNSET
    region: Any = UNSET


_wire_decoder = msgspec.json.Decoder(_Wire)
_FORMATS = {
    "opus": "opus",
    "ogg": "ogg",
    "ogg-opus": "ogg",
    "webm": "webm",
    "l16": "l16",
    "l16-be": "l16-be",
}
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def decode_event(message: bytes) -> Event:
    """Read one message of a media server.

    Members may be doubled as long as their values agree, numbers may be strings, unknown members
    are ignored. Raises ``BadEvent`` for text that is not such an object.
    """
    try:
        wire = _wire_decoder.decode(message)
        _refuse_conflicting_members(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadEvent("not_json") from error
    match wire.event:
        case "media":
            return _media(wire.media)
        case "start":
            return _start(wire.start)
        case "ping":
            is_number = isinstance(wire.id, int | float) and not isinstance(wire.id, bool)
            return Ping(wire.id if is_number else None)
        case "session-end":
            return SessionEnd()
        case "info":
            return PeerInfo(_text(wire.application), _text(wire.version), _text(wire.region))
        case str():
            return None
        case _:
            raise BadEvent("no_event")


def _refuse_conflicting_members(message: bytes) -> None:
    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for name, value in pairs:
            if name in members and members[name] != value:
                raise BadEvent("conflicting_members")
            members[name] = value
        return members

    try:
        json.loads(message, object_pairs_hook=check)
    except BadEvent:
        raise
    except ValueError as error:
        raise BadEvent("not_json") from error


def _media(body: Any) -> Media:
    if not isinstance(body, dict):
        raise BadEvent("no_media")
    tag = _track_tag(body)
    payload = body.get("payload", UNSET)
    if payload is UNSET:
        raise BadEvent("no_payload")
    return Media(
        tag, _integer(body.get("chunk")), _integer(body.get("timestamp")), _base64(payload)
    )


def _start(body: Any) -> Start:
    if not isinstance(body, dict):
        raise BadEvent("no_start")
    tag = _track_tag(body)
    media_format = body.get("mediaFormat")
    if not isinstance(media_format, dict):
        return Start(tag, problem="mediaFormat must be an object")
    name = media_format.get("encoding")
    if not isinstance(name, str) or name.lower() not in _FORMATS:
        allowed = ", ".join(_FORMATS)
        return Start(tag, problem=f"mediaFormat.encoding must be one of: {allowed}")
    encoding = _FORMATS[name.lower()]
    numbers = {"sampleRate": 48000, "channels": 2}
    if encoding.startswith("l16"):
        numbers = {"sampleRate": 24000, "channels": 1}
    for member in numbers:
        if (value := media_format.get(member, UNSET)) is UNSET:
            continue
        number = _integer(value)
        if number is None or number <= 0:
            return Start(tag, problem=f"mediaFormat.{member} must be a positive integer")
        numbers[member] = number
    return Start(tag, encoding, numbers["sampleRate"], numbers["channels"])


def _track_tag(body: dict[str, Any]) -> str:
    tag = body.get("tag")
    if not isinstance(tag, str) or not tag or len(tag.encode()) > MAX_TRACK_TAG_BYTES:
        raise BadEvent("no_tag")
    return tag


def _integer(value: Any) -> int | None:
    """An integer given as a JSON number or as decimal text; None for anything else."""
    if isinstance(value, str):
        digits = value[1:] if value.startswith("-") else value
        if not (0 < len(digits) <= 19 and digits.isascii() and digits.isdigit()):
            return None
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not -_INT64 <= value < _INT64:
        return None
    return value


def _base64(payload: Any) -> bytes:
    """Both alphabets, padding optional; an empty result means there was nothing to decode."""
    if not isinstance(payload, str):
        raise BadEvent("bad_payload")
    try:
        encoded = payload.encode("ascii").translate(_URL_SAFE).rstrip(b"=")
        return binascii.a2b_base64(encoded + b"=" * (-len(encoded) % 4), strict_mode=True)
    except ValueError as error:
        raise BadEvent("bad_payload") from error


def _text(value: Any) -> str | None:
    return value[:128] if isinstance(value, str) else None


class Participant(msgspec.Struct, frozen=True):
    """Whose words these are: the endpoint id in front of the first dash, and the whole tag."""

    id: str
    tag: str


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of what was said; ``confidence`` is absent when it is unknown."""

    confidence: float | UnsetType = UNSET
    text: str


class TranscriptionResult(msgspec.Struct, frozen=True, kw_only=True):
    """A final or interim transcript as media servers read it; times are on the session clock."""

    transcript: tuple[Alternative]
    is_interim: bool
    message_id: str
    type: str = "transcription-result"
    event: str = "transcription-result"
    participant: Participant
    timestamp: int
    language: str | UnsetType = UNSET
    speaker: int | UnsetType = UNSET
    start_ms: int | UnsetType = UNSET
    end_ms: int | UnsetType = UNSET


class ErrorEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A tag that will get no transcripts, and why."""

    event: str = "error"
    code: str
    message: str
    tag: str


class InfoConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The part of the gateway's configuration that clients may see."""

    providers_priority: list[str]
    force_commit_timeout: float
    session_resume_enabled: bool
    use_dispatcher: bool
    usage_reporting: bool = False


class Info(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the gateway says of itself once after connecting."""

    event: str = "info"
    application: str = "edgescribe"
    version: str
    runtime: str = "python"
    provider: str
    providers_available: list[str]
    config: InfoConfig
    session_id: str | UnsetType = UNSET


class Pong(msgspec.Struct, frozen=True):
    """The answer to a ping, with its id when that was a number."""

    event: str = "pong"
    id: int | float | UnsetType = UNSET


encode_message = msgspec.json.Encoder().encode
"""Encodes the structs of this module to the bytes of one text message."""
