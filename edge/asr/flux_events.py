"""The messages of Deepgram Flux (``/v2/listen``).

Comes in: the service's messages. Goes out: Structs. Only ``edge.asr.flux*`` call it. Source:
Deepgram API reference, Listen turn-based (v2); Flux: state machine, ForceEndTurn, CloseStream.
"""

from __future__ import annotations

import msgspec

from edge.asr.service import decode_tagged

FORCE_END_TURN = b'{"type":"ForceEndTurn"}'
CLOSE_STREAM = b'{"type":"CloseStream"}'


class Word(msgspec.Struct, frozen=True):
    """One word, punctuated; times are seconds of the connection's audio, where they are given."""

    word: str
    confidence: float | None = None
    start: float | None = None
    end: float | None = None


class _Numbered(msgspec.Struct, frozen=True, kw_only=True):
    sequence_id: int
    """Counts the service's messages of one connection, from 0."""


class Connected(_Numbered, frozen=True, tag="Connected"):
    """The first message."""


class TurnInfo(_Numbered, frozen=True, tag="TurnInfo"):
    """What is known of a turn: all its text so far."""

    event: str
    """StartOfTurn, Update, EagerEndOfTurn, TurnResumed, EndOfTurn; more may come to be."""
    turn_index: int
    audio_window_start: float
    """Seconds of audio where the turn's audio begins."""
    audio_window_end: float
    """Seconds of audio up to which it has been heard."""
    transcript: str
    words: tuple[Word, ...] = ()
    languages: tuple[str, ...] | None = None
    """Detected ones, the most spoken first; only of flux-general-multi."""


class FatalError(_Numbered, frozen=True, tag="Error"):
    """The connection cannot go on."""

    code: str | None = None
    description: str | None = None


class ConfigureSuccess(_Numbered, frozen=True, tag="ConfigureSuccess"):
    """An answer to a message that is never sent here; it counts as a message."""


class ConfigureFailure(_Numbered, frozen=True, tag="ConfigureFailure"):
    """Like ``ConfigureSuccess``."""


class Warned(_Numbered, frozen=True, tag="Warning"):
    """Something is not as it should be, and goes on."""

    code: str | None = None


Message = Connected | TurnInfo | FatalError | ConfigureSuccess | ConfigureFailure | Warned
_KINDS = frozenset(kind.__struct_config__.tag for kind in Message.__args__)
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def decode(message: bytes) -> Message | None:
    """A message of the service, or None for a type that means nothing to us.

    Raises ``msgspec.DecodeError`` for what is not JSON or not in its type's form.
    """
    return decode_tagged(_decoder, _KINDS, message)
