"""The configuration of an OpenAI Realtime transcription session: as asked for, as in force.

Comes in: the ``session`` object of ``session.update`` (or of the beta's
``transcription_session.update``). Goes out: what is done of it, and that as the service would
show it, so that a client sees what has no effect: it is not in what comes back.
Source: OpenAI API reference, Realtime client events and sessions.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from edge.ingest.wav_header import SampleForm

PCM_RATE_HZ = 24000
G711_RATE_HZ = 8000
MODELS = re.compile(r"(whisper-1|gpt(-[a-z0-9.]+)*-(transcribe|whisper)(-[a-z0-9.]+)*)", re.I)
"""The service's own; which recognizer serves them is the gateway's choice."""
FormatName = Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
_BETA_FORMATS: dict[str, FormatName] = {
    "pcm16": "audio/pcm",
    "g711_ulaw": "audio/pcmu",
    "g711_alaw": "audio/pcma",
}
_FORMS = {
    "audio/pcm": SampleForm("pcm16", PCM_RATE_HZ),
    "audio/pcmu": SampleForm("mulaw", G711_RATE_HZ),
    "audio/pcma": SampleForm("alaw", G711_RATE_HZ),
}

Ignored = Any
"""Taken and without effect: recognizers here are not told of it."""


class Transcription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which model, and its hints."""

    model: str | None = None
    language: str | None = None
    languages: Ignored = None
    prompt: Ignored = None
    keywords: Ignored = None
    delay: Ignored = None


class TurnDetection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who ends turns; how, is the recognizer's affair."""

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: Ignored = None
    prefix_padding_ms: Ignored = None
    silence_duration_ms: Ignored = None
    create_response: Ignored = None
    interrupt_response: Ignored = None
    idle_timeout_ms: Ignored = None
    eagerness: Ignored = None


class Format(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How samples are written."""

    type: FormatName = "audio/pcm"
    rate: Literal[24000, 8000] | None = None


Maybe = msgspec.UnsetType
UNSET = msgspec.UNSET


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``session.audio.input``"""

    format: Format | Maybe | None = UNSET
    noise_reduction: Ignored = None
    transcription: Transcription | Maybe | None = UNSET
    turn_detection: TurnDetection | Maybe | None = UNSET


class Audio(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``session.audio``"""

    input: Input = Input()


class Session(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``session`` of ``session.update``."""

    type: Literal["transcription"] = "transcription"
    audio: Audio = Audio()
    include: Ignored = None
    id: Ignored = None
    object: Ignored = None
    expires_at: Ignored = None


class BetaSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``session`` of the beta's ``transcription_session.update``."""

    input_audio_format: Literal["pcm16", "g711_ulaw", "g711_alaw"] | Maybe = UNSET
    input_audio_transcription: Transcription | Maybe | None = UNSET
    input_audio_noise_reduction: Ignored = None
    turn_detection: TurnDetection | Maybe | None = UNSET
    include: Ignored = None
    modalities: Ignored = None
    id: Ignored = None
    object: Ignored = None
    expires_at: Ignored = None
    client_secret: Ignored = None

    def as_session(self) -> Session:
        """The same as the API has it now."""
        named = self.input_audio_format
        return Session(
            audio=Audio(
                Input(
                    format=UNSET if isinstance(named, Maybe) else Format(_BETA_FORMATS[named]),
                    transcription=self.input_audio_transcription,
                    turn_detection=self.turn_detection,
                )
            )
        )


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force."""

    format: FormatName = "audio/pcm"
    model: str = ""
    language: str | None = None
    detection: Literal["server_vad", "semantic_vad"] | None = "server_vad"
    """None: the client commits."""

    @property
    def form(self) -> SampleForm:
        """How samples are written."""
        return _FORMS[self.format]

    @property
    def fixed(self) -> tuple[str, ...]:
        """What the recognizer is opened with."""
        return self.format, self.model, self.language or ""

    def updated(self, session: Session) -> Terms:
        """With what is given changed, the rest as before."""
        given, changed = session.audio.input, self
        if isinstance(given.format, Format):
            changed = msgspec.structs.replace(changed, format=given.format.type)
        if isinstance(given.transcription, Transcription):
            asked = given.transcription
            changed = msgspec.structs.replace(
                changed, model=asked.model or self.model, language=asked.language or None
            )
        if not isinstance(given.turn_detection, Maybe):
            detection = given.turn_detection and given.turn_detection.type
            changed = msgspec.structs.replace(changed, detection=detection)
        return changed

    def shown(self, session_id: str, *, beta: bool) -> dict[str, Any]:
        """As the service shows a session."""
        transcription = {"model": self.model or None, "language": self.language, "prompt": ""}
        detection = None if self.detection is None else {"type": self.detection}
        head = {"id": session_id, "object": "realtime.transcription_session"}
        if beta:
            names = {now: before for before, now in _BETA_FORMATS.items()}
            return {
                **head,
                "input_audio_format": names[self.format],
                "input_audio_transcription": transcription,
                "turn_detection": detection,
            }
        form: dict[str, Any] = {"type": self.format}
        if self.format == "audio/pcm":
            form["rate"] = PCM_RATE_HZ
        source = {
            "format": form,
            "noise_reduction": None,
            "transcription": transcription,
            "turn_detection": detection,
        }
        return {**head, "type": "transcription", "audio": {"input": source}}
