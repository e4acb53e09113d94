"""All connections together: a stop says 1001 to everyone and loses nothing (traps W6, W7)."""

from __future__ import annotations

import asyncio
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from edge.transport.interface import Close
from tests.transport.support import (
    TEXT,
    RawClient,
    close_frame,
    masked,
    serving,
    settings,
)


async def test_a_stop_delivers_what_was_sent_then_says_1001_to_everyone() -> None:
    async with serving() as server:
        clients = [await connect(server.url) for _ in range(10)]
        for n in range(10):
            (await server.recorder(n)).socket.send_text(b"last result")
        server.lanes.close_all(1001, "stopping")
        assert await server.lanes.wait_closed(5.0) == 0
        assert server.lanes.open_count == 0
        for n, client in enumerate(clients):
            assert await client.recv() == "last result"
            try:
                await client.recv()
            except ConnectionClosed as closed:
                assert closed.rcvd is not None
                assert (closed.rcvd.code, closed.rcvd.reason) == (1001, "stopping")
            recorder = await server.recorder(n)
            assert recorder.close == Close(1001, "stopping", by_peer=False)


async def test_what_has_arrived_before_a_stop_is_delivered() -> None:
    async with serving() as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        recorder.socket.pause()
        client.send(masked(TEXT, b"x") * 1000 + masked(9, b"all sent"))
        await client.frame()
        server.lanes.close_all()
        client.send(masked(TEXT, b"x") + close_frame(1001))
        assert await server.lanes.wait_closed(5.0) == 0
        assert len(recorder.messages) == 1001
        await client.leave()


async def test_peers_that_do_not_answer_are_cut_at_the_deadline_and_receivers_told() -> None:
    async with serving(settings(client_close_timeout_s=60)) as server:
        deaf = [await RawClient.connect(server) for _ in range(3)]
        for n in range(3):
            await server.recorder(n)
        began_s = time.monotonic()
        server.lanes.close_all(1001)
        assert await server.lanes.wait_closed(0.2) == 3
        assert 0.15 < time.monotonic() - began_s < 5
        assert [recorder.close for recorder in server.recorders] == [
            Close(1001, "Server is stopping", by_peer=False)
        ] * 3
        for client in deaf:
            await client.leave()


async def test_a_connection_that_opens_during_a_stop_is_closed_at_once() -> None:
    async with serving() as server:
        server.lanes.close_all(1001, "stopping")
        client = await RawClient.connect(server)
        assert await client.until_close() == (1001, "stopping")
        client.send(close_frame(1001))
        await client.end()
        assert (await (await server.recorder()).ended()).code == 1001


async def test_a_stop_with_nothing_open_is_over_at_once() -> None:
    async with serving() as server:
        server.lanes.close_all()
        assert await server.lanes.wait_closed(0.0) == 0


async def test_counts_hold_open_and_closed_connections() -> None:
    async with serving() as server:
        first = await RawClient.connect(server)
        second = await RawClient.connect(server)
        first.send(masked(TEXT, bytes(100)))
        second.send(masked(TEXT, bytes(100)) * 2)
        await (await server.recorder(0)).received(1)
        (await server.recorder(1)).socket.send_text(b"abc")
        await (await server.recorder(1)).received(2)
        before = server.lanes.counts()
        assert (before.opened, before.messages_in, before.messages_out) == (2, 3, 1)
        assert (before.bytes_in, before.bytes_out) == (3 * 106, 5)
        first.reset()
        await (await server.recorder(0)).ended()
        assert server.lanes.counts() == before
        assert server.lanes.open_count == 1
        await second.leave()


async def test_sanics_own_shutdown_finds_connections_that_know_what_to_do() -> None:
    """What Sanic calls on each connection when nobody has drained the lane before."""
    async with serving() as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        connection = recorder.socket
        assert connection.close_if_idle() is False  # type: ignore[attr-defined]
        assert (await client.until_close())[0] == 1001
        connection.abort()  # type: ignore[attr-defined]
        assert (await recorder.ended()).code == 1001
        await asyncio.sleep(0)
        await client.leave()
