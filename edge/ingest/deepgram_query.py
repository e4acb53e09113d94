"""The query of Deepgram's ``/v1/listen``: what is done, what is only noted, and what is refused.

Nothing is silently another than it was asked for: a parameter that would change the text and that
recognizers here cannot be told is refused, a hint that is not used is named in the ``Metadata``.
Source: Deepgram API reference, Listen streaming.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import parse_qsl
from uuid import uuid4

import msgspec

from edge.audio.container import Container
from edge.ingest.listen_query import ListenQuery, parse_listen_query
from edge.ingest.wav_header import SampleEncoding, SampleForm

MAX_FIELDS = 200
MOST_CHANNELS = 8
LEAST_UTTERANCE_END_MS = 1000
MOST_UTTERANCE_END_MS = 60_000
MODELS = re.compile(
    r"(nova|enhanced|base|whisper|general|meeting|phonecall|voicemail|finance|conversationalai|"
    r"video|medical)(-[a-z0-9.]+)*",
    re.IGNORECASE,
)
_ENCODINGS: dict[str, SampleEncoding] = {"linear16": "pcm16", "mulaw": "mulaw", "alaw": "alaw"}
_CONTAINERS: dict[str, Container] = {"ogg-opus": "ogg"}
_USED = frozenset({
    "encoding", "sample_rate", "channels", "multichannel", "interim_results", "vad_events",
    "utterance_end_ms", "endpointing", "language", "model", "mip_opt_out", "tag",
    "session", "speaker", "provider", "token",
})  # fmt: skip
_ALWAYS_ON = frozenset({"punctuate", "smart_format", "no_delay"})
"""What recognizers here do anyway."""
_UNABLE = frozenset({
    "alternatives", "callback", "callback_method", "detect_entities", "detect_language", "diarize",
    "diarize_model", "diarize_version", "profanity_filter", "redact", "replace", "search",
    "translate",
})  # fmt: skip
_OFF = frozenset({"", "false", "0", "1"})
"""Values that ask for nothing; one alternative is what there is."""


class Problem(msgspec.Struct, frozen=True):
    """The body of a refusal, as the service has it."""

    err_code: str
    err_msg: str
    request_id: str


class Warned(msgspec.Struct, frozen=True):
    """A parameter that has no effect."""

    parameter: str
    type: Literal["unsupported_parameter"]
    message: str


class DeepgramQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The validated query."""

    who: ListenQuery
    """The session, the speaker and the recognizer: parameters of ours."""
    model: str
    samples: SampleForm | None = None
    """How raw samples are written."""
    packets: bool = False
    """Whether each message is an Opus packet."""
    container: Container | None = None
    """The container that was named; without any form of audio the first bytes tell."""
    channels: int = 1
    """As many transcripts are told."""
    interims: bool = False
    vad_events: bool = False
    speech_finals: bool = True
    utterance_end_ms: int | None = None
    mip_opt_out: bool | None = None
    labels: tuple[str, ...] = ()
    warnings: tuple[Warned, ...] = ()


class BadQuery(Exception):
    """It is refused; ``str()`` says why."""


_encode = msgspec.json.Encoder().encode


def refusal(message: str, code: str = "INVALID_QUERY_PARAMETER") -> str:
    """The body of a refused upgrade."""
    return _encode(Problem(code, message, str(uuid4()))).decode()


def parse_deepgram_query(query: str) -> DeepgramQuery:
    """Validate a query; raises ``BadQuery``. Of a repeated name the first value counts."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise BadQuery(f"a query has at most {MAX_FIELDS} fields") from error
    values = dict(reversed(pairs))
    for name in sorted(_UNABLE & values.keys()):
        if values[name].lower() not in _OFF:
            raise BadQuery(f"{name} is not supported by this gateway; leave it out")
    who = parse_listen_query(query)
    if isinstance(who, str):
        raise BadQuery(who)
    form = _form(values)
    interims = _flag(values, "interim_results")
    utterance_end_ms = _utterance_end(values, interims=interims)
    is_multichannel = _flag(values, "multichannel")
    if is_multichannel and form.samples is None:
        raise BadQuery("multichannel needs encoding=linear16, mulaw or alaw and channels")
    return msgspec.structs.replace(
        form,
        who=msgspec.structs.replace(who, language=values.get("language") or who.language),
        model=values.get("model", ""),
        channels=form.samples.channels if form.samples and is_multichannel else 1,
        interims=interims,
        vad_events=_flag(values, "vad_events"),
        speech_finals=values.get("endpointing", "").lower() != "false",
        utterance_end_ms=utterance_end_ms,
        mip_opt_out=_flag(values, "mip_opt_out") if "mip_opt_out" in values else None,
        labels=tuple(value for name, value in pairs if name == "tag" and value),
        warnings=tuple(_warnings(values)),
    )


def _form(values: dict[str, str]) -> DeepgramQuery:
    known = DeepgramQuery(who=ListenQuery(), model="")
    encoding = values.get("encoding", "").lower()
    rate_hz = _number(values, "sample_rate", 1, 1_000_000)
    channels = _number(values, "channels", 1, MOST_CHANNELS) or 1
    if encoding in _ENCODINGS:
        if rate_hz is None:
            raise BadQuery(f"encoding={encoding} needs sample_rate")
        samples = SampleForm(_ENCODINGS[encoding], rate_hz, channels)
        if problem := samples.problem:
            raise BadQuery(problem)
        return msgspec.structs.replace(known, samples=samples)
    if encoding == "opus":
        return msgspec.structs.replace(known, packets=True)
    if encoding in _CONTAINERS:
        return msgspec.structs.replace(known, container=_CONTAINERS[encoding])
    if encoding:
        able = ", ".join((*_ENCODINGS, "opus", *_CONTAINERS))
        raise BadQuery(
            f"encoding={encoding[:40]} cannot be decoded; send {able}, or WAV, Ogg Opus or WebM "
            "without encoding"
        )
    return known


def _utterance_end(values: dict[str, str], *, interims: bool) -> int | None:
    least, most = LEAST_UTTERANCE_END_MS, MOST_UTTERANCE_END_MS
    if values.get("utterance_end_ms", "").lower() == "false":
        return None
    given = _number(values, "utterance_end_ms", least, most)
    if given is not None and not interims:
        raise BadQuery("utterance_end_ms needs interim_results=true")
    return given


def _warnings(values: dict[str, str]) -> list[Warned]:
    unused = [
        (name, "the recognizer is not told of it")
        for name in sorted(values.keys() - _USED - _ALWAYS_ON - _UNABLE)
    ]
    if values.get("endpointing", "").isdecimal():
        unused.append(("endpointing", "the recognizer decides when speech has ended"))
    return [
        Warned(name[:80], "unsupported_parameter", f"no effect: {why}") for name, why in unused[:32]
    ]


def _flag(values: dict[str, str], name: str) -> bool:
    value = values.get(name, "").lower()
    if value not in ("", "true", "false"):
        raise BadQuery(f"{name} is true or false")
    return value == "true"


def _number(values: dict[str, str], name: str, least: int, most: int) -> int | None:
    text = values.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
        raise BadQuery(f"{name} is a whole number from {least} to {most}")
    return int(text)
