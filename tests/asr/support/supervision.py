"""Real tracks of real Opus packets under a supervisor, and what comes of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from edge.asr.breaker import Breakers
from edge.asr.interface import Recognizer, StreamRequest
from edge.asr.openai_realtime import OpenAIRecognizer, OpenAISettings
from edge.asr.supervisor import Supervisor, SupervisorSettings
from edge.asr.transcript import Transcript
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack
from edge.errors import RecognizerError
from tests.asr.fakes.openai_endpoint import KEY
from tests.asr.support.tones import packets, sentence, silence

PACKETS_AT_ONCE = 10
QUICK = SupervisorSettings(
    retry_initial_s=0.02,
    retry_max_s=0.1,
    connect_timeout_s=1.0,
    breaker_open_s=0.2,
    force_commit_timeout_s=0,
)
"""Pauses short enough for tests."""


async def until(condition: Callable[[], object], limit_s: float = 20.0) -> None:
    """Wait for a condition; fails after ``limit_s`` seconds."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)


def openai(url: str, key: str = KEY) -> OpenAIRecognizer:
    """The recognizer pointed at a fake."""
    return OpenAIRecognizer(OpenAISettings(openai_api_key=key, openai_realtime_url=url))


class Listener:
    """Keeps what a supervisor says."""

    def __init__(self) -> None:
        self.interims: list[Transcript] = []
        self.finals: list[Transcript] = []
        self.errors: list[RecognizerError] = []

    @property
    def text(self) -> str:
        """The text of all finals."""
        return " ".join(final.text for final in self.finals)

    def interim(self, transcript: Transcript) -> None:
        self.interims.append(transcript)

    def final(self, transcript: Transcript) -> None:
        self.finals.append(transcript)

    def failed(self, error: RecognizerError) -> None:
        self.errors.append(error)


class Counts:
    """A ``RecognizerObserver`` that counts."""

    def __init__(self) -> None:
        self.connects: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()
        self.transcripts: Counter[tuple[str, bool]] = Counter()
        self.audio_bytes: Counter[str] = Counter()
        self.open = 0

    def connected(self, provider: str, seconds: float) -> None:
        assert seconds >= 0
        self.connects[provider] += 1

    def error(self, provider: str, code: str) -> None:
        self.errors[provider, code] += 1

    def received(self, provider: str, is_interim: bool) -> None:
        self.transcripts[provider, is_interim] += 1

    def audio_sent(self, provider: str, size: int) -> None:
        self.audio_bytes[provider] += size

    def connection_opened(self, provider: str) -> None:
        self.open += 1

    def connection_closed(self, provider: str) -> None:
        self.open -= 1


class Speaker:
    """Someone whose words go into a track as Opus packets, faster than real time."""

    def __init__(self, track: AudioTrack) -> None:
        self._track = track
        self._chunk = 0

    async def say(self, words: str, pause_ms: int = 600) -> None:
        """Words without pauses between them, then a pause that is sent too."""
        await self.send(sentence(words, 48000) + silence(pause_ms, 48000))

    async def send(self, pcm: bytes) -> None:
        """Audio at 48 kHz as packets of 20 ms; the loop runs in between."""
        for packet in packets(pcm):
            self._track.packet(self._chunk, self._chunk * 960, packet, time.monotonic())
            self._chunk += 1
            if self._chunk % PACKETS_AT_ONCE == 0:
                await asyncio.sleep(0.001)


class Scene:
    """One track and its supervisor."""

    def __init__(
        self,
        recognizers: Sequence[Recognizer],
        settings: SupervisorSettings = QUICK,
        breakers: Breakers | None = None,
        language: str | None = None,
    ) -> None:
        self.track = AudioTrack(TrackSettings())
        self.speaker = Speaker(self.track)
        self.listener = Listener()
        self.counts = Counts()
        self.supervisor = Supervisor(
            self.track,
            recognizers,
            breakers or Breakers(settings),
            settings,
            StreamRequest(track="tag-1", language=language),
            self.listener,
            self.counts,
        )


@asynccontextmanager
async def scene(
    *recognizers: Recognizer,
    settings: SupervisorSettings = QUICK,
    breakers: Breakers | None = None,
    language: str | None = None,
) -> AsyncIterator[Scene]:
    """A running supervisor; whatever is left of it ends with the block."""
    made = Scene(recognizers, settings, breakers, language)
    made.supervisor.start()
    try:
        yield made
    finally:
        await made.supervisor.abort()
