"""``POST /v1/audio/transcriptions``: a file in, its text out, as OpenAI's clients expect it.

See docs/front-doors.md for what is different. Source: OpenAI API reference, Create transcription,
the transcription objects and the streaming events.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import zlib
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import msgspec

from edge.api.http import LONGEST_DEADLINE_S, Answer, Call, Document, Endpoint, NoQuery, Streamed
from edge.api.multipart import MEDIA_TYPE
from edge.api.subtitles import Cue, Flattened, InOrder, Piece, new_cue, srt_piece, vtt_piece
from edge.api.transcription_form import (
    Asked,
    Details,
    ErrorEnvelope,
    TranscriptionError,
    TranscriptionForm,
    in_their_form,
    parse_asked,
    wrong,
)
from edge.ingest.file import (
    FileAsk,
    FileHeard,
    FileListener,
    NotHeard,
    Refused,
    Spoken,
    UnusableFile,
    UsedUp,
)
from edge.ingest.words import spread

PATH = "/v1/audio/transcriptions"
MAX_FILE_BYTES = 25 * 1024 * 1024
MAX_BODY_BYTES = MAX_FILE_BYTES + 64 * 1024
"""With the other fields of the form."""
JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
EVENTS = "text/event-stream; charset=utf-8"

_encode = msgspec.json.Encoder().encode


class Duration(msgspec.Struct, frozen=True, kw_only=True):
    """How much audio it was."""

    type: str = "duration"
    seconds: float


class Transcription(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``json``."""

    text: str
    usage: Duration


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance; what recognizers here do not tell is 0 or empty."""

    id: int
    seek: int = 0
    start: float
    end: float
    text: str
    tokens: tuple[int, ...] = ()
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float = 0.0


class TimedWord(msgspec.Struct, frozen=True):
    """A word; its times are the utterance's, shared out by length."""

    word: str
    start: float
    end: float


class VerboseTranscription(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer of ``verbose_json``."""

    task: str = "transcribe"
    language: str
    duration: float
    text: str
    segments: list[Segment] | None = None
    words: list[TimedWord] | None = None
    usage: Duration


class TextDelta(msgspec.Struct, frozen=True, tag="transcript.text.delta"):
    """An utterance of a stream."""

    delta: str


class TextDone(msgspec.Struct, frozen=True, tag="transcript.text.done"):
    """The end of a stream."""

    text: str


def transcription_endpoint(listener: FileListener) -> Endpoint[Any, Any]:
    """The endpoint, answered by a worker's listener."""
    return Endpoint(
        method="POST",
        path=PATH,
        summary="Transcribe a file, as OpenAI's API does",
        query=NoQuery,
        body=TranscriptionForm,
        media_type=MEDIA_TYPE,
        max_body_bytes=MAX_BODY_BYTES,
        answer=(Transcription, VerboseTranscription),
        errors=(429, 502),
        deadline_s=LONGEST_DEADLINE_S,
        reshape=in_their_form,
        handle=Transcriptions(listener).create,
    )


class Transcriptions:
    """Answers the endpoint."""

    def __init__(self, listener: FileListener) -> None:
        self._listener = listener

    async def create(self, call: Call[NoQuery, None]) -> Answer:
        """Hear the file, and write down what was said."""
        asked = parse_asked(call.text, call.content_type)
        if len(asked.audio) > MAX_FILE_BYTES:
            told = f"Maximum content size limit ({MAX_FILE_BYTES}) exceeded ({len(asked.audio)})"
            raise TranscriptionError(413, Details(message=told, param="file"))
        try:
            provider = self._listener.provider_of(asked.model)
        except LookupError as able:
            told = f"The model '{asked.model[:80]}' does not exist; recognizers here: {able}"
            details = Details(message=told, param="model", code="model_not_found")
            raise TranscriptionError(404, details) from None
        ask = FileAsk(
            session=asked.session, provider=provider, language=asked.language, quota=call.quota
        )
        if asked.speaker is not None:
            ask = msgspec.structs.replace(ask, speaker=asked.speaker)
        headers = {"X-Edgescribe-Ignored": ", ".join(asked.ignored)} if asked.ignored else {}
        if asked.stream:
            self._check(asked)
            parts = _streamed(self._listener, asked, ask)
            return Streamed(content_type=EVENTS, parts=parts, headers=headers)
        try:
            heard = await self._listener.listen(asked.audio, ask)
        except (UnusableFile, NotHeard) as problem:
            raise _refused(asked, problem) from None
        return _written(asked, heard, {**headers, "X-Edgescribe-Session": _ascii(heard.session)})

    def _check(self, asked: Asked) -> None:
        try:
            self._listener.check(asked.audio)
        except UnusableFile as problem:
            raise _refused(asked, problem) from None


def _refused(asked: Asked, problem: UnusableFile | NotHeard) -> TranscriptionError:
    if isinstance(problem, UnusableFile):
        return wrong(str(problem), "file", "invalid_value")
    if isinstance(problem, Refused):
        if asked.language is not None:
            return wrong(str(problem), "language", "recognizer_refused")
        details = Details(message=str(problem), type="server_error", code="recognizer_refused")
        return TranscriptionError(502, details)
    if isinstance(problem, UsedUp):
        kind = "insufficient_quota"
        return TranscriptionError(429, Details(message=str(problem), type=kind, code=kind))
    details = Details(message=str(problem), type="server_error", code="overloaded")
    return TranscriptionError(503, details, {"Retry-After": "5"})


async def _streamed(
    listener: FileListener, asked: Asked, ask: FileAsk
) -> AsyncGenerator[bytes, None]:
    """Server-sent events: each utterance as it is final, then the whole text."""
    # What is said in a file is bound by how long files may play.
    told: asyncio.Queue[Spoken | None] = asyncio.Queue()
    work = asyncio.create_task(listener.listen(asked.audio, ask, told.put_nowait))
    work.add_done_callback(lambda task: told.put_nowait(None))
    texts: list[str] = []
    try:
        while (spoken := await told.get()) is not None:
            yield _event(TextDelta((" " if texts else "") + spoken.text))
            texts.append(spoken.text)
        try:
            await work
        except (UnusableFile, NotHeard) as problem:
            body = _refused(asked, problem).body
            assert isinstance(body, ErrorEnvelope)
            yield _event(body)
            return
        yield _event(TextDone(" ".join(texts)))
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError, UnusableFile, NotHeard):
            await work


def _event(body: msgspec.Struct) -> bytes:
    return b"data: " + _encode(body) + b"\n\n"


def _written(asked: Asked, heard: FileHeard, headers: Mapping[str, str]) -> Document:
    write = _WRITERS[asked.response_format]
    content_type = JSON if asked.response_format.endswith("json") else TEXT
    return Document(content_type=content_type, body=write(asked, heard), headers=headers)


def _text_of(heard: FileHeard) -> str:
    return " ".join(spoken.text for spoken in heard.said)


def _json(asked: Asked, heard: FileHeard) -> bytes:
    return _encode(Transcription(text=_text_of(heard), usage=_usage(heard)))


def _usage(heard: FileHeard) -> Duration:
    return Duration(seconds=round(heard.duration_ms / 1000, 3))


def _plain(asked: Asked, heard: FileHeard) -> bytes:
    return (_text_of(heard) + "\n").encode()


def _verbose(asked: Asked, heard: FileHeard) -> bytes:
    languages = (spoken.language for spoken in heard.said if spoken.language)
    segments = [_segment(number, spoken, asked) for number, spoken in enumerate(heard.said)]
    words = [
        TimedWord(*found)
        for spoken in heard.said
        for found in spread(spoken.text, spoken.start_ms / 1000, spoken.end_ms / 1000)
    ]
    return _encode(
        VerboseTranscription(
            language=next(languages, asked.language or ""),
            duration=round(heard.duration_ms / 1000, 3),
            text=_text_of(heard),
            segments=segments if asked.segments else None,
            words=words if asked.words else None,
            usage=_usage(heard),
        )
    )


def _segment(number: int, spoken: Spoken, asked: Asked) -> Segment:
    body = spoken.text.encode()
    return Segment(
        id=number,
        start=round(spoken.start_ms / 1000, 3),
        end=round(spoken.end_ms / 1000, 3),
        text=" " + spoken.text,
        temperature=asked.temperature,
        avg_logprob=round(math.log(spoken.confidence), 4) if spoken.confidence else 0.0,
        compression_ratio=round(len(body) / len(zlib.compress(body)), 4),
    )


def _subtitles(heard: FileHeard, write: Callable[..., str]) -> str:
    order, flat = InOrder(), Flattened()
    found: list[tuple[Piece, Cue]] = []
    cues = [new_cue(each.start_ms, each.end_ms, "", each.text) for each in heard.said]
    ordered = [cue for given in cues if given is not None for cue in order.add(given)]
    for cue in (*ordered, *order.rest()):
        found += flat.add(cue)
    found += flat.rest()
    return "".join(write(number, piece, cue) for number, (piece, cue) in enumerate(found, 1))


def _srt(asked: Asked, heard: FileHeard) -> bytes:
    return _subtitles(heard, lambda number, piece, cue: srt_piece(number, piece)).encode()


def _vtt(asked: Asked, heard: FileHeard) -> bytes:
    told = _subtitles(heard, lambda number, piece, cue: vtt_piece(piece, cue))
    return ("WEBVTT\n\n" + told).encode()


_WRITERS: dict[str, Callable[[Asked, FileHeard], bytes]] = {
    "json": _json,
    "text": _plain,
    "verbose_json": _verbose,
    "srt": _srt,
    "vtt": _vtt,
}


def _ascii(name: str) -> str:
    """A session's name as a header can have it."""
    return name if name.isascii() and name.isprintable() else ""
