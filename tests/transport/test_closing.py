"""The closing handshake in both directions, and what breaks it (RFC 6455 section 7, trap W5)."""

from __future__ import annotations

import asyncio
import logging

import pytest

from _native import frame_writer
from edge.transport.interface import Close, Limits
from tests.transport.support import (
    BINARY,
    CLOSE,
    PONG,
    TEXT,
    RawClient,
    Recorder,
    close_frame,
    masked,
    serving,
    settings,
)


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (close_frame(1000), Close(1000)),
        (close_frame(1001, "closing"), Close(1001, "closing")),
        (close_frame(4999, "grüße"), Close(4999, "grüße")),
        (masked(CLOSE), Close(1005)),
    ],
)
async def test_a_peers_close_is_echoed_and_then_the_server_closes(sent: bytes, told: Close) -> None:
    async with serving() as server:
        client = await RawClient.connect(server)
        client.send(sent)
        assert await client.until_close() == (told.code, told.reason)
        await client.end()
        assert await (await server.recorder()).ended() == told


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (masked(CLOSE, b"\x03"), 1002),
        (masked(CLOSE, b"\x03\xed"), 1002),
        (masked(CLOSE, b"\x03\xe8\xff\xff"), 1007),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\xc1\x80\0\0\0\0", 1002),
        (frame_writer.encode(TEXT, b"not masked"), 1002),
        (b"\x89\xfe\x00\x7e\0\0\0\0" + bytes(126), 1002),
        (masked(TEXT, b"\xff\xfe"), 1007),
        (masked(TEXT, b"\xc3", fin=False) + masked(0, b"\x28"), 1007),
        (masked(TEXT, bytes(1001)), 1009),
        (masked(TEXT, bytes(600), fin=False) + masked(0, bytes(401)), 1009),
    ],
)
async def test_violations_close_with_their_code_after_what_came_before(
    sent: bytes, code: int
) -> None:
    async with serving(limits=Limits(max_message_bytes=1000)) as server:
        client = await RawClient.connect(server)
        client.send(masked(TEXT, b"before") + sent + masked(TEXT, b"after") * 3)
        assert (await client.until_close())[0] == code
        await client.end()
        recorder = await server.recorder()
        close = await recorder.ended()
        assert (close.code, close.by_peer) == (code, False)
        assert recorder.messages == [b"before"]
        assert server.lanes.counts().violations == 1


async def test_the_close_frame_reaches_a_peer_that_is_still_sending_too_much() -> None:
    """Closing with unread bytes would reset the connection; they are read and dropped instead."""
    async with serving() as server:
        client = await RawClient.connect(server)
        client.send(masked(BINARY, bytes(100_000_000)))
        assert await client.until_close() == (1009, "message is too long")
        await client.end()
        assert (await (await server.recorder()).ended()).code == 1009


async def test_the_receivers_close_waits_for_the_peers_and_delivers_until_then() -> None:
    async with serving() as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        recorder.socket.send_text(b"last words")
        recorder.socket.close(4009, "taken over")
        assert not recorder.socket.is_open
        assert not recorder.socket.send_text(b"too late")
        assert not recorder.socket.send_binary(b"too late")
        recorder.socket.close(1000, "second")
        assert await client.frame() == (TEXT, b"last words")
        assert await client.until_close() == (4009, "taken over")
        client.send(masked(TEXT, b"on its way") + close_frame(4009))
        await client.end()
        assert await recorder.ended() == Close(4009, "taken over", by_peer=False)
        assert recorder.messages == [b"on its way"]


async def test_both_closing_at_once_is_a_clean_end() -> None:
    async with serving() as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        client.send(close_frame(4001))
        recorder.socket.close(4002)
        assert await client.until_close() == (4002, "")
        await client.end()
        assert (await recorder.ended()).code == 4002


async def test_a_peer_that_does_not_answer_a_close_is_cut() -> None:
    async with serving(settings(client_close_timeout_s=0.1)) as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        recorder.socket.close(1000)
        assert await client.until_close() == (1000, "")
        assert await recorder.ended() == Close(1000, "", by_peer=False)
        assert server.lanes.open_count == 0
        await client.leave()


async def test_a_long_reason_is_cut_between_characters() -> None:
    async with serving() as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        recorder.socket.close(1000, "é" * 100)
        assert await client.until_close() == (1000, "é" * 61)
        await client.leave()
        assert (await recorder.ended()).reason == "é" * 61


async def test_codes_that_may_not_be_sent_are_a_mistake_of_the_caller() -> None:
    async with serving() as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        with pytest.raises(ValueError, match="1006"):
            recorder.socket.close(1006)
        assert recorder.socket.is_open
        await client.leave()


@pytest.mark.parametrize("where", ["opened", "message"])
async def test_a_crashed_receiver_is_1011_and_hears_only_the_end(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Crashing(Recorder):
        def opened(self, socket: object) -> None:
            super().opened(socket)  # type: ignore[arg-type]
            if where == "opened":
                raise RuntimeError("in opened")

        def message(self, data: bytes, is_text: bool) -> None:
            super().message(data, is_text)
            raise RuntimeError("in message")

    async with serving() as server:
        server.make = Crashing
        with caplog.at_level(logging.CRITICAL):
            client = await RawClient.connect(server)
            client.send(masked(TEXT, b"secret words") * 100)
            assert (await client.until_close())[0] == 1011
            await client.end()
            recorder = await server.recorder()
            close = await recorder.ended()
        assert (close.code, close.by_peer) == (1011, False)
        assert len(recorder.messages) == (1 if where == "message" else 0)
        assert server.lanes.counts().crashes == 1
        assert "secret" not in caplog.text


async def test_a_receiver_that_crashes_at_its_end_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Crashing(Recorder):
        def closed(self, close: Close) -> None:
            super().closed(close)
            raise RuntimeError("in closed")

    async with serving() as server:
        server.make = Crashing
        with caplog.at_level(logging.CRITICAL):
            client = await RawClient.connect(server)
            neighbour = await RawClient.connect(server)
            client.send(close_frame(1000))
            await client.end()
            await (await server.recorder(0)).ended()
        assert server.lanes.open_count == 1
        neighbour.send(masked(9, b"still here?"))
        assert await neighbour.frame() == (PONG, b"still here?")
        await neighbour.leave()


async def test_no_task_is_left_and_none_is_there_per_connection() -> None:
    async with serving() as server:
        before = len(asyncio.all_tasks())
        clients = [await RawClient.connect(server) for _ in range(20)]
        for n in range(20):
            await server.recorder(n)
        async with asyncio.timeout(5):
            while len(asyncio.all_tasks()) > before:
                await asyncio.sleep(0.01)
        for client in clients:
            client.send(close_frame(1000))
            await client.end()
        for n in range(20):
            await (await server.recorder(n)).ended()
        assert len(asyncio.all_tasks()) <= before
        assert server.lanes.open_count == 0
