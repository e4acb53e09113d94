"""The events of OpenAI's Realtime transcription, both ways.

Source: OpenAI API reference, Realtime client events and server events; the names of the beta where
they differ.
"""

from __future__ import annotations

import re
from secrets import token_hex
from typing import Any

import msgspec

from edge.ingest.realtime_session import BetaSession, Session

MOST_ID_CHARACTERS = 512


class SessionUpdate(msgspec.Struct, frozen=True, tag="session.update"):
    """Configure the session."""

    session: Session
    event_id: str | None = None


class BetaSessionUpdate(msgspec.Struct, frozen=True, tag="transcription_session.update"):
    """The same in the beta."""

    session: BetaSession
    event_id: str | None = None


class Append(msgspec.Struct, frozen=True, tag="input_audio_buffer.append"):
    """Audio, base64."""

    audio: bytes
    event_id: str | None = None


class Commit(msgspec.Struct, frozen=True, tag="input_audio_buffer.commit"):
    """What was appended is a turn."""

    event_id: str | None = None


class Clear(msgspec.Struct, frozen=True, tag="input_audio_buffer.clear"):
    """Forget what was appended and not committed."""

    event_id: str | None = None


ClientEvent = SessionUpdate | BetaSessionUpdate | Append | Commit | Clear
_decoder: msgspec.json.Decoder[ClientEvent] = msgspec.json.Decoder(ClientEvent)
_TYPES = [kind.__struct_config__.tag for kind in ClientEvent.__args__]


class Head(msgspec.Struct, frozen=True):
    """What an event that cannot be taken still says."""

    type: Any = None
    event_id: Any = None


_decode_head = msgspec.json.Decoder(Head).decode


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong."""

    type: str = "invalid_request_error"
    code: str | None = None
    message: str
    param: str | None = None
    event_id: str | None = None
    """The client's event that caused it."""


class BadEvent(Exception):
    """An event that cannot be taken."""

    def __init__(self, details: Details) -> None:
        self.details = details
        super().__init__(details.message)


_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`")


def decode_event(data: bytes) -> ClientEvent:
    """A client's event; raises ``BadEvent``."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadEvent(_why(data, error)) from None


def _why(data: bytes, error: Exception) -> Details:
    try:
        head = _decode_head(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        message = "The event is not a JSON object"
        return Details(code="invalid_json", message=message)
    event_id = head.event_id if isinstance(head.event_id, str) else None
    event_id = None if event_id is None else event_id[:MOST_ID_CHARACTERS]
    if not isinstance(head.type, str):
        message = "Missing required parameter: 'type'."
        code = "missing_required_parameter"
        return Details(code=code, message=message, param="type", event_id=event_id)
    if head.type not in _TYPES:
        able = ", ".join(f"'{name}'" for name in _TYPES)
        message = f"Invalid value: '{head.type[:80]}'. Supported values are: {able}."
        return Details(code="invalid_value", message=message, param="type", event_id=event_id)
    told = str(error)
    path = match[1] if (match := _PATH.search(told)) else ""
    if match := _UNKNOWN.search(told):
        param = f"{path}.{match[1]}".lstrip(".")
        message = f"Unknown parameter: '{param}'."
        return Details(code="unknown_parameter", message=message, param=param, event_id=event_id)
    message = f"Invalid value for '{path}': {_PATH.sub('', told)}."
    return Details(code="invalid_value", message=message, param=path or None, event_id=event_id)


def new_id(kind: str) -> str:
    """An id as the service makes them."""
    return f"{kind}_{token_hex(10)}"


_TRANSCRIPTION = "conversation.item.input_audio_transcription"


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    event_id: str = msgspec.field(default_factory=lambda: new_id("event"))


class SessionCreated(_Event, frozen=True, kw_only=True, tag="session.created"):
    """The first event."""

    session: dict[str, Any]


class SessionUpdated(_Event, frozen=True, kw_only=True, tag="session.updated"):
    """The configuration in force."""

    session: dict[str, Any]


class BetaSessionCreated(_Event, frozen=True, kw_only=True, tag="transcription_session.created"):
    """The first event, in the beta."""

    session: dict[str, Any]


class BetaSessionUpdated(_Event, frozen=True, kw_only=True, tag="transcription_session.updated"):
    """The configuration in force, in the beta."""

    session: dict[str, Any]


class SpeechStarted(_Event, frozen=True, kw_only=True, tag="input_audio_buffer.speech_started"):
    """A turn began."""

    item_id: str
    audio_start_ms: int


class SpeechStopped(_Event, frozen=True, kw_only=True, tag="input_audio_buffer.speech_stopped"):
    """A turn ended."""

    item_id: str
    audio_end_ms: int


class Committed(_Event, frozen=True, kw_only=True, tag="input_audio_buffer.committed"):
    """A turn is an item now."""

    item_id: str
    previous_item_id: str | None


class Cleared(_Event, frozen=True, kw_only=True, tag="input_audio_buffer.cleared"):
    """What was not committed is forgotten."""


class Content(msgspec.Struct, frozen=True):
    """The audio of an item, whose transcript follows."""

    type: str = "input_audio"
    transcript: str | None = None


class Item(msgspec.Struct, frozen=True):
    """A turn."""

    id: str
    object: str = "realtime.item"
    type: str = "message"
    status: str = "completed"
    role: str = "user"
    content: tuple[Content, ...] = (Content(),)


class _ItemEvent(_Event, frozen=True, kw_only=True):
    previous_item_id: str | None
    item: Item


class ItemAdded(_ItemEvent, frozen=True, kw_only=True, tag="conversation.item.added"):
    """There is a new item."""


class ItemDone(_ItemEvent, frozen=True, kw_only=True, tag="conversation.item.done"):
    """Its audio is complete."""


class BetaItemCreated(_ItemEvent, frozen=True, kw_only=True, tag="conversation.item.created"):
    """There is a new item, in the beta."""


class Delta(_Event, frozen=True, kw_only=True, tag=_TRANSCRIPTION + ".delta"):
    """More text of an item."""

    item_id: str
    content_index: int = 0
    delta: str


class Usage(msgspec.Struct, frozen=True):
    """How much audio it was."""

    seconds: float
    type: str = "duration"


class Completed(_Event, frozen=True, kw_only=True, tag=_TRANSCRIPTION + ".completed"):
    """The whole text of an item."""

    item_id: str
    content_index: int = 0
    transcript: str
    usage: Usage


class Failed(_Event, frozen=True, kw_only=True, tag=_TRANSCRIPTION + ".failed"):
    """An item gets no text."""

    item_id: str
    content_index: int = 0
    error: Details


class ErrorEvent(_Event, frozen=True, kw_only=True, tag="error"):
    """Something cannot be done."""

    error: Details


encode = msgspec.json.Encoder().encode
