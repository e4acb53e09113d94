"""A peer that has gone is noticed even while nobody reads from it, and loses nothing it sent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

import pytest

from edge.transport.interface import Close
from tests.transport.support import (
    TEXT,
    RawClient,
    Recorder,
    Server,
    close_frame,
    masked,
    serving,
    settings,
)

WITHIN_S = 2.0
SWEPT_OFTEN = {"client_close_timeout_s": 0.2, "client_inbox_bytes": 16 * 1024}
COUNT = 200
MESSAGES = masked(TEXT, bytes(1000)) * COUNT


async def unread(server: Server) -> tuple[RawClient, Recorder]:
    """A client whose messages lie in the kernel because its receiver has paused."""
    client = await RawClient.connect(server)
    recorder = await server.recorder()
    recorder.socket.pause()
    client.send(MESSAGES)
    async with asyncio.timeout(5):
        while client.writer.transport.get_write_buffer_size() or not server.lanes.counts().bytes_in:
            await asyncio.sleep(0.01)
    return client, recorder


@pytest.mark.parametrize("says", [b"", close_frame(4001)], ids=["nothing", "goodbye"])
async def test_the_messages_of_a_paused_peer_that_leaves_are_all_delivered_at_once(
    says: bytes,
) -> None:
    async with serving(settings(**SWEPT_OFTEN)) as server:
        client, recorder = await unread(server)
        client.send(says)
        await client.leave()
        async with asyncio.timeout(WITHIN_S):
            close = await recorder.ended()
        assert len(recorder.messages) == COUNT
        assert close == (Close(4001) if says else Close(1006))
        assert server.lanes.open_count == 0


async def test_a_paused_peer_that_leaves_more_than_the_kernel_takes_is_over_at_once() -> None:
    """Its end of stream waits behind what nobody reads, in its own machine."""
    async with serving(settings(**SWEPT_OFTEN, client_receive_buffer_bytes=16 * 1024)) as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        recorder.socket.pause()
        handle = client.writer.get_extra_info("socket")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        client.send(MESSAGES * 10)
        async with asyncio.timeout(5):
            while client.writer.transport.get_write_buffer_size():
                await asyncio.sleep(0.01)
        await client.leave()
        async with asyncio.timeout(WITHIN_S):
            assert (await recorder.ended()).code == 1006
        assert 0 < len(recorder.messages) < 10 * COUNT
        assert recorder.messages == [bytes(1000)] * len(recorder.messages)


async def test_a_paused_peer_whose_connection_is_reset_is_over_at_once() -> None:
    async with serving(settings(**SWEPT_OFTEN)) as server:
        client, recorder = await unread(server)
        handle = client.writer.get_extra_info("socket")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.reset()
        async with asyncio.timeout(WITHIN_S):
            assert (await recorder.ended()).code == 1006
        assert len(recorder.messages) == COUNT


async def test_a_peer_that_only_ends_its_own_stream_is_read_at_its_pace() -> None:
    """It may still read what it is sent."""
    async with serving(settings(**SWEPT_OFTEN)) as server:
        client, recorder = await unread(server)
        client.writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await recorder.ended()
        assert recorder.close is None and recorder.messages == []
        assert recorder.socket.send_text(b"still here")
        while (await client.frame()) != (TEXT, b"still here"):
            pass
        recorder.socket.resume()
        await recorder.ended()
        assert len(recorder.messages) == COUNT
        await client.leave()


async def test_the_kernel_keeps_little_of_a_peer_that_is_not_read() -> None:
    async with serving(
        settings(client_inbox_bytes=16 * 1024, client_receive_buffer_bytes=64 * 1024)
    ) as server:
        client = await RawClient.connect(server)
        (await server.recorder()).socket.pause()
        handle = client.writer.get_extra_info("socket")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        client.writer.transport.set_write_buffer_limits(high=0)
        taken = 0
        with pytest.raises(TimeoutError):
            while taken < 64 << 20:
                client.send(masked(TEXT, bytes(1000)))
                async with asyncio.timeout(0.3):
                    await client.writer.drain()
                taken += 1000
        assert taken < 500_000
        client.reset()
