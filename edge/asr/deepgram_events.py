"""The messages of Deepgram's streaming transcription (``/v1/listen``).

Comes in: the service's messages. Goes out: Structs, and the spoken runs of a result. Only
``edge.asr.deepgram*`` call it. Source: Deepgram API reference, Listen streaming (v1): Results,
Metadata, Error; Diarization.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

import msgspec

from edge.asr.service import decode_tagged, plain
from edge.errors import RecognizerBusy, RecognizerClosed, RecognizerError, RecognizerRefused

KEEP_ALIVE = b'{"type":"KeepAlive"}'
FINALIZE = b'{"type":"Finalize"}'
CLOSE_STREAM = b'{"type":"CloseStream"}'


class Word(msgspec.Struct, frozen=True):
    """One word; times are seconds of the connection's audio."""

    word: str
    start: float
    end: float
    confidence: float | None = None
    punctuated_word: str | None = None
    speaker: int | None = None


class Alternative(msgspec.Struct, frozen=True):
    """One way to understand the audio."""

    transcript: str
    confidence: float | None = None
    words: tuple[Word, ...] = ()
    languages: tuple[str, ...] | None = None
    """Detected ones, the most spoken first; only with ``language=multi``."""


class Channel(msgspec.Struct, frozen=True):
    """What was heard on one channel."""

    alternatives: tuple[Alternative, ...] = ()


class Results(msgspec.Struct, frozen=True, tag="Results"):
    """What was said from ``start`` on for ``duration`` seconds; an interim one may change."""

    start: float
    duration: float
    channel: Channel
    is_final: bool = False
    from_finalize: bool = False
    """The audio sent before a ``Finalize`` has all been dealt with."""


class Metadata(msgspec.Struct, frozen=True, tag="Metadata"):
    """The last message of a connection that was asked to close."""


class ErrorMessage(msgspec.Struct, frozen=True, tag="Error"):
    """The connection cannot go on."""

    description: str | None = None
    message: str | None = None
    variant: str | None = None


Message = Results | Metadata | ErrorMessage
_KINDS = frozenset(kind.__struct_config__.tag for kind in Message.__args__)
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def decode(message: bytes) -> Message | None:
    """A message of the service, or None for a type that means nothing to us.

    Raises ``msgspec.DecodeError`` for what is not JSON or not in its type's form.
    """
    return decode_tagged(_decoder, _KINDS, message)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What one speaker said in a row; times are milliseconds of the connection's audio."""

    text: str
    start_ms: float
    end_ms: float
    confidence: float | None
    speaker: int | None


def runs(results: Results) -> list[Run]:
    """What was said, split where the speaker changes if the service tells speakers apart.

    Empty when nothing was. A word without a speaker belongs to the one before it.
    """
    if not results.channel.alternatives:
        return []
    best = results.channel.alternatives[0]
    if not best.transcript.strip():
        return []
    words = best.words
    if any(word.speaker is not None for word in words):
        return [_spoken(speaker, said) for speaker, said in _by_speaker(words)]
    start_s, end_s = results.start, results.start + results.duration
    if words:
        start_s, end_s = words[0].start, words[-1].end
    whole = Run(
        text=best.transcript,
        start_ms=start_s * 1000,
        end_ms=end_s * 1000,
        confidence=best.confidence,
        speaker=None,
    )
    return [whole]


def language(results: Results) -> str | None:
    """The language heard, if the service says one."""
    languages = results.channel.alternatives[0].languages if results.channel.alternatives else None
    return languages[0] if languages else None


def _by_speaker(words: Sequence[Word]) -> Iterator[tuple[int, list[Word]]]:
    latest = next(word.speaker for word in words if word.speaker is not None)

    def speaker(word: Word) -> int:
        nonlocal latest
        latest = latest if word.speaker is None else word.speaker
        return latest

    return ((number, list(said)) for number, said in groupby(words, speaker))


def _spoken(speaker: int, words: Sequence[Word]) -> Run:
    return Run(
        text=" ".join(word.punctuated_word or word.word for word in words),
        start_ms=words[0].start * 1000,
        end_ms=words[-1].end * 1000,
        confidence=mean(word.confidence for word in words),
        speaker=speaker,
    )


def mean(confidences: Iterator[float | None]) -> float | None:
    """The mean of those that are known."""
    known = [confidence for confidence in confidences if confidence is not None]
    return sum(known) / len(known) if known else None


_ACCESS = re.compile(
    r"auth|credential|forbidden|permission|api.?key|payment|credit|balance|quota", re.IGNORECASE
)
_RATE = re.compile(r"rate.?limit|too.?many|concurren", re.IGNORECASE)


def as_error(name: str, code: str | None, description: str | None) -> RecognizerError:
    """The error of an ``Error`` message: only access and quota are not worth another try.

    ``code`` is what the vendor calls it, ``description`` its sentence; ``name`` opens the text.
    """
    words = [word for word in (code, description) if word]
    text = f"{name}: " + plain(": ".join(words) or "error without a message")
    if any(_RATE.search(word) for word in words):
        return RecognizerBusy(text)
    if _ACCESS.search(code or description or ""):
        return RecognizerRefused(text)
    return RecognizerClosed(text)
