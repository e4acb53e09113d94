"""The form of ``POST /v1/audio/transcriptions``: what may be asked, and what is told of the rest.

Source: OpenAI API reference, Create transcription.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from edge.api.http import NO_HEADERS, ApiError
from edge.api.multipart import BadForm, Field, parse_form
from edge.session.names import name_problem

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]
_FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
_GRANULARITIES = "timestamp_granularities[]"
_SIMPLE = frozenset({
    "model", "language", "prompt", "response_format", "temperature", "stream",
    "session", "speaker", "provider",
})  # fmt: skip
_HINTS = frozenset({"prompt", "temperature", "keywords[]", "languages[]", "chunking_strategy"})
"""Taken and without effect; the answer's header names them."""
_UNABLE = frozenset({"include[]", "known_speaker_names[]", "known_speaker_references[]"})


class TranscriptionForm(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of the form."""

    file: Annotated[str, msgspec.Meta(extra_json_schema={"format": "binary"})]
    """WAV (16-bit PCM, G.711), or Opus in Ogg or WebM."""
    model: str
    """``whisper-1`` and its successors, or the name of a recognizer of this gateway."""
    language: str = ""
    response_format: ResponseFormat = "json"
    timestamp_granularities: Annotated[
        list[Literal["word", "segment"]], msgspec.Meta(description="only with verbose_json")
    ] = msgspec.field(default_factory=list, name=_GRANULARITIES)
    stream: bool = False
    prompt: str = ""
    temperature: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    session: str = ""
    """Not of the original: the session that it becomes part of."""
    speaker: str = ""
    """Not of the original: who speaks."""
    provider: str = ""
    """Not of the original: the recognizer, before ``model``."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A form that can be answered."""

    audio: memoryview
    model: str
    language: str | None = None
    response_format: ResponseFormat = "json"
    words: bool = False
    segments: bool = True
    stream: bool = False
    temperature: float = 0.0
    session: str | None = None
    speaker: str | None = None
    ignored: tuple[str, ...] = ()
    """Fields without effect."""


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong."""

    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(msgspec.Struct, frozen=True):
    """An error as clients of the original know it."""

    error: Details


class TranscriptionError(ApiError):
    """An error in the original's form."""

    def __init__(
        self, status: int, details: Details, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        super().__init__(status, details.code or details.type, details.message, headers)
        self.body = ErrorEnvelope(details)


def in_their_form(error: ApiError) -> ApiError:
    """What our own layer found wrong, in the original's form."""
    if isinstance(error, TranscriptionError):
        return error
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    code = getattr(error.body, "code", None)
    details = Details(message=str(error), type=kind, code=code)
    return TranscriptionError(error.status, details, error.headers)


def wrong(message: str, param: str | None = None, code: str | None = None) -> TranscriptionError:
    """A form that cannot be answered."""
    return TranscriptionError(400, Details(message=message, param=param, code=code))


def parse_asked(body: bytes, content_type: str) -> Asked:
    """Validate a form; raises ``TranscriptionError``."""
    try:
        fields = parse_form(body, content_type)
        return _asked(fields)
    except BadForm as problem:
        raise wrong(f"The form cannot be read: {problem}") from None


def _asked(fields: list[Field]) -> Asked:
    given = {field.name: field for field in reversed(fields)}
    known = _SIMPLE | _HINTS | {"file", _GRANULARITIES}
    for name in given:
        plain = name.partition("[")[0]
        if name in _UNABLE:
            raise wrong(f"{plain} is not supported by this gateway", plain, "unsupported_parameter")
        if name not in known and plain != "chunking_strategy":
            raise wrong(f"Unrecognized request argument supplied: {name[:80]}", name[:80])
    if "file" not in given:
        raise wrong("you must provide a file", "file", "missing_required_parameter")
    texts = {name: given[name].text for name in _SIMPLE if name in given}
    if not texts.get("model"):
        raise wrong("you must provide a model parameter", "model", "missing_required_parameter")
    response_format = texts.get("response_format") or "json"
    if response_format not in _FORMATS:
        told = f"response_format '{response_format[:40]}' is not one of {', '.join(_FORMATS)}"
        raise wrong(told, "response_format", "unsupported_value")
    granularities = {field.text for field in fields if field.name == _GRANULARITIES}
    if granularities - {"word", "segment"}:
        raise wrong("timestamp_granularities are word and segment", _GRANULARITIES, "invalid_value")
    if granularities and response_format != "verbose_json":
        told = "timestamp_granularities need response_format=verbose_json"
        raise wrong(told, _GRANULARITIES, "invalid_value")
    stream = _flag(texts.get("stream", ""))
    if stream and response_format not in ("json", "text"):
        raise wrong("stream needs response_format=json or text", "stream", "invalid_value")
    return Asked(
        audio=given["file"].content,
        model=texts.get("provider") or texts["model"],
        language=texts.get("language") or None,
        response_format=msgspec.convert(response_format, ResponseFormat),
        words="word" in granularities,
        segments=not granularities or "segment" in granularities,
        stream=stream,
        temperature=_temperature(texts.get("temperature", "")),
        session=_name(texts, "session"),
        speaker=_name(texts, "speaker"),
        ignored=tuple(
            sorted(
                {name.partition("[")[0] for name in given.keys() - known}
                | {name.partition("[")[0] for name in _HINTS & given.keys()}
            )
        ),
    )


def _flag(text: str) -> bool:
    if text.lower() not in ("", "true", "false", "1", "0"):
        raise wrong("stream is true or false", "stream", "invalid_value")
    return text.lower() in ("true", "1")


def _temperature(text: str) -> float:
    try:
        value = float(text or 0.0)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise wrong("temperature is a number from 0 to 1", "temperature", "invalid_value")
    return value


def _name(texts: dict[str, str], field: str) -> str | None:
    name = texts.get(field) or None
    if name is not None and (problem := name_problem(name)):
        raise wrong(f"{field} cannot be used: {problem}", field, "invalid_value")
    return name
