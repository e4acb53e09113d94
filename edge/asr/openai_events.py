"""The messages of OpenAI's Realtime transcription sessions.

Comes in: settings and PCM. Goes out: client messages as JSON bytes; server messages as Structs.
Only ``edge.asr.openai_*`` call it. Source: OpenAI API reference, Realtime client events and server
events (transcription sessions), and the older ``transcription_session.update`` of the beta.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from edge.asr.service import decode_tagged, plain
from edge.errors import RecognizerBusy, RecognizerClosed, RecognizerError, RecognizerRefused

RATE_HZ = 24000
"""The only PCM rate the service takes."""
BYTES_PER_MS = RATE_HZ * 2 / 1000
LOGPROBS = "item.input_audio_transcription.logprobs"
COMMIT = b'{"type":"input_audio_buffer.commit"}'
APPEND_HEAD = b'{"type":"input_audio_buffer.append","audio":"'
"""Mono s16le audio at 24 kHz follows, as base64, and ``APPEND_TAIL``."""
APPEND_TAIL = b'"}'


class AudioFormat(msgspec.Struct, frozen=True):
    """``session.audio.input.format``"""

    type: str = "audio/pcm"
    rate: int = RATE_HZ


class NoiseReduction(msgspec.Struct, frozen=True):
    """Microphones close to the mouth are what conferences have."""

    type: str = "near_field"


class Transcription(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which model transcribes, and its hints."""

    model: str
    language: str | None = None
    prompt: str | None = None


class AudioInput(msgspec.Struct, frozen=True, kw_only=True):
    """``session.audio.input``"""

    format: AudioFormat = AudioFormat()
    noise_reduction: NoiseReduction = NoiseReduction()
    transcription: Transcription
    turn_detection: dict[str, Any] | None


class Audio(msgspec.Struct, frozen=True):
    """``session.audio``"""

    input: AudioInput


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The session of ``session.update``."""

    type: str = "transcription"
    audio: Audio
    include: tuple[str, ...] = (LOGPROBS,)


class SessionUpdate(msgspec.Struct, frozen=True, tag="session.update", omit_defaults=True):
    """The first message of a connection; later ones name themselves, for errors to refer to."""

    session: Session
    event_id: str | None = None


class BetaSession(msgspec.Struct, frozen=True, kw_only=True):
    """The session of ``transcription_session.update``."""

    input_audio_format: str = "pcm16"
    input_audio_noise_reduction: NoiseReduction = NoiseReduction()
    input_audio_transcription: Transcription
    turn_detection: dict[str, Any] | None
    include: tuple[str, ...] = (LOGPROBS,)


class BetaSessionUpdate(
    msgspec.Struct, frozen=True, tag="transcription_session.update", omit_defaults=True
):
    """``SessionUpdate`` as the beta of the API had it."""

    session: BetaSession
    event_id: str | None = None


_encoder = msgspec.json.Encoder()


def session_update(
    shape: Literal["ga", "beta"],
    transcription: Transcription,
    turn_detection: dict[str, Any] | None,
    event_id: str | None = None,
) -> bytes:
    """The message that configures a connection, or does so again."""
    if shape == "beta":
        session = BetaSession(
            input_audio_transcription=transcription, turn_detection=turn_detection
        )
        return _encoder.encode(BetaSessionUpdate(session, event_id))
    audio = Audio(AudioInput(transcription=transcription, turn_detection=turn_detection))
    return _encoder.encode(SessionUpdate(Session(audio=audio), event_id))


class LogProb(msgspec.Struct, frozen=True):
    """One token's logarithmic probability."""

    logprob: float


class Language(msgspec.Struct, frozen=True):
    """A language detected by models that do so."""

    code: str


class SessionUpdated(msgspec.Struct, frozen=True, tag="session.updated"):
    """The configuration was taken."""


class BetaSessionUpdated(msgspec.Struct, frozen=True, tag="transcription_session.updated"):
    """The configuration was taken."""


class SpeechStarted(msgspec.Struct, frozen=True, tag="input_audio_buffer.speech_started"):
    """Speech of a new item begins, padding before it included."""

    item_id: str
    audio_start_ms: float


class SpeechStopped(msgspec.Struct, frozen=True, tag="input_audio_buffer.speech_stopped"):
    """The item's audio ends here, the silence that ended it included."""

    item_id: str
    audio_end_ms: float


class Committed(msgspec.Struct, frozen=True, tag="input_audio_buffer.committed"):
    """The buffer became an item, by silence or by our commit; its transcript will follow."""

    item_id: str


class Delta(msgspec.Struct, frozen=True, tag="conversation.item.input_audio_transcription.delta"):
    """More text of an item."""

    item_id: str
    delta: str | None = None
    logprobs: list[LogProb] | None = None


class Completed(
    msgspec.Struct, frozen=True, tag="conversation.item.input_audio_transcription.completed"
):
    """The whole text of an item."""

    item_id: str
    transcript: str
    logprobs: list[LogProb] | None = None
    languages: list[Language] | None = None


class Failed(msgspec.Struct, frozen=True, tag="conversation.item.input_audio_transcription.failed"):
    """An item could not be transcribed."""

    item_id: str


class ErrorDetails(msgspec.Struct, frozen=True):
    """What is wrong, in the service's words."""

    message: str | None = None
    type: str | None = None
    code: str | None = None
    event_id: str | None = None
    """The client's message that caused it, if that named itself."""


class ErrorEvent(msgspec.Struct, frozen=True, tag="error"):
    """Something that we sent, or the service itself, failed."""

    error: ErrorDetails


ServerEvent = (
    SessionUpdated
    | BetaSessionUpdated
    | SpeechStarted
    | SpeechStopped
    | Committed
    | Delta
    | Completed
    | Failed
    | ErrorEvent
)


_KINDS = frozenset(kind.__struct_config__.tag for kind in ServerEvent.__args__)
_event_decoder: msgspec.json.Decoder[ServerEvent] = msgspec.json.Decoder(ServerEvent)


def decode(message: bytes) -> ServerEvent | None:
    """A server message, or None for a type that means nothing to us.

    Raises ``msgspec.DecodeError`` for what is not JSON or not in its type's form.
    """
    return decode_tagged(_event_decoder, _KINDS, message)


COMMIT_EMPTY = "input_audio_buffer_commit_empty"
_REFUSALS = frozenset({"authentication_error", "permission_error", "insufficient_quota"})


def as_error(name: str, details: ErrorDetails, *, accepted: bool) -> RecognizerError:
    """The error of an ``error`` event, by whether trying again may help; ``name`` opens its text.

    ``accepted`` says that the service took the session's configuration: an invalid request after
    that is a fault of this connection, not of how it is configured.
    """
    kind, code = details.type or "", details.code or ""
    text = f"{name}: " + plain(details.message or code or kind or "error without a message")
    if code == "session_expired":
        return RecognizerClosed(text)
    if kind in _REFUSALS or code in _REFUSALS or code == "invalid_api_key":
        return RecognizerRefused(text)
    if kind == "invalid_request_error" and "rate_limit" not in code:
        return RecognizerClosed(text) if accepted else RecognizerRefused(text)
    return RecognizerBusy(text)
