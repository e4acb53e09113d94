"""The ways of a packet around its decoding: read in a round, taken, put in turn, sent upstream."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import time
from collections.abc import Callable
from time import thread_time
from typing import cast

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from _native import frame_writer
from _native.frames import TEXT, Decoder
from _native.intake import MediaIntake
from edge.asr.openai_events import APPEND_HEAD, APPEND_TAIL
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack
from edge.session.playout import Playout
from edge.transport.reading import ReadingHalf
from edge.transport.rounds import Member
from tests.support.speech import speech_packets

BATCH = os.urandom(4800)
"""100 ms at 24 kHz."""
KEY = b"\x12\x34\x56\x78"
TAGS = ("1a2b-1", "1a2b-2", "1a2b-3", "1a2b-4", "1a2b-5")
READS = 100
PLAYED = 100
ALLOWED_BATCH_US = 4.0
ALLOWED_TAKE_US = 1.5
ALLOWED_READ_US = 4.0
ALLOWED_TURN_US = 2.5

pytestmark = pytest.mark.benchmark(timer=thread_time)


class Tag:
    """A running track as a session keeps it; without a feed, so that nothing is decoded."""

    def __init__(self) -> None:
        self.audio = AudioTrack(TrackSettings())
        self.intake = self.audio.intake


class Silent:
    """A track of which nothing is due."""

    def __init__(self) -> None:
        self.audio = self

    def is_ahead(self, now_s: float) -> bool:
        return False

    def play_due(self) -> None:
        pass

    def shed(self, keep_ms: float) -> None:
        pass


class Reader:
    """A connection, and its transport, that only counts what it is handed."""

    is_reading = True

    def __init__(self) -> None:
        self.bytes_in = 0

    def is_closing(self) -> bool:
        return False

    def leave_rounds(self) -> None:
        raise AssertionError("it is neither quiet nor in bulk")

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)


def median_us(benchmark: BenchmarkFixture, each: int) -> float | None:
    """Of one of ``each`` in a call; None where nothing is timed."""
    return None if benchmark.stats is None else benchmark.stats["median"] * 1e6 / each


def reads() -> list[bytes]:
    """What a connection sends in ``READS`` rounds: a packet of each tag in every one."""
    packets = speech_packets(READS, bitrate_bps=32000)
    return [
        b"".join(frame_writer.encode_masked(TEXT, _media(tag, number, packet), KEY) for tag in TAGS)
        for number, packet in enumerate(packets)
    ]


def _media(tag: str, number: int, packet: bytes) -> bytes:
    return b'{"event":"media","media":{"tag":"%s","chunk":%d,"timestamp":%d,"payload":"%s"}}' % (
        tag.encode(),
        number,
        number * 960,
        base64.b64encode(packet),
    )


def test_a_batch_becomes_a_masked_message(
    benchmark: BenchmarkFixture, figure: Callable[[str], None]
) -> None:
    frame = benchmark(frame_writer.encode_masked_base64, APPEND_HEAD, BATCH, APPEND_TAIL, KEY)
    [(_, text)] = Decoder(1 << 16).decode(frame)
    assert text == APPEND_HEAD + base64.b64encode(BATCH) + APPEND_TAIL
    if (took_us := median_us(benchmark, 1)) is not None:
        figure(f"a batch to base64 under the mask: {took_us:.2f} us")
        assert took_us <= ALLOWED_BATCH_US


def test_packets_are_taken(benchmark: BenchmarkFixture, figure: Callable[[str], None]) -> None:
    data = reads()

    def fresh() -> tuple[tuple[MediaIntake, Decoder], dict[str, object]]:
        tags = {tag: Tag() for tag in TAGS}
        for tag in tags.values():
            for number, packet in enumerate(speech_packets(2)):
                tag.audio.packet(number - 2, (number - 2) * 960, packet, time.monotonic())
        return (MediaIntake(tags), Decoder(1 << 16)), {}

    taken = []

    def take(intake: MediaIntake, decoder: Decoder) -> None:
        for read in data:
            decoder.decode(read, 8, intake)
        taken.append(intake.settle()[0])

    benchmark.pedantic(take, setup=fresh, rounds=30)
    assert set(taken) == {READS * len(TAGS)}
    if (took_us := median_us(benchmark, READS * len(TAGS))) is not None:
        figure(f"a packet from its frame into its track: {took_us:.2f} us")
        assert took_us <= ALLOWED_TAKE_US


def test_a_read_in_a_round(benchmark: BenchmarkFixture, figure: Callable[[str], None]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = Reader()
        slot: list[Member] = []
        member = Member(
            cast(ReadingHalf, reader), cast(asyncio.Transport, reader), ours.fileno(), slot
        )
        sent = reads()[0]

        def arrive() -> None:
            theirs.send(sent)

        benchmark.pedantic(member.read, setup=arrive, rounds=1000)
        assert reader.bytes_in >= len(sent)
        if (took_us := median_us(benchmark, 1)) is not None:
            figure(f"a read in a round: {took_us:.2f} us")
            assert took_us <= ALLOWED_READ_US


def test_a_turn_to_play(benchmark: BenchmarkFixture, figure: Callable[[str], None]) -> None:
    """What the queue costs beside what is played."""
    failed: list[object] = []
    playout = Playout(lambda track, error: failed.append(track))
    tracks = [Silent() for _ in range(PLAYED)]

    async def turn() -> None:
        for track in tracks:
            playout.add(track)
        await asyncio.sleep(0)

    with asyncio.Runner() as runner:
        benchmark(lambda: runner.run(turn()))
    assert failed == []
    if (took_us := median_us(benchmark, PLAYED)) is not None:
        figure(f"a track's turn in the playout: {took_us:.2f} us")
        assert took_us <= ALLOWED_TURN_US
