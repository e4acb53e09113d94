"""What a track costs on top of libopus, beside bare ``Decoder.decode_into`` in the same run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from statistics import median
from time import thread_time_ns

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from _native.opus import Decoder
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack
from tests.support.speech import speech_packets

RATE_HZ = 24000
BLOCK_PACKETS = 50
ALLOWED_PACKET_US = 3.0
ALLOWED_TICK_US = 0.3
TICKS = 10_000

Block = Sequence[tuple[int, bytes]]


@cache
def blocks(lose_every: int = 0) -> list[Block]:
    """40 s of speech at 32 kbit/s, numbered, in seconds; every so many-th packet is left out."""
    packets = speech_packets(2000, bitrate_bps=32000, fec=True, loss_percent=5)
    numbered = [
        (number, payload)
        for number, payload in enumerate(packets)
        if not lose_every or number % lose_every != lose_every - 1
    ]
    return [
        numbered[start : start + BLOCK_PACKETS] for start in range(0, len(numbered), BLOCK_PACKETS)
    ]


def live_track() -> AudioTrack:
    track = AudioTrack(TrackSettings())
    track.open_feed(RATE_HZ, 0, lambda batch: None).pump(1)
    return track


def through_track(track: AudioTrack, block: Block) -> None:
    for number, payload in block:
        track.packet(number, number * 960, payload, number * 0.02)


def through_decoder(decoder: Decoder, block: Block, out: bytearray) -> None:
    for _, payload in block:
        decoder.decode_into(payload, out)


def timed_us(work: Callable[[], None]) -> float:
    begin = thread_time_ns()
    work()
    return (thread_time_ns() - begin) / (1000 * BLOCK_PACKETS)


@pytest.mark.parametrize("lose_every", [0, 50], ids=["in_order", "2_percent_lost"])
def test_packet(
    lose_every: int, benchmark: BenchmarkFixture, figure: Callable[[str], None]
) -> None:
    """Track and decoder take each second of the stream in turn; medians are compared."""
    in_track: list[float] = []
    bare: list[float] = []
    out = bytearray(RATE_HZ * 2 * 120 // 1000)

    def whole_stream() -> None:
        track, decoder = live_track(), Decoder(RATE_HZ)
        for turn, block in enumerate(blocks(lose_every)):
            works = [
                (in_track, lambda block=block: through_track(track, block)),
                (bare, lambda block=block: through_decoder(decoder, block, out)),
            ]
            for spent, work in reversed(works) if turn % 2 else works:
                spent.append(timed_us(work))
        assert track.stats.decoded > 1900

    benchmark.pedantic(whole_stream, rounds=5, warmup_rounds=1)
    extra_us = median(mine - theirs for mine, theirs in zip(in_track, bare, strict=True))
    what = "2 % lost" if lose_every else "in order"
    limit = "" if lose_every else f" (at most {ALLOWED_PACKET_US:g})"
    figure(
        f"AudioTrack.packet, one live feed at {RATE_HZ // 1000} kHz, {what}: "
        f"{median(in_track):.2f} us, decoding alone {median(bare):.2f} us, the track "
        f"{extra_us:.2f} us{limit}"
    )
    assert benchmark.disabled or lose_every or extra_us <= ALLOWED_PACKET_US


def test_packet_without_a_feed(benchmark: BenchmarkFixture) -> None:
    """Kept only: a full ring, so that each packet also pushes one out."""
    track = AudioTrack(TrackSettings(replay_ms=1000))
    seconds = iter(range(1_000_000))

    def second() -> None:
        first = next(seconds) * BLOCK_PACKETS
        for number, (_, payload) in enumerate(blocks()[5], first):
            track.packet(number, number * 960, payload, number * 0.02)

    benchmark(second)
    assert track.stats.lost == 0


def test_tick_with_nothing_to_do(
    benchmark: BenchmarkFixture, figure: Callable[[str], None]
) -> None:
    track = live_track()
    through_track(track, blocks()[0])

    def ticks() -> None:
        for _ in range(TICKS):
            track.tick(0.5)

    benchmark.pedantic(ticks, rounds=20, warmup_rounds=1)
    if benchmark.disabled:
        return
    tick_us = benchmark.stats.stats.median / TICKS * 1e6
    figure(f"AudioTrack.tick, nothing to do: {tick_us:.3f} us (at most {ALLOWED_TICK_US:g})")
    assert tick_us <= ALLOWED_TICK_US
