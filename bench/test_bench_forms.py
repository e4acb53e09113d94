"""What reading containers and passing Opus on cost, beside decoding the same packets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache
from time import thread_time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from _native import ogg, webm
from _native.opus import Decoder
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack, Container, Encoding
from tests.support import containers
from tests.support.speech import speech_packets

PACKETS = 2000
ALLOWED_DEMUX_US = 0.6
ALLOWED_PASS_US = 2.0
A_PAGE = 5

pytestmark = pytest.mark.benchmark(timer=thread_time)


@cache
def packets() -> list[bytes]:
    return speech_packets(PACKETS, bitrate_bps=32000)


@cache
def pieces(container: Container) -> list[bytes]:
    """The stream as a client sends it: a page, or a cluster's blocks, each 100 ms."""
    if container == "ogg":
        muxer = ogg.Muxer(1)
        pages = [muxer.pages(packets()[at : at + A_PAGE]) for at in range(0, PACKETS, A_PAGE)]
        return [muxer.headers(), *pages]
    recording = containers.webm(packets())
    size = len(recording) * A_PAGE // PACKETS
    return [recording[at : at + size] for at in range(0, len(recording), size)]


def per_packet_us(benchmark: BenchmarkFixture, work: Callable[[], object]) -> float:
    """The best of the rounds; 0 where nothing is timed."""
    benchmark.pedantic(work, rounds=15, warmup_rounds=2)
    if benchmark.disabled:
        return 0.0
    return benchmark.stats.stats.min * 1e6 / PACKETS


@pytest.mark.parametrize("container", ["ogg", "webm"])
def test_demuxing(
    container: Container, benchmark: BenchmarkFixture, figure: Callable[[str], None]
) -> None:
    def work() -> None:
        demuxer = ogg.Demuxer() if container == "ogg" else webm.Demuxer()
        for piece in pieces(container):
            demuxer.feed(piece)

    spent_us = per_packet_us(benchmark, work)
    figure(f"{container}: {spent_us:.3f} µs a packet of 20 ms, in pieces of 100 ms")
    assert spent_us < ALLOWED_DEMUX_US


def test_writing_pages(benchmark: BenchmarkFixture, figure: Callable[[str], None]) -> None:
    def work() -> None:
        muxer = ogg.Muxer(1)
        for at in range(0, PACKETS, A_PAGE):
            muxer.pages(packets()[at : at + A_PAGE])

    spent_us = per_packet_us(benchmark, work)
    figure(f"pages of 100 ms: {spent_us:.3f} µs a packet")
    assert spent_us < ALLOWED_DEMUX_US


def through(track: AudioTrack, encoding: Encoding, sent: Iterable[bytes], samples: int) -> None:
    track.open_feed(
        24000, 0, lambda audio: None, encoding, deliver_packets=lambda packets: None
    ).pump(math.inf)
    for number, payload in enumerate(sent):
        track.packet(number, number * samples, payload, number * samples / 48000)


@pytest.mark.parametrize("encoding", ["opus", "ogg", "pcm16"])
def test_passing_packets_on(
    encoding: Encoding, benchmark: BenchmarkFixture, figure: Callable[[str], None]
) -> None:
    spent_us = per_packet_us(
        benchmark, lambda: through(AudioTrack(TrackSettings()), encoding, packets(), 960)
    )
    figure(f"track and feed, opus in, {encoding} out: {spent_us:.2f} µs a packet")
    if encoding != "pcm16":
        assert spent_us < ALLOWED_PASS_US


@pytest.mark.parametrize("container", ["ogg", "webm"])
def test_a_track_of_pieces(
    container: Container, benchmark: BenchmarkFixture, figure: Callable[[str], None]
) -> None:
    def work() -> None:
        track = AudioTrack(TrackSettings())
        track.restart(container=container)
        through(track, "opus", pieces(container), 4800)

    spent_us = per_packet_us(benchmark, work)
    figure(f"track and feed, {container} in, opus out: {spent_us:.2f} µs a packet")
    assert spent_us < ALLOWED_PASS_US + ALLOWED_DEMUX_US


def test_decoding_for_comparison(
    benchmark: BenchmarkFixture, figure: Callable[[str], None]
) -> None:
    def work() -> None:
        decoder, out = Decoder(24000), bytearray(24000)
        for packet in packets():
            decoder.decode_into(packet, out)

    figure(f"bare decoding at 24 kHz: {per_packet_us(benchmark, work):.2f} µs a packet")
