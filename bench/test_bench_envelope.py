"""Reading a media event with ``_native.envelope`` beside json + base64 and msgspec."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from time import thread_time_ns

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from _native.envelope import scan_media

ALLOWED_US = 0.5
ROUND_EVENTS = 2000

Answer = tuple[str, int, int, bytes]


class Media(msgspec.Struct, gc=False):
    tag: str
    chunk: str
    timestamp: str
    payload: bytes


class Event(msgspec.Struct, gc=False):
    event: str
    media: Media


event_decoder = msgspec.json.Decoder(Event)


def by_msgspec(message: bytes) -> Answer:
    media = event_decoder.decode(message).media
    return media.tag, int(media.chunk), int(media.timestamp), media.payload


def by_json_and_base64(message: bytes) -> Answer:
    media = json.loads(message)["media"]
    payload = base64.b64decode(media["payload"], validate=True)
    return media["tag"], int(media["chunk"]), int(media["timestamp"]), payload


WAYS = {"_native": scan_media, "msgspec": by_msgspec, "json + base64": by_json_and_base64}


def bridge_event(payload: bytes) -> bytes:
    encoded = base64.b64encode(payload).decode()
    return (
        '{"event":"media","sequenceNumber":"2","media":{"tag":"aaaaaaaa-305123557",'
        f'"chunk":"31456","timestamp":"268460","payload":"{encoded}"}},"event":"media"}}'
    ).encode()


@pytest.mark.benchmark(group="one media event of 249 bytes")
@pytest.mark.parametrize("way", WAYS)
def test_read(way: str, benchmark: BenchmarkFixture) -> None:
    message = bridge_event(os.urandom(81))
    assert benchmark(WAYS[way], message) == by_json_and_base64(message)


@pytest.mark.parametrize("payload_bytes", [81, 160, 640])
def test_ways_side_by_side(
    payload_bytes: int, benchmark: BenchmarkFixture, figure: Callable[[str], None]
) -> None:
    """The ways take turns; the best round of each is compared."""
    message = bridge_event(os.urandom(payload_bytes))
    best_us = dict.fromkeys(WAYS, float("inf"))

    def one_turn() -> None:
        for name, read in WAYS.items():
            begin = thread_time_ns()
            for _ in range(ROUND_EVENTS):
                read(message)
            spent_us = (thread_time_ns() - begin) / ROUND_EVENTS / 1000
            best_us[name] = min(best_us[name], spent_us)

    benchmark.pedantic(one_turn, rounds=20)
    times = ", ".join(f"{name} {spent_us:.2f} us" for name, spent_us in best_us.items())
    figure(f"media event of {len(message)} bytes: {times} (_native at most {ALLOWED_US} at 249)")
    if len(message) <= 250 and not benchmark.disabled:
        assert best_us["_native"] <= ALLOWED_US
