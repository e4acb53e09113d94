"""Bounds in both directions: peers that do not read, receivers that pause, floods (trap W3)."""

from __future__ import annotations

import asyncio
import time

import pytest

from edge.transport.interface import Close
from tests.transport.support import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    RawClient,
    close_frame,
    masked,
    serving,
    settings,
)

MIB = 1024 * 1024


async def test_a_full_outbox_drops_the_peer_with_1008() -> None:
    async with serving(settings(client_outbox_bytes=MIB, client_close_timeout_s=0.2)) as server:
        client = await RawClient.connect(server, receive_buffer_bytes=4096)
        recorder = await server.recorder()
        taken = 0
        while recorder.socket.send_text(bytes(1000)):
            taken += 1
            assert taken < 20_000
        # The kernel's buffers hold some MiB more than the outbox's bound.
        assert not recorder.socket.is_open
        assert await recorder.ended() == Close(1008, "Peer reads too slowly", by_peer=False)
        assert server.lanes.counts().slow_peers == 1
        client.reset()


async def test_a_slow_peer_that_wakes_up_in_time_reads_everything_and_1008() -> None:
    async with serving(settings(client_outbox_bytes=100_000)) as server:
        client = await RawClient.connect(server, receive_buffer_bytes=4096)
        recorder = await server.recorder()
        taken = 0
        while recorder.socket.send_text(bytes(1000)):
            taken += 1
        for _ in range(taken):
            assert await client.frame() == (TEXT, bytes(1000))
        assert await client.until_close() == (1008, "Peer reads too slowly")
        client.send(close_frame(1008))
        await client.end()
        assert (await recorder.ended()).code == 1008


async def test_an_old_unsent_byte_drops_a_peer_that_keeps_sending() -> None:
    """The peer talks and so is alive, but it has stopped reading."""
    async with serving(
        settings(
            client_send_timeout_s=0.3, client_close_timeout_s=0.1, client_outbox_bytes=64 * MIB
        )
    ) as server:
        client = await RawClient.connect(server, receive_buffer_bytes=4096)
        recorder = await server.recorder()
        recorder.socket.send_text(bytes(16 * MIB))
        began_s = time.monotonic()
        while not recorder.over.is_set():
            client.send(masked(TEXT, b"talking"))
            await asyncio.sleep(0.01)
        assert time.monotonic() - began_s > 0.25
        assert (await recorder.ended()).code == 1008
        assert server.lanes.counts().slow_peers == 1
        client.reset()


async def test_one_long_message_may_exceed_an_empty_outbox() -> None:
    async with serving(settings(client_outbox_bytes=MIB)) as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        assert recorder.socket.send_binary(bytes(5 * MIB))
        opcode, payload = await client.frame()
        assert (opcode, len(payload)) == (2, 5 * MIB)
        await client.leave()


async def test_a_slow_peer_does_not_hold_up_its_neighbour() -> None:
    async with serving(settings(client_outbox_bytes=64 * MIB)) as server:
        stuck = await RawClient.connect(server, receive_buffer_bytes=4096)
        (await server.recorder(0)).socket.send_text(bytes(16 * MIB))
        lively = await RawClient.connect(server)
        (await server.recorder(1)).socket.send_text(b"hello")
        assert await lively.frame() == (TEXT, b"hello")
        lively.send(masked(PING, b"?"))
        assert await lively.frame() == (PONG, b"?")
        stuck.reset()
        await lively.leave()


async def test_pings_are_answered_in_order_with_their_payload() -> None:
    async with serving() as server:
        client = await RawClient.connect(server)
        client.send(b"".join(masked(PING, b"%d" % n) for n in range(500)))
        for n in range(500):
            assert await client.frame() == (PONG, b"%d" % n)
        await client.leave()


async def test_a_flood_of_pings_from_a_peer_that_does_not_read_stays_bounded() -> None:
    async with serving(settings(client_send_timeout_s=60)) as server:
        client = await RawClient.connect(server, receive_buffer_bytes=4096)
        recorder = await server.recorder()
        recorder.socket.send_text(bytes(16 * MIB))
        written = server.lanes.counts().bytes_out
        flood = masked(PING, bytes(125)) * 40_000
        client.send(flood + masked(TEXT, b"done"))
        await recorder.received(1)
        assert server.lanes.counts().bytes_out == written
        # When the peer reads again the latest ping is answered.
        assert (await client.frame())[0] == TEXT
        assert await client.frame() == (PONG, bytes(125))
        client.reset()


async def test_a_paused_receiver_gets_nothing_until_it_resumes_and_then_all_in_order() -> None:
    async with serving() as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()

        def pause_at_five(data: bytes) -> None:
            if data == b"5":
                recorder.socket.pause()

        recorder.on_message = pause_at_five
        client.send(b"".join(masked(TEXT, b"%d" % n) for n in range(50)))
        client.send(masked(PING, b"while paused"))
        # The answer shows that all of it has been read.
        assert await client.frame() == (PONG, b"while paused")
        client.send(masked(TEXT, b"50") + masked(PING, b"again"))
        assert await client.frame() == (PONG, b"again")
        assert len(recorder.messages) == 6
        recorder.socket.resume()
        assert await recorder.received(51) == [b"%d" % n for n in range(51)]
        await client.leave()


async def test_pause_and_resume_within_a_message_change_nothing() -> None:
    async with serving() as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()

        def blink(_: bytes) -> None:
            recorder.socket.pause()
            recorder.socket.resume()

        recorder.on_message = blink
        client.send(b"".join(masked(TEXT, b"%d" % n) for n in range(1000)))
        assert await recorder.received(1000) == [b"%d" % n for n in range(1000)]
        await client.leave()


async def test_pausing_at_every_message_loses_and_reorders_nothing() -> None:
    async with serving(settings(client_inbox_bytes=16 * 1024)) as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        loop = asyncio.get_running_loop()

        def rest(_: bytes) -> None:
            recorder.socket.pause()
            loop.call_soon(recorder.socket.resume)

        recorder.on_message = rest
        client.send(b"".join(masked(TEXT, b"%d" % n) for n in range(3000)) + close_frame(4001))
        assert await client.until_close() == (4001, "")
        assert (await recorder.ended()).code == 4001
        assert recorder.messages == [b"%d" % n for n in range(3000)]
        await client.leave()


async def test_a_paused_receivers_inbox_is_bounded_and_then_tcp_holds_the_peer_back() -> None:
    async with serving(settings(client_inbox_bytes=64 * 1024)) as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        recorder.socket.pause()
        client.writer.transport.set_write_buffer_limits(high=0)
        message = masked(TEXT, bytes(1000))
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 64 * MIB:
                client.send(message * 64)
                sent += 64
                async with asyncio.timeout(0.5):
                    await client.writer.drain()
        # Inbox, one read and the kernel's buffers.
        bytes_in = server.lanes.counts().bytes_in
        assert bytes_in < MIB
        recorder.socket.resume()
        await recorder.received(sent)
        await client.leave()


async def test_messages_queued_while_paused_precede_a_violation() -> None:
    async with serving() as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        recorder.socket.pause()
        client.send(masked(TEXT, b"x") * 100 + masked(TEXT, b"\xff"))
        assert (await client.until_close())[0] == 1007
        assert recorder.messages == []
        recorder.socket.resume()
        await client.end()
        assert (await recorder.ended()).code == 1007
        assert len(recorder.messages) == 100


async def test_a_flooding_peer_does_not_starve_its_neighbour() -> None:
    """Each message costs 0.1 ms; between two turns of the flood the neighbour has its own."""
    async with serving() as server:
        flooder = await RawClient.connect(server)
        flooded = await server.recorder(0)

        def work(_: bytes) -> None:
            until_s = time.perf_counter() + 0.0001
            while time.perf_counter() < until_s:
                pass

        flooded.on_message = work
        lively = await RawClient.connect(server)
        await server.recorder(1)
        flooder.send(masked(TEXT, b"x") * 5000)
        await flooded.received(1)
        lively.send(masked(PING, b"?"))
        assert await lively.frame() == (PONG, b"?")
        assert len(flooded.messages) < 4000
        await flooded.received(5000)
        await flooder.leave()
        await lively.leave()


async def test_many_floods_together_hold_a_neighbour_up_no_longer_than_one() -> None:
    """Turns are handed round: each of 30 floods is worth many turns of the event loop."""
    async with serving() as server:

        def work(data: bytes) -> None:
            until_s = time.perf_counter() + 0.0001
            while time.perf_counter() < until_s:
                pass

        lively = await RawClient.connect(server)
        flooders = [await RawClient.connect(server) for _ in range(30)]
        flooded = [await server.recorder(1 + n) for n in range(30)]
        for recorder, flooder in zip(flooded, flooders, strict=True):
            recorder.on_message = work
            flooder.send(masked(TEXT, b"x") * 1000)
        for recorder in flooded:
            await recorder.received(1)

        def delivered() -> int:
            return sum(len(recorder.messages) for recorder in flooded)

        before = delivered()
        lively.send(masked(PING, b"?"))
        assert await lively.frame() == (PONG, b"?")
        assert delivered() - before < 600
        assert delivered() < 30_000
        for recorder, flooder in zip(flooded, flooders, strict=True):
            await recorder.received(1000)
            await flooder.leave()
        await lively.leave()


async def test_a_flood_of_pings_is_answered_in_part_and_starves_nobody() -> None:
    """RFC 6455 5.5.3: of pings that come too fast the latest is answered."""
    async with serving() as server:
        flooder = await RawClient.connect(server)
        (await server.recorder(0)).socket.pause()
        lively = await RawClient.connect(server)
        await server.recorder(1)
        pings = b"".join(masked(PING, b"%d" % n) for n in range(20_000))
        flooder.send(pings + masked(TEXT, b"end"))
        answered = [int((await flooder.frame())[1])]
        lively.send(masked(PING, b"?"))
        assert await lively.frame() == (PONG, b"?")
        while answered[-1] != 19_999:
            opcode, payload = await flooder.frame()
            if opcode == PONG:
                answered.append(int(payload))
            else:
                assert opcode == PING, "asks whether the peer is still there"
        assert answered[:1000] == list(range(1000))
        assert answered == sorted(answered)
        assert len(answered) < 15_000
        (await server.recorder(0)).socket.resume()
        await (await server.recorder(0)).received(1)
        await flooder.leave()
        await lively.leave()


async def test_a_flood_of_close_and_garbage_is_one_end() -> None:
    async with serving() as server:
        client = await RawClient.connect(server)
        client.send((close_frame(1000) + b"\xff" * 100) * 1000)
        recorder = await server.recorder()
        assert await recorder.ended() == Close(1000)
        opcode, _ = await client.frame()
        assert opcode == CLOSE
        client.reset()
