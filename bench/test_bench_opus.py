"""Decoding through ``_native.opus`` beside the same libopus called from C, on real speech."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from statistics import median
from time import thread_time_ns

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from _native.opus import Decoder, Encoder, packet_has_fec, packet_samples
from bench.opus_floor import Block, FloorDecoder, NoCompiler, build
from tests.support.speech import speech_packets, two_cities_pcm

RATES_HZ = (16000, 24000, 48000)
BLOCK_PACKETS = 50
ALLOWED_OVERHEAD_US = 0.6


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    try:
        return build(tmp_path_factory.mktemp("floor"))
    except NoCompiler as error:
        pytest.skip(f"NOT MEASURED: {error}")


@cache
def speech_blocks() -> list[Block]:
    """40 s of speech at 32 kbit/s as 20 ms packets, in blocks of one second."""
    packets = speech_packets(2000, bitrate_bps=32000)
    return [
        Block(packets[start : start + BLOCK_PACKETS])
        for start in range(0, len(packets), BLOCK_PACKETS)
    ]


def decode_block(decoder: Decoder, block: Block, out: bytearray) -> int:
    samples = 0
    for packet in block.packets:
        samples += decoder.decode_into(packet, out)
    return samples


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_overhead_over_the_c_floor(
    rate_hz: int,
    floor: ctypes.CDLL,
    benchmark: BenchmarkFixture,
    figure: Callable[[str], None],
) -> None:
    """Both decode each second of the stream in turn; medians over all seconds are compared."""
    native, bare = Decoder(rate_hz), FloorDecoder(floor, rate_hz)
    out = bytearray(rate_hz * 2 * 120 // 1000)
    native_ns: list[int] = []
    bare_ns: list[int] = []

    def timed(spent_ns: list[int], decode: Callable[[], int]) -> None:
        begin = thread_time_ns()
        samples = decode()
        spent_ns.append(thread_time_ns() - begin)
        assert samples == rate_hz

    def whole_stream() -> None:
        for number, block in enumerate(speech_blocks()):
            turns = [
                (native_ns, lambda block=block: decode_block(native, block, out)),
                (bare_ns, lambda block=block: bare.decode(block)),
            ]
            for spent_ns, decode in reversed(turns) if number % 2 else turns:
                timed(spent_ns, decode)

    benchmark.pedantic(whole_stream, rounds=8, warmup_rounds=1)
    bare.close()
    native_us = median(native_ns) / BLOCK_PACKETS / 1000
    bare_us = median(bare_ns) / BLOCK_PACKETS / 1000
    overhead_us = median(mine - theirs for mine, theirs in zip(native_ns, bare_ns, strict=True)) / (
        BLOCK_PACKETS * 1000
    )
    figure(
        f"decode {rate_hz // 1000} kHz mono, 20 ms at 32 kbit/s: C {bare_us:.2f} us, _native "
        f"{native_us:.2f} us, overhead {overhead_us:.2f} us (at most {ALLOWED_OVERHEAD_US})"
    )
    assert benchmark.disabled or overhead_us <= ALLOWED_OVERHEAD_US


@pytest.mark.benchmark(group="opus, one second of speech")
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_decode_to_new_bytes(rate_hz: int, benchmark: BenchmarkFixture) -> None:
    decoder = Decoder(rate_hz)
    block = speech_blocks()[10]
    assert sum(map(len, benchmark(lambda: [decoder.decode(p) for p in block.packets])))


@pytest.mark.benchmark(group="opus, one second of speech")
def test_encode(benchmark: BenchmarkFixture) -> None:
    encoder = Encoder(bitrate_bps=32000, fec=True, loss_percent=10)
    pcm = two_cities_pcm()
    frames = [pcm[start : start + 1920] for start in range(960000, 960000 + 96000, 1920)]
    assert len(benchmark(lambda: [encoder.encode(frame) for frame in frames])) == 50


@pytest.mark.benchmark(group="opus, one loss of 20 ms at 16 kHz")
@pytest.mark.parametrize("way", ["recover", "conceal"])
def test_fill_a_loss(way: str, benchmark: BenchmarkFixture) -> None:
    decoder = Decoder(16000)
    packets = speech_packets(200, fec=True, loss_percent=20)
    packet = next(packet for packet in reversed(packets) if packet_has_fec(packet))
    for earlier in packets:
        decoder.decode(earlier)
    out = bytearray(640)
    if way == "recover":
        assert benchmark(decoder.recover_into, packet, 320, out) == 320
    else:
        assert benchmark(decoder.conceal_into, 320, out) == 320


@pytest.mark.benchmark(group="opus, questions to a packet")
@pytest.mark.parametrize("question", [packet_samples, packet_has_fec])
def test_inspect(question: Callable[[bytes], int], benchmark: BenchmarkFixture) -> None:
    assert benchmark(question, speech_packets(100, fec=True, loss_percent=20)[-1]) is not None
