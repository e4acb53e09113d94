"""What goes over the wire, camelCase and with these members only, and what is said beside it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

NO_PARTICIPANT = "unknown"


class DispatcherTranscriptionMessage(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True
):
    """One final transcript; ``timestamp`` is in ms since 1970."""

    session_id: str
    endpoint_id: str
    text: str
    timestamp: int
    language: str | None = None


class RPCResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A dispatcher's answer: how many messages it took, and why not the others."""

    success: bool
    dispatched: int
    errors: list[str] | None = None
    message: str | None = None


class Envelope(msgspec.Struct, frozen=True):
    """An encoded message and what transports say beside it.

    ``message_id`` (``<session>:<offset>``) is the same in every redelivery; ``attempt`` counts
    deliveries from 1; ``enqueued_ms`` is in ms since 1970.
    """

    message_id: str
    session: str
    body: bytes
    attempt: int
    epoch: str
    enqueued_ms: int


_encoder = msgspec.json.Encoder()
_message = msgspec.json.Decoder(DispatcherTranscriptionMessage)
_answer = msgspec.json.Decoder(RPCResponse)


def transcription(
    session: str, participant: str, parts: Sequence[str], at_ms: int, language: str | None = None
) -> bytes | None:
    """The encoded message of a final, None if nothing was said in it."""
    text = " ".join(parts)
    if not text.strip():
        return None
    return _encoder.encode(
        DispatcherTranscriptionMessage(
            session_id=session,
            endpoint_id=participant or NO_PARTICIPANT,
            text=text,
            timestamp=at_ms,
            language=language,
        )
    )


def decode_message(body: bytes) -> DispatcherTranscriptionMessage:
    """Raises ``msgspec.DecodeError`` (or its ``ValidationError``) for anything else."""
    return _message.decode(body)


def encode_message(message: DispatcherTranscriptionMessage) -> bytes:
    """One line of JSON."""
    return _encoder.encode(message)


def encode_answer(answer: RPCResponse) -> bytes:
    """One line of JSON."""
    return _encoder.encode(answer)


def decode_answer(body: bytes) -> RPCResponse:
    """Raises ``msgspec.DecodeError`` (or its ``ValidationError``) for anything else."""
    return _answer.decode(body)
