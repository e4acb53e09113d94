"""The messages of Deepgram's live transcription, as the service tells them.

Comes in: transcripts with seconds of the client's audio. Goes out: JSON; and what clients ask.
Source: Deepgram API reference, Listen streaming: Results, Metadata, SpeechStarted, UtteranceEnd,
Error, ConfigureFailure; KeepAlive, Finalize, CloseStream, Configure.
"""

from __future__ import annotations

import msgspec

from edge.ingest.deepgram_query import Warned
from edge.ingest.words import spread


class Word(msgspec.Struct, frozen=True):
    """A word; its times are the utterance's, shared out by length."""

    word: str
    start: float
    end: float
    confidence: float
    punctuated_word: str
    speaker: int | None = None


class Alternative(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was said."""

    transcript: str
    confidence: float
    words: list[Word]
    languages: list[str] | None = None


class Channel(msgspec.Struct, frozen=True):
    """What was heard on one channel."""

    alternatives: list[Alternative]


class ModelInfo(msgspec.Struct, frozen=True):
    """Which recognizer heard it."""

    name: str
    version: str
    arch: str


class ResultsMetadata(msgspec.Struct, frozen=True):
    """Of the connection."""

    request_id: str
    model_info: ModelInfo
    model_uuid: str


class Results(msgspec.Struct, frozen=True, tag="Results"):
    """A transcript from ``start`` on for ``duration`` seconds."""

    channel_index: tuple[int, int]
    duration: float
    start: float
    is_final: bool
    speech_final: bool
    channel: Channel
    metadata: ResultsMetadata
    from_finalize: bool = False


class SpeechStarted(msgspec.Struct, frozen=True, tag="SpeechStarted"):
    """Somebody began to speak."""

    channel: tuple[int, int]
    timestamp: float


class UtteranceEnd(msgspec.Struct, frozen=True, tag="UtteranceEnd"):
    """Nothing was said for as long as the client had asked."""

    channel: tuple[int, int]
    last_word_end: float


class Metadata(msgspec.Struct, frozen=True, tag="Metadata"):
    """The last message."""

    transaction_key: str
    request_id: str
    sha256: str
    created: str
    duration: float
    channels: int
    models: list[str]
    model_info: dict[str, ModelInfo]
    warnings: tuple[Warned, ...] = ()


class Error(msgspec.Struct, frozen=True, tag="Error"):
    """A message that could not be read."""

    variant: str
    description: str
    message: str


class ConfigureFailure(msgspec.Struct, frozen=True, tag="ConfigureFailure"):
    """What cannot be changed."""

    request_id: str
    code: str
    description: str


class KeepAlive(msgspec.Struct, frozen=True, tag="KeepAlive"):
    """The client is still there."""


class Finalize(msgspec.Struct, frozen=True, tag="Finalize"):
    """Tell all that was said so far as final."""


class CloseStream(msgspec.Struct, frozen=True, tag="CloseStream"):
    """No more audio comes."""


class Configure(msgspec.Struct, frozen=True, tag="Configure"):
    """Change what cannot be changed here."""


Request = KeepAlive | Finalize | CloseStream | Configure
decode_request = msgspec.json.Decoder(Request).decode
"""Raises ``msgspec.DecodeError``."""
encode = msgspec.json.Encoder().encode


def alternative(
    text: str,
    start_s: float,
    end_s: float,
    confidence: float | None,
    speaker: int | None = None,
    language: str | None = None,
) -> Alternative:
    """What was said, with its words; a confidence that nobody gives is 1."""
    sure = 1.0 if confidence is None else confidence
    words = [
        Word(_plain(word), start, end, sure, word, speaker)
        for word, start, end in spread(text, start_s, end_s)
    ]
    return Alternative(text, sure, words, None if language is None else [language])


_MARKS = ".,;:!?\"'()[]-\u2026\u2013\u2014"


def _plain(word: str) -> str:
    return word.strip(_MARKS).lower() or word.lower()
