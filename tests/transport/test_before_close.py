"""Nothing that came before a close is lost, and every end is told with its code (traps W1, W4)."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import time

import pytest
from websockets.asyncio.client import connect

from edge.transport.interface import Close
from tests.transport.support import (
    BINARY,
    TEXT,
    RawClient,
    Recorder,
    close_frame,
    handshake,
    masked,
    serving,
    settings,
)

TRIES = 10_000


@pytest.mark.parametrize("count", [5, 50, 500, 2000])
async def test_all_messages_before_a_clean_close_are_seen_and_then_its_code(count: int) -> None:
    async with serving() as server:
        async with connect(server.url, compression=None) as client:
            for n in range(count):
                await client.send(b"%d" % n)
            await client.close(4001, "enough")
        recorder = await server.recorder()
        assert await recorder.ended() == Close(4001, "enough", by_peer=True)
        assert recorder.messages == [b"%d" % n for n in range(count)]


@pytest.mark.parametrize("count", [5, 500, 2000])
async def test_slow_receivers_see_them_too(count: int) -> None:
    """With 0.1 ms of work a message the turns of the loop are spent many times over."""
    async with serving() as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()

        def work(_: bytes) -> None:
            until_s = time.perf_counter() + 0.0001
            while time.perf_counter() < until_s:
                pass

        recorder.on_message = work
        client.send(masked(TEXT, b"x") * count + close_frame(4001))
        assert await client.until_close() == (4001, "")
        assert (await recorder.ended()).code == 4001
        assert len(recorder.messages) == count
        await client.leave()


async def test_messages_in_one_piece_with_the_handshake_are_delivered() -> None:
    async with serving() as server:
        client = await RawClient.connect(
            server, first=masked(TEXT, b"early") + masked(BINARY, b"bird") + close_frame(1000)
        )
        await client.end()
        recorder = await server.recorder()
        assert (await recorder.ended()).code == 1000
        assert recorder.messages == [b"early", b"bird"]
        assert recorder.texts == [True, False]


async def test_a_paused_receiver_gets_its_messages_before_the_end() -> None:
    async with serving() as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        recorder.socket.pause()
        client.send(masked(TEXT, b"x") * 100 + close_frame(4002, "bye"))
        await client.end()
        assert await recorder.ended() == Close(4002, "bye", by_peer=True)
        assert len(recorder.messages) == 100


async def test_a_lost_connection_is_told_as_1006_after_its_messages() -> None:
    async with serving() as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        client.send(masked(TEXT, b"x") * 10)
        await recorder.received(10)
        client.reset()
        assert await recorder.ended() == Close(1006, "", by_peer=True)


async def test_end_of_stream_without_a_close_frame_is_1006() -> None:
    async with serving() as server:
        client = await RawClient.connect(server)
        client.send(masked(TEXT, b"x") * 300 + masked(TEXT, b"cut off")[:-1])
        client.writer.write_eof()
        recorder = await server.recorder()
        assert (await recorder.ended()).code == 1006
        assert len(recorder.messages) == 300
        await client.end()


def hammer(port: int, tries: int) -> None:
    """Open ``tries`` connections that send a few frames and close in one of four manners."""
    for n in range(tries):
        few = masked(BINARY, b"%d" % n) * (n % 8 + 1) + close_frame(4001)
        with socket.create_connection(("127.0.0.1", port)) as sock:
            if n % 4 == 0:
                sock.sendall(handshake() + few)
            else:
                sock.sendall(handshake())
                assert sock.recv(65536).startswith(b"HTTP/1.1 101 ")
                if n % 4 == 3:
                    # One send() per frame.
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    for at in range(0, len(few), len(few) // 3):
                        sock.sendall(few[at : at + len(few) // 3])
                else:
                    sock.sendall(few)
            if n % 4 == 1:
                # Leave at once, our close frame unanswered and its greeting unread.
                continue
            while sock.recv(65536):
                pass


async def test_ten_thousand_short_connections_lose_nothing() -> None:
    """A few frames, then a close, in four manners; the peer has its own process."""
    async with serving(settings()) as server:
        received = 0

        class Counter(Recorder):
            def closed(self, close: Close) -> None:
                nonlocal received
                super().closed(close)
                assert close.code == 4001
                received += len(self.messages)
                server.recorders.remove(self)

        server.make = lambda: Counter(greeting=b"hello")
        process = multiprocessing.get_context("spawn").Process(
            target=hammer, args=(server.port, TRIES)
        )
        process.start()
        await asyncio.to_thread(process.join)
        assert process.exitcode == 0
        assert await server.lanes.wait_closed(5.0) == 0
        assert received == sum(n % 8 + 1 for n in range(TRIES))
        assert server.lanes.counts().opened == TRIES
