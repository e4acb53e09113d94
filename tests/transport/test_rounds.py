"""Connections that stream are read in rounds; what else they do is noticed within one."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest

from edge.transport.interface import Close
from edge.transport.reading import ReadingHalf
from edge.transport.rounds import Arrivals, Rounds
from tests.transport.support import (
    PATIENCE_S,
    PING,
    PONG,
    RawClient,
    Recorder,
    Server,
    close_frame,
    masked,
    serving,
    settings,
)

ROUND_S = 0.020


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    # A short deadline makes the registry look at its connections often.
    async with serving(settings(client_close_timeout_s=0.5)) as serving_:
        yield serving_


class Talker:
    """A client that sends numbered messages until it is stopped."""

    def __init__(self, client: RawClient, recorder: Recorder) -> None:
        self.client = client
        self.recorder = recorder
        self._numbers = itertools.count()

    def say(self) -> bytes:
        message = b"%d" % next(self._numbers)
        self.client.send(masked(1, message))
        return message

    async def until_read_in_rounds(self, server: Server) -> None:
        """Send small messages at the pace of a few streams until the connection is a member."""
        async with asyncio.timeout(PATIENCE_S):
            while not in_rounds(server):
                self.say()
                await asyncio.sleep(0.004)


def in_rounds(server: Server) -> int:
    """Connections that are read in rounds."""
    return server.lanes.rounds.members


async def talker(server: Server) -> Talker:
    client = await RawClient.connect(server)
    talker_ = Talker(client, await server.recorder())
    await talker_.until_read_in_rounds(server)
    return talker_


async def test_a_stream_read_in_rounds_arrives_whole_and_in_order(server: Server) -> None:
    talking = await talker(server)
    for _ in range(100):
        talking.say()
        await asyncio.sleep(0.002)
    last = talking.say()
    messages = await talking.recorder.received(int(last) + 1)
    assert messages == [b"%d" % number for number in range(int(last) + 1)]
    await talking.client.leave()
    assert (await talking.recorder.ended()).code == 1006
    assert in_rounds(server) == 0


async def test_a_ping_amid_a_stream_is_answered_within_a_round_or_two(server: Server) -> None:
    talking = await talker(server)
    began_s = time.monotonic()
    talking.client.send(masked(PING, b"still there?"))
    assert await talking.client.frame() == (PONG, b"still there?")
    assert time.monotonic() - began_s < 50 * ROUND_S
    await talking.client.leave()


async def test_a_connection_that_falls_quiet_is_watched_again(server: Server) -> None:
    talking = await talker(server)
    async with asyncio.timeout(PATIENCE_S):
        while in_rounds(server):
            await asyncio.sleep(ROUND_S)
    talking.client.send(masked(PING, b""))
    assert await talking.client.frame() == (PONG, b"")
    await talking.client.leave()
    await talking.recorder.ended()


async def test_a_reset_amid_a_stream_ends_the_connection(server: Server) -> None:
    talking = await talker(server)
    talking.client.reset()
    assert (await talking.recorder.ended()).code == 1006
    assert in_rounds(server) == 0


async def test_frames_right_before_a_close_are_delivered_from_a_round(server: Server) -> None:
    talking = await talker(server)
    for _ in range(200):
        last = talking.say()
    talking.client.send(close_frame(4001, "done"))
    assert await talking.recorder.ended() == Close(4001, "done")
    assert len(talking.recorder.messages) == int(last) + 1
    assert await talking.client.until_close() == (4001, "done")
    await talking.client.end()


async def test_a_paused_receiver_gets_nothing_from_a_round_until_it_resumes(
    server: Server,
) -> None:
    talking = await talker(server)
    await talking.recorder.received(1)
    talking.recorder.socket.pause()
    held = len(talking.recorder.messages)
    for _ in range(30):
        last = talking.say()
        await asyncio.sleep(0.005)
    assert len(talking.recorder.messages) == held
    talking.recorder.socket.resume()
    assert len(await talking.recorder.received(int(last) + 1)) == int(last) + 1
    await talking.client.leave()


async def test_our_close_amid_a_stream_is_shaken_hands_on(server: Server) -> None:
    talking = await talker(server)
    talking.recorder.socket.close(1013, "full")
    assert await talking.client.until_close() == (1013, "full")
    talking.client.send(close_frame(1013))
    await talking.client.end()
    assert (await talking.recorder.ended()).code == 1013
    assert in_rounds(server) == 0


async def test_an_interval_of_zero_reads_everything_at_once() -> None:
    async with serving(settings(client_close_timeout_s=0.5, client_read_interval_ms=0)) as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        for number in range(250):
            client.send(masked(1, b"x"))
            await recorder.received(number + 1)
            assert in_rounds(server) == 0
            await asyncio.sleep(0.002)
        await client.leave()


def looks(*steps: tuple[float, int, int]) -> Iterator[bool]:
    """What is said of a connection after each look: seconds, reads and bytes since the start."""
    arrivals = Arrivals(0.0)
    for now_s, reads, size in steps:
        yield arrivals.are_small_and_many(now_s, reads, size)


def test_only_many_small_reads_call_for_rounds() -> None:
    assert [*looks((1.0, 50, 50 * 250))] == [True]
    assert [*looks((1.0, 10, 10 * 250))] == [False], "few reads"
    assert [*looks((1.0, 50, 50 * 60_000))] == [False], "a bulk transfer"
    assert [*looks((0.01, 50, 50 * 250), (1.0, 50, 50 * 250))] == [False, True], "too short a look"
    assert [*looks((1.0, 50, 50 * 250), (2.0, 60, 60 * 250))] == [True, False], "it has slowed down"


class Fed:
    """A connection that always has something to read, and knows when it needs more of it."""

    def __init__(self, rest_s: float) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.is_reading = True
        self.rest_s = 0.0
        self.reads_s: list[float] = []
        self._rest_s = rest_s
        self.theirs.send(b"x")

    def data_received(self, data: bytes) -> None:
        self.reads_s.append(time.monotonic())
        self.rest_s = self._rest_s
        self.theirs.send(b"x")

    def leave_rounds(self) -> None:
        raise AssertionError("it has something to read")

    def get_extra_info(self, name: str) -> Any:
        return self.ours if name == "socket" else None

    def is_closing(self) -> bool:
        return False


@pytest.mark.parametrize(("rest_s", "interval_s"), [(0.0, 0.04), (0.02, 0.02), (5.0, 0.1)])
async def test_who_knows_when_audio_is_due_is_read_then(rest_s: float, interval_s: float) -> None:
    rounds = Rounds(asyncio.get_running_loop(), 0.04)
    fed = Fed(rest_s)
    member = rounds.invite(cast(ReadingHalf, fed), cast(asyncio.Transport, fed))
    assert member is not None
    async with asyncio.timeout(PATIENCE_S):
        while len(fed.reads_s) < 12:
            await asyncio.sleep(0.01)
    member.leave()
    gaps_s = sorted(after - before for before, after in itertools.pairwise(fed.reads_s))
    assert gaps_s[5] == pytest.approx(interval_s, abs=0.008)
    fed.ours.close()
    fed.theirs.close()
