"""Deepgram Flux (``/v2/listen``), which finds the turns of a conversation: one WebSocket per track.

Comes in: mono PCM at 16 kHz. Goes out: the text so far of each turn, and its final when it ends.
``edge.asr.registry`` builds it. Source: Deepgram API reference, Listen turn-based (v2).
"""

from __future__ import annotations

import itertools
from typing import Annotated, ClassVar, Literal

import msgspec

from edge.asr.deepgram import DeepgramAccess, DeepgramSettings
from edge.asr.flux_stream import NAME, RATE_HZ, FluxCounts, FluxStream
from edge.asr.interface import AudioWanted, Emit, Recognizer, RecognizerStream, StreamRequest
from edge.errors import RecognizerRefused, SettingError
from edge.option import option

MULTILINGUAL_MODEL = "flux-general-multi"
NO_HINTS = frozenset({"", "auto", "multi"})


class FluxSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How Flux ends turns and what it listens for; its key is ``DEEPGRAM_API_KEY``."""

    flux_model: Annotated[str, option("Model of Deepgram Flux", env="FLUX_MODEL")] = (
        "flux-general-en"
    )
    """flux-general-multi knows ten languages and takes hints."""
    flux_eot_threshold: Annotated[
        float | None,
        option("Confidence that ends a turn; empty is the service's own, 0.7", ge=0.5, le=1.0),
    ] = None
    flux_eager_eot_threshold: Annotated[
        float | None,
        option("Confidence that announces the end of a turn; empty is never", ge=0.3, le=0.9),
    ] = None
    """Not above the threshold that ends it."""
    flux_eot_timeout_ms: Annotated[
        int | None,
        option("Silence that ends a turn; empty is the service's own, 5000", ge=500, le=60000),
    ] = None
    flux_keyterms: Annotated[
        tuple[str, ...], option("Words and names to listen for", env="FLUX_KEYTERMS")
    ] = ()
    flux_language_hints: Annotated[
        tuple[str, ...], option("Languages to expect; only flux-general-multi takes them")
    ] = ()
    """A client's ``lang`` takes their place."""


class FluxRecognizer(Recognizer):
    """Opens ``/v2/listen`` streams; raises ``SettingError`` for settings it cannot use."""

    name: ClassVar[str] = "flux"
    times: ClassVar[Literal["exact", "estimated"]] = "exact"
    has_messages: ClassVar[bool] = True

    def __init__(self, settings: FluxSettings, deepgram: DeepgramSettings) -> None:
        _check(settings)
        self._settings = settings
        self._access = DeepgramAccess(deepgram, "/v2/listen")
        self._numbers = itertools.count(1)
        self.counts: FluxCounts = FluxCounts()
        """For metrics; only grows."""

    @property
    def wants(self) -> AudioWanted:
        return AudioWanted(encoding="pcm16", rate_hz=RATE_HZ)

    async def start(self) -> None:
        await self._access.start()

    async def open(self, request: StreamRequest, emit: Emit) -> RecognizerStream:
        """See ``Recognizer.open``; ``RecognizerRefused`` for a language the model does not know."""
        connection = await self._access.connect(request, self._parameters(request))
        return FluxStream(
            connection,
            lambda: f"{request.track}-{next(self._numbers)}",
            self.counts,
            emit,
            verbatim=request.verbatim,
            is_behind=request.is_behind,
        )

    def _parameters(self, request: StreamRequest) -> list[tuple[str, str]]:
        settings = self._settings
        parameters = [
            ("model", settings.flux_model),
            ("encoding", "linear16"),
            ("sample_rate", str(RATE_HZ)),
        ]
        for name, value in (
            ("eot_threshold", settings.flux_eot_threshold),
            ("eager_eot_threshold", settings.flux_eager_eot_threshold),
            ("eot_timeout_ms", settings.flux_eot_timeout_ms),
        ):
            if value is not None:
                parameters.append((name, f"{value:g}"))
        parameters += [("keyterm", term) for term in settings.flux_keyterms]
        parameters += [("language_hint", hint) for hint in self._hints(request.language or "")]
        return parameters

    def _hints(self, language: str) -> tuple[str, ...]:
        named = language.lower() not in NO_HINTS
        if self._settings.flux_model == MULTILINGUAL_MODEL:
            return (language,) if named else self._settings.flux_language_hints
        if named and language.replace("_", "-").split("-")[0].lower() not in ("en", "english"):
            raise RecognizerRefused(
                f"{NAME}: {self._settings.flux_model} only knows English, not lang={language};"
                f" set FLUX_MODEL={MULTILINGUAL_MODEL}"
            )
        return ()


def _check(settings: FluxSettings) -> None:
    eager, end = settings.flux_eager_eot_threshold, settings.flux_eot_threshold
    if eager is not None and eager > (0.7 if end is None else end):
        raise SettingError(
            "EDGESCRIBE_FLUX_EAGER_EOT_THRESHOLD",
            f"{eager:g}",
            "it is not above the threshold that ends a turn",
        )
    if settings.flux_language_hints and settings.flux_model != MULTILINGUAL_MODEL:
        raise SettingError(
            "EDGESCRIBE_FLUX_LANGUAGE_HINTS",
            ",".join(settings.flux_language_hints),
            f"only FLUX_MODEL={MULTILINGUAL_MODEL} takes hints",
        )
