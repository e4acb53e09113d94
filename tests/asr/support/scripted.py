"""A recognizer whose service is the test itself: what it gets is kept, what it says is given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Literal

from edge.asr.interface import (
    AudioWanted,
    Emit,
    Final,
    Interim,
    Recognizer,
    RecognizerStream,
    Source,
    StreamEnded,
    StreamRequest,
)
from edge.errors import RecognizerClosed, RecognizerError
from tests.asr.support.supervision import Scene, until


class ScriptedStream(RecognizerStream):
    """Says what the test tells it to."""

    def __init__(self, wanted: AudioWanted, request: StreamRequest, emit: Emit) -> None:
        self.wanted = wanted
        self.request = request
        self.audio = bytearray()
        self.packets: list[bytes] = []
        self.contexts: list[str] = []
        self.commits = 0
        self.probes = 0
        self.owes = False
        self.answers_probes = True
        self.takes_context = True
        self.draining = False
        self.may_drain = asyncio.Event()
        self.closed = False
        self._emit = emit
        self._ended = False

    @property
    def heard_until_ms(self) -> float:
        """PCM received."""
        return len(self.audio) / (2 * self.wanted.rate_hz / 1000)

    def final(
        self,
        text: str,
        start_ms: float,
        end_ms: float,
        *,
        item: str | None = None,
        dealt_ms: float | None = None,
    ) -> None:
        self.heard_s = time.monotonic()
        self._emit(
            Final(
                item_id=item or f"{id(self):x}-{text}",
                text=text,
                start_ms=start_ms,
                end_ms=end_ms,
                dealt_ms=dealt_ms,
            )
        )

    def interim(self, text: str, item: str) -> None:
        self.heard_s = time.monotonic()
        self._emit(Interim(item_id=item, text=text))

    def fail(self, error: RecognizerError | None = None) -> None:
        if not self._ended:
            self._ended = True
            self._emit(StreamEnded(error=error or RecognizerClosed("scripted")))

    def send(self, audio: bytes) -> None:
        self.audio += audio
        if self.wanted.encoding != "pcm16":
            self.packets.append(audio)

    @property
    def backlog_ms(self) -> float:
        return 0.0

    def commit(self) -> None:
        self.commits += 1

    @property
    def turn_open(self) -> bool:
        return self.owes

    def probe(self) -> bool:
        self.probes += 1
        if self.answers_probes:
            self.heard_s = time.monotonic() + 0.001
        return True

    def share(self, context: str) -> bool:
        self.contexts.append(context)
        return self.takes_context

    async def drain(self) -> None:
        self.draining = True
        await self.may_drain.wait()

    async def close(self) -> None:
        self.closed = True
        if not self._ended:
            self._ended = True
            self._emit(StreamEnded())


class Scripted(Recognizer):
    """Opens ``ScriptedStream``s; ``streams`` are those it has opened."""

    def __init__(
        self,
        name: str = "scripted",
        *,
        times: Literal["exact", "estimated"] = "exact",
        forms: dict[Source, AudioWanted] | None = None,
        set_up: Callable[[ScriptedStream], None] = lambda stream: None,
        refusals: Sequence[RecognizerError] = (),
        drains: bool = True,
    ) -> None:
        """``refusals`` are raised by the first attempts, ``drains`` lets every drain end at once.

        ``set_up`` gets each stream before it is used.
        """
        self.name = name  # type: ignore[misc]
        self.times = times  # type: ignore[misc]
        self.streams: list[ScriptedStream] = []
        self.opening = 0
        self.most_opening = 0
        self.attempts = 0
        self.may_open = asyncio.Event()
        self.may_open.set()
        self._forms = forms or {}
        self._set_up = set_up
        self._refusals = list(refusals)
        self._drains = drains

    @property
    def wants(self) -> AudioWanted:
        return AudioWanted(rate_hz=16000)

    def wants_for(self, source: Source) -> AudioWanted:
        return self._forms.get(source, self.wants)

    async def open(self, request: StreamRequest, emit: Emit) -> RecognizerStream:
        self.attempts += 1
        self.opening += 1
        self.most_opening = max(self.most_opening, self.opening)
        try:
            await self.may_open.wait()
        finally:
            self.opening -= 1
        if self._refusals:
            raise self._refusals.pop(0)
        stream = ScriptedStream(self.wants_for(request.source), request, emit)
        if self._drains:
            stream.may_drain.set()
        self._set_up(stream)
        self.streams.append(stream)
        return stream


async def heard(stream: ScriptedStream, until_ms: float) -> ScriptedStream:
    """Wait until a stream has been sent so much audio."""
    await until(lambda: stream.heard_until_ms >= until_ms)
    return stream


async def stream_of(recognizer: Scripted, number: int) -> ScriptedStream:
    """Wait for a recognizer's stream of that number."""
    await until(lambda: len(recognizer.streams) > number)
    return recognizer.streams[number]


def begin_ms(played: Scene, stream: ScriptedStream) -> float:
    """Where on the track's axis a connection began: that is where its time zero is told to be."""
    stream.final("here", 0, stream.heard_until_ms, dealt_ms=0)
    return played.listener.finals.pop().start_ms
