"""A recognizer that hears nothing: it counts audio and never answers.

For load tests of everything before a recognizer.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from edge.asr.interface import (
    AudioWanted,
    Emit,
    Recognizer,
    RecognizerStream,
    StreamEnded,
    StreamRequest,
)
from edge.logs import get_logger

_log = get_logger("edge.asr.dummy")


class DummyRecognizer(Recognizer):
    """Takes 24 kHz PCM; its streams never emit a transcript."""

    name: ClassVar[str] = "dummy"
    times: ClassVar[Literal["exact", "estimated"]] = "exact"

    @property
    def wants(self) -> AudioWanted:
        return AudioWanted(encoding="pcm16", rate_hz=24000)

    async def open(self, request: StreamRequest, emit: Emit) -> RecognizerStream:
        return DummyStream(request.track, self.wants.rate_hz, emit)


class DummyStream(RecognizerStream):
    """Counts what it is sent and logs it when it closes."""

    def __init__(self, track: str, rate_hz: int, emit: Emit) -> None:
        self._track = track
        self._rate_hz = rate_hz
        self._emit: Emit | None = emit
        self._batches = 0
        self._bytes = 0
        self._commits = 0

    def send(self, audio: bytes) -> None:
        self._batches += 1
        self._bytes += len(audio)

    @property
    def backlog_ms(self) -> float:
        return 0.0

    def commit(self) -> None:
        self._commits += 1

    async def drain(self) -> None:
        return

    async def close(self) -> None:
        emit, self._emit = self._emit, None
        if emit is not None:
            _log.info(
                "dummy recognizer closed",
                track=self._track,
                audio_s=round(self._bytes / 2 / self._rate_hz, 3),
                batches=self._batches,
                commits=self._commits,
            )
            emit(StreamEnded())
