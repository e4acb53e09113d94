"""Recognizers and the fakes of their services, for what every recognizer has to survive."""

from __future__ import annotations

from random import Random
from typing import Any

from edge.asr.deepgram import DeepgramRecognizer, DeepgramSettings
from edge.asr.flux import FluxRecognizer, FluxSettings
from edge.asr.funasr import FunASRRecognizer, FunASRSettings
from edge.asr.interface import (
    AudioWanted,
    Emit,
    Recognizer,
    RecognizerStream,
    Source,
    StreamRequest,
)
from tests.asr.fakes.common import Fault
from tests.asr.fakes.deepgram_endpoint import KEY, FakeDeepgram
from tests.asr.fakes.flux_endpoint import FakeFlux
from tests.asr.fakes.funasr_endpoint import KEY as FUNASR_KEY
from tests.asr.fakes.funasr_endpoint import PATH, FakeFunASR
from tests.asr.fakes.openai_endpoint import FakeOpenAI
from tests.asr.support.faults import Vendor
from tests.asr.support.supervision import openai

SLOWEST_S = 0.06
"""The longest a fake thinks about an utterance."""
SILENT_LIMIT_S = 0.3
"""Talks are told many times faster than real time, so silence is felt as much sooner."""


class Hasty(Recognizer):
    """A recognizer that gives its service up sooner."""

    def __init__(self, inner: Recognizer) -> None:
        self.name = inner.name  # type: ignore[misc]
        self.times = inner.times  # type: ignore[misc]
        self._inner = inner

    @property
    def wants(self) -> AudioWanted:
        return self._inner.wants

    def wants_for(self, source: Source) -> AudioWanted:
        return self._inner.wants_for(source)

    async def open(self, request: StreamRequest, emit: Emit) -> RecognizerStream:
        stream = await self._inner.open(request, emit)
        if stream.silent_limit_s is not None:
            stream.silent_limit_s = SILENT_LIMIT_S
        return stream


def _fake_openai(chance: Random) -> FakeOpenAI:
    return FakeOpenAI(delay_s=lambda item: chance.uniform(0, SLOWEST_S))


def _fake_deepgram(chance: Random) -> FakeDeepgram:
    return FakeDeepgram(faults=lambda number: Fault(delay_s=chance.uniform(0, SLOWEST_S)))


def _fake_flux(chance: Random) -> FakeFlux:
    return FakeFlux(faults=lambda number: Fault(delay_s=chance.uniform(0, SLOWEST_S)))


def _fake_funasr(chance: Random) -> FakeFunASR:
    return FakeFunASR(
        faults=lambda number: Fault(delay_s=chance.uniform(0, SLOWEST_S)), sentence_silence_ms=400
    )


def _deepgram(url: str, **settings: Any) -> Recognizer:
    settings = {"deepgram_api_key": KEY, "deepgram_url": url, **settings}
    return Hasty(DeepgramRecognizer(DeepgramSettings(**settings)))


def _flux(url: str) -> Recognizer:
    deepgram = DeepgramSettings(deepgram_api_key=KEY, deepgram_url=url)
    return Hasty(FluxRecognizer(FluxSettings(), deepgram))


def _funasr(url: str) -> Recognizer:
    address = url.rstrip("/") + PATH
    return Hasty(FunASRRecognizer(FunASRSettings(funasr_api_key=FUNASR_KEY, funasr_url=address)))


OPENAI = Vendor(name="openai", endpoint=_fake_openai, recognizer=openai)
DEEPGRAM = Vendor(name="deepgram", endpoint=_fake_deepgram, recognizer=_deepgram)
LINEAR16 = Vendor(
    name="deepgram-linear16",
    endpoint=_fake_deepgram,
    recognizer=lambda url: _deepgram(url, deepgram_encoding="linear16"),
)
FLUX = Vendor(name="flux", endpoint=_fake_flux, recognizer=_flux)
FUNASR = Vendor(name="funasr", endpoint=_fake_funasr, recognizer=_funasr)

VENDORS: dict[str, tuple[Vendor, Vendor]] = {
    "openai": (OPENAI, DEEPGRAM),
    "deepgram": (DEEPGRAM, OPENAI),
    "deepgram-linear16": (LINEAR16, FLUX),
    "flux": (FLUX, FUNASR),
    "funasr": (FUNASR, OPENAI),
}
"""Each with the one that takes over from it, which may want another form of audio."""
