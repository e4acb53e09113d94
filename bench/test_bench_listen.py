"""The plain socket: what a browser's frame of 256 bytes costs on its way to a recognizer.

125 of them are a second of a speaker. They are read as in a round of the lane, some at a time, and
come out as 80 ms of PCM at 16 kHz.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from statistics import median
from time import thread_time_ns

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from _native.frame_writer import encode_masked
from _native.frames import BINARY, Decoder
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack
from edge.ingest.listen_audio import (
    CHUNK_BYTES,
    CHUNK_MS,
    FORMAT,
    SAMPLE_BYTES,
    Gathering,
    SampleClock,
)

FRAME_BYTES = 256
FRAMES_PER_S = FORMAT.rate_hz * SAMPLE_BYTES // FRAME_BYTES
SECONDS = 20
ALLOWED_US = 3.0
"""A frame as part of a round, all the way to the recognizer."""


class Speaker:
    """One connection's way in, as ``edge.ingest.listen`` goes it, into a real track."""

    def __init__(self, *, natively: bool) -> None:
        self.heard_bytes = 0
        self._natively = natively
        self._decoder = Decoder(1 << 18)
        self._track = AudioTrack(TrackSettings(asr_batch_ms=CHUNK_MS))
        self._track.restart(FORMAT)
        self._feed = self._track.open_feed(FORMAT.rate_hz, 0.0, self._deliver)
        self._feed.pump(1000)
        self._clock = SampleClock()
        self._gathering = Gathering(self._play)
        self._buffer = bytearray()

    def read(self, data: bytes) -> None:
        """Bytes of the socket."""
        if self._natively:
            self._decoder.decode(data, 1000, self._gathering.intake)
            self._gathering.taken()
        else:
            for _, payload in self._decoder.decode(data, 1000):
                self._message(payload)

    def close(self) -> None:
        self._gathering.close()

    def _message(self, data: bytes) -> None:
        """The same without native help, frame by frame."""
        self._buffer += data
        while len(self._buffer) >= CHUNK_BYTES:
            chunk = bytes(self._buffer[:CHUNK_BYTES])
            del self._buffer[:CHUNK_BYTES]
            self._play([chunk])

    def _play(self, chunks: list[bytes]) -> None:
        now_s = time.monotonic()
        for chunk in chunks:
            at = self._clock.place(len(chunk) // SAMPLE_BYTES, now_s)
            self._track.packet(None, at, chunk, now_s)
        self._track.forget(self._track.end_ms - 1000)

    def _deliver(self, pcm: bytes) -> None:
        self.heard_bytes += len(pcm)


@pytest.mark.parametrize("frames_a_read", [1, 3])
def test_cpu_of_a_frame(
    frames_a_read: int, benchmark: BenchmarkFixture, figure: Callable[[str], None]
) -> None:
    """Frames that come alone, and three in a round; both ways take turns."""
    count = FRAMES_PER_S * (1 if benchmark.disabled else SECONDS)
    frame = encode_masked(BINARY, os.urandom(FRAME_BYTES), b"\x12\x34\x56\x78")
    data = frame * frames_a_read
    spent_us: dict[bool, list[float]] = {True: [], False: []}

    async def one_way(natively: bool) -> None:
        speaker = Speaker(natively=natively)
        begin = thread_time_ns()
        for _ in range(count // frames_a_read):
            speaker.read(data)
        taken_us = (thread_time_ns() - begin) / 1000
        speaker.close()
        sent = count // frames_a_read * frames_a_read * FRAME_BYTES
        assert sent - 3 * CHUNK_BYTES < speaker.heard_bytes <= sent
        spent_us[natively].append(taken_us / (count // frames_a_read * frames_a_read))

    def one_turn() -> None:
        for natively in spent_us:
            asyncio.run(one_way(natively))

    benchmark.pedantic(one_turn, rounds=1 if benchmark.disabled else 8)
    native_us, plain_us = (median(times_us) for times_us in spent_us.values())
    figure(
        f"a browser's frame of 256 bytes to the recognizer, {frames_a_read} a read: "
        f"{native_us:.2f} us, {plain_us:.2f} us without native help; a speaker of {FRAMES_PER_S} a "
        f"second is {native_us * FRAMES_PER_S / 1e4:.3f} % of a core"
    )
    assert benchmark.disabled or frames_a_read == 1 or native_us <= ALLOWED_US
