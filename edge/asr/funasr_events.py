"""The messages of DashScope's realtime recognition tasks (Fun-ASR).

Comes in: what a task is to do, and the service's messages. Goes out: instructions as JSON bytes;
the service's events as Structs. Only ``edge.asr.funasr*`` call it. Source: Alibaba Cloud Model
Studio, Fun-ASR client events and server events.
"""

from __future__ import annotations

import msgspec

from edge.asr.service import plain
from edge.errors import RecognizerBusy, RecognizerClosed, RecognizerError, RecognizerRefused

NAME = "FunASR"
RATE_HZ = 16000
BYTES_PER_MS = RATE_HZ * 2 / 1000
STARTED = "task-started"
RESULT = "result-generated"
FINISHED = "task-finished"
FAILED = "task-failed"
HINTED_LANGUAGES = frozenset({"zh", "en", "ja"})
"""Those the service takes hints of; it detects the language without one."""


class _InstructionHeader(msgspec.Struct, frozen=True):
    action: str
    task_id: str
    streaming: str = "duplex"


class Parameters(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``payload.parameters`` of ``run-task``."""

    format: str
    sample_rate: int
    heartbeat: bool
    """Silence alone does not end the task; otherwise a minute of it does."""
    language_hints: tuple[str, ...] = ()


class _Empty(msgspec.Struct, frozen=True):
    pass


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    task_group: str = "audio"
    task: str = "asr"
    function: str = "recognition"
    model: str
    parameters: Parameters
    input: _Empty = _Empty()


class _Finish(msgspec.Struct, frozen=True):
    input: _Empty = _Empty()


class _Instruction(msgspec.Struct, frozen=True):
    header: _InstructionHeader
    payload: _Run | _Finish


_encoder = msgspec.json.Encoder()


def parameters(language: str | None) -> Parameters:
    """How audio comes, with the client's language if the service takes a hint of it."""
    primary = (language or "").partition("-")[0].lower()
    hints = (primary,) if primary in HINTED_LANGUAGES else ()
    return Parameters(format="pcm", sample_rate=RATE_HZ, heartbeat=True, language_hints=hints)


def run_task(task_id: str, model: str, settings: Parameters) -> bytes:
    """The instruction that starts a task; audio may follow its ``task-started``."""
    header = _InstructionHeader("run-task", task_id)
    return _encoder.encode(_Instruction(header, _Run(model=model, parameters=settings)))


def finish_task(task_id: str) -> bytes:
    """The instruction that ends a task; its last results come before ``task-finished``."""
    return _encoder.encode(_Instruction(_InstructionHeader("finish-task", task_id), _Finish()))


class Header(msgspec.Struct, frozen=True):
    """What happened to which task."""

    event: str
    task_id: str = ""
    error_code: str | None = None
    error_message: str | None = None


class Event(msgspec.Struct, frozen=True):
    """A message of the service; only results have a payload worth reading."""

    header: Header
    payload: msgspec.Raw = msgspec.Raw(b"{}")


class Sentence(msgspec.Struct, frozen=True):
    """Something said; times are milliseconds of the task's audio."""

    text: str | None = None
    begin_time: float | None = None
    end_time: float | None = None
    """None while the sentence is open."""
    sentence_end: bool | None = None
    """Only a true one makes the text final."""
    sentence_id: int | None = None
    """Counts from 1 in each task; models of before 2026 may leave it out."""
    heartbeat: bool | None = None
    """A sign of life, no result."""


class Output(msgspec.Struct, frozen=True):
    """``payload.output``"""

    sentence: Sentence | None = None


class Result(msgspec.Struct, frozen=True):
    """The payload of ``result-generated``."""

    output: Output = Output()


_event_decoder = msgspec.json.Decoder(Event)
_result_decoder = msgspec.json.Decoder(Result)


def decode(message: bytes) -> Event:
    """A message of the service; raises ``msgspec.DecodeError`` for another form."""
    return _event_decoder.decode(message)


def sentence_of(event: Event) -> Sentence | None:
    """What a ``result-generated`` says; raises ``msgspec.DecodeError`` for another form."""
    return _result_decoder.decode(event.payload).output.sentence


_ACCESS = ("InvalidApiKey", "AccessDenied", "Arrearage", "NotFound", "Unpurchased")
_REQUEST = ("InvalidParameter", "InvalidTask", "UnsupportedModel", "BadRequest")
_BUSY = ("Throttling", "RateQuota", "InternalError", "SystemError", "ServingError", "Unavailable")


def as_error(header: Header, *, accepted: bool) -> RecognizerError:
    """The error of a ``task-failed``, by whether trying again may help.

    ``accepted`` says that the service has started a task of this configuration: an invalid request
    after that is a fault of this connection.
    """
    code = header.error_code or ""
    words = [word for word in (code, header.error_message) if word]
    text = f"{NAME}: " + plain(": ".join(words) or "task failed without a reason")
    if any(part in code for part in _ACCESS):
        return RecognizerRefused(text)
    if any(part in code for part in _REQUEST) and not accepted:
        return RecognizerRefused(text)
    if any(part in code for part in _BUSY):
        return RecognizerBusy(text)
    return RecognizerClosed(text)
