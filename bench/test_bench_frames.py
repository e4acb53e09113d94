"""WebSocket frames through ``_native.frames`` beside the ``websockets`` library's sans-IO layer."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import thread_time_ns

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from _native import frame_writer, frames
from _native.frames import BINARY, TEXT

PAYLOAD = os.urandom(200)
FRAME = frame_writer.encode_masked(BINARY, PAYLOAD, b"\x12\x34\x56\x78")
BURST_FRAMES = 300
BURST = FRAME * BURST_FRAMES
MAX_BYTES = 65536

Decode = Callable[[bytes], int]


def native() -> Decode:
    decoder = frames.Decoder(MAX_BYTES)
    return lambda data: len(decoder.decode(data))


def websockets() -> Decode:
    protocol = ServerProtocol(state=State.OPEN, max_size=MAX_BYTES)

    def decode(data: bytes) -> int:
        protocol.receive_data(data)
        return len(protocol.events_received())

    return decode


WAYS = {"_native": native, "websockets": websockets}


@pytest.mark.benchmark(group="decode a burst of 300 frames of 200 bytes")
@pytest.mark.parametrize("way", WAYS)
def test_decode_a_burst(way: str, benchmark: BenchmarkFixture) -> None:
    assert benchmark(WAYS[way](), BURST) == BURST_FRAMES


@pytest.mark.benchmark(group="decode a lone frame of 200 bytes")
@pytest.mark.parametrize("way", WAYS)
def test_decode_a_lone_frame(way: str, benchmark: BenchmarkFixture) -> None:
    assert benchmark(WAYS[way](), FRAME) == 1


@pytest.mark.benchmark(group="decode a text message of 60 kB in three pieces")
@pytest.mark.parametrize("way", WAYS)
def test_decode_a_long_message_in_pieces(way: str, benchmark: BenchmarkFixture) -> None:
    frame = frame_writer.encode_masked(TEXT, b"transcript " * 5500, b"\x12\x34\x56\x78")
    pieces = [frame[:20_000], frame[20_000:40_000], frame[40_000:]]
    decode = WAYS[way]()
    assert sum(benchmark(lambda: [decode(piece) for piece in pieces])) == 1


@pytest.mark.benchmark(group="encode a server frame of 200 bytes")
@pytest.mark.parametrize("way", WAYS)
def test_encode(way: str, benchmark: BenchmarkFixture) -> None:
    if way == "_native":
        frame = benchmark(frame_writer.encode, BINARY, PAYLOAD)
    else:
        frame = benchmark(lambda: Frame(Opcode.BINARY, PAYLOAD).serialize(mask=False))
    assert frame == b"\x82\x7e\x00\xc8" + PAYLOAD


def test_ways_side_by_side(benchmark: BenchmarkFixture, figure: Callable[[str], None]) -> None:
    """The ways take turns on bursts and on lone frames; the best round of each is compared."""
    ways = {name: make() for name, make in WAYS.items()}
    best_ns = {name: [float("inf")] * 2 for name in WAYS}

    def one_turn() -> None:
        for name, decode in ways.items():
            begin = thread_time_ns()
            for _ in range(10):
                decode(BURST)
            middle = thread_time_ns()
            for _ in range(3000):
                decode(FRAME)
            end = thread_time_ns()
            burst, lone = best_ns[name]
            best_ns[name] = [
                min(burst, (middle - begin) / (10 * BURST_FRAMES)),
                min(lone, (end - middle) / 3000),
            ]

    benchmark.pedantic(one_turn, rounds=10)
    for name, (burst, lone) in best_ns.items():
        figure(f"decode frames of 200 bytes, {name}: {burst:.0f} ns in a burst, {lone:.0f} ns lone")
