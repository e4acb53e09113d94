"""What is brought is taken once, answered as the transports expect, and within limits."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from dispatch import Envelope, Refused, RPCResponse, TranscriptionDispatcher, Transport
from dispatch.errors import Unreachable
from dispatch.local_queue import LocalQueue
from dispatch.messages import decode_message
from dispatch.reception.server import Reception, ReceptionLimits
from dispatch.transports.binding import BindingTransport
from dispatch.transports.http import HttpTransport
from dispatch.transports.websocket import WebSocketTransport
from tests.dispatch.support.queues import (
    Listener,
    consuming,
    envelopes,
    fill,
    in_order,
    texts,
    until,
)

SECRET = b"between us"
SESSIONS = ("red", "green")
QUICK = ReceptionLimits(request_within_s=0.3)


@asynccontextmanager
async def receiving(
    sink: Transport | TranscriptionDispatcher,
    secret: bytes = b"",
    limits: ReceptionLimits = ReceptionLimits(),  # noqa: B008
) -> AsyncIterator[str]:
    """The address of a reception, ``127.0.0.1:PORT``."""
    transport = BindingTransport(sink) if isinstance(sink, TranscriptionDispatcher) else sink
    async with transport:
        reception = Reception(transport, secret=secret, limits=limits)
        async with reception.serving("127.0.0.1", 0, stop_within_s=1.0) as port:
            yield f"127.0.0.1:{port}"


async def post(address: str, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and answer of a post of a client that is not ours."""
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"http://{address}/dispatch", data=body, headers=headers) as response,
    ):
        return response.status, await response.json()


async def heard_again(address: str, body: bytes) -> None:
    """Posts until there is a place for a connection."""
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                assert (await post(address, body))[0] == 200
                return
            await asyncio.sleep(0.02)


def signed(body: bytes, secret: bytes = SECRET, at_s: int | None = None) -> str:
    """As the documentation says, without our code."""
    at_s = int(time.time()) if at_s is None else at_s
    digest = hmac.new(secret, f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_messages_of_our_transports_arrive_once_and_in_order(kind: str) -> None:
    listener = Listener()
    async with receiving(listener, SECRET) as address:
        transport: Transport = HttpTransport(f"http://{address}/dispatch", secret=SECRET)
        if kind == "websocket":
            headers = {"Authorization": f"Bearer {SECRET.decode()}"}
            transport = WebSocketTransport(f"ws://{address}/dispatch", headers=headers)
        async with transport:
            await fill(transport, SESSIONS, 10)
            await fill(transport, SESSIONS, 10)
    assert listener.texts() == in_order(SESSIONS, 10)


async def test_health_says_what_this_is() -> None:
    async with (
        receiving(Listener(), SECRET) as address,
        aiohttp.ClientSession() as client,
        client.get(f"http://{address}/health") as response,
    ):
        assert (response.status, await response.text()) == (200, "Transcription Dispatcher")


async def test_only_what_is_signed_with_the_secret_is_taken() -> None:
    [message] = envelopes("red", [0])
    body = message.body
    listener = Listener()
    async with receiving(listener, SECRET) as address:
        for value in (
            "",
            "t=,v1=",
            "nonsense",
            signed(body, b"another"),
            signed(body + b" "),
            signed(body, at_s=int(time.time()) - 1000),
        ):
            status, answer = await post(address, body, **{"X-Signature": value})
            assert (status, answer["success"]) == (401, False), value
        assert listener.heard == []
        status, answer = await post(address, body, **{"X-Signature": signed(body)})
        assert (status, answer) == (200, {"success": True, "dispatched": 1})
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with aiohttp.ClientSession() as client:
                await client.ws_connect(f"http://{address}/dispatch")


async def test_a_key_is_taken_once_also_while_it_is_under_way() -> None:
    [message] = envelopes("red", [0])
    go_on = asyncio.Event()

    class Slow(Listener):
        async def dispatch(self, message: Any) -> RPCResponse:
            await go_on.wait()
            return await super().dispatch(message)

    listener = Slow()
    async with receiving(listener) as address:
        key = {"Idempotency-Key": "red:0"}
        posts = [asyncio.create_task(post(address, message.body, **key)) for _ in range(3)]
        await asyncio.sleep(0.05)
        go_on.set()
        assert [answer["success"] for _, answer in await asyncio.gather(*posts)] == [True] * 3
        known = {"success": True, "dispatched": 0, "message": "taken before"}
        assert await post(address, message.body, **key) == (200, known)
        assert len(listener.heard) == 1
        # Another epoch is another log: the same number is another message.
        assert (await post(address, message.body, **key, **{"X-Epoch": "b"}))[1]["dispatched"] == 1


class Saying(Transport):
    """A sink that always answers the same."""

    def __init__(self, error: Exception | None, delay_s: float = 0.0) -> None:
        self.error = error
        self.delay_s = delay_s

    async def send(self, envelopes: Any) -> int:
        await asyncio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        return 1


@pytest.mark.parametrize(
    ("sink", "status", "raised"),
    [
        (Saying(Unreachable("away", 7.0)), 503, Unreachable),
        (Saying(None, delay_s=5.0), 503, Unreachable),
        (Saying(RuntimeError("a bug")), 503, Unreachable),
        (Saying(Refused("no")), 200, Refused),
        (Saying(Refused("never", final=True)), 422, Refused),
    ],
)
async def test_a_sink_s_trouble_is_told_so_that_the_transports_do_right(
    sink: Saying, status: int, raised: type[Exception]
) -> None:
    """What may be better later is brought again, what never will is not."""
    async with receiving(sink, limits=QUICK) as address:
        answer = await post(address, envelopes("red", [0])[0].body)
        assert answer[0] == status and not answer[1]["success"]
        for transport in (
            HttpTransport(f"http://{address}/dispatch"),
            WebSocketTransport(f"ws://{address}/dispatch"),
        ):
            async with transport:
                with pytest.raises(raised):
                    await transport.send(envelopes("red", [0]))


async def test_what_is_no_message_is_refused() -> None:
    async with receiving(Listener(), limits=ReceptionLimits(max_message_bytes=1000)) as address:
        for body in (b"", b"{}", b"[", b"\xff", b'{"sessionId":"a"}'):
            assert (await post(address, body))[0] == 400
        assert (await post(address, b"x" * 1001))[0] == 413
        assert (await post(address, b"{}", **{"Idempotency-Key": "k" * 513}))[0] == 400
        transport = HttpTransport(f"http://{address}/dispatch")
        async with transport:
            with pytest.raises(Refused) as refusal:
                await transport.send([Envelope("red:0", "red", b"{}", 1, "e", 1)])
        assert refusal.value.final


async def test_those_who_bring_too_much_are_told_to_come_later() -> None:
    limits = ReceptionLimits(messages_per_s=5)
    async with receiving(Listener(), limits=limits) as address:
        body = envelopes("red", [0])[0].body
        statuses = [(await post(address, body))[0] for _ in range(8)]
        assert statuses[:5] == [200] * 5 and 429 in statuses[5:]


async def test_connections_that_say_nothing_are_hung_up_on_and_counted() -> None:
    limits = ReceptionLimits(request_within_s=3.0, max_connections=3)
    async with receiving(Listener(), limits=limits) as address:
        host, port = address.split(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(4)]
        silent[0][1].write(b"POST /dispatch HTTP/1.1\r\nHost: x\r\n")
        # The fourth is one too many and goes at once, the others when their time is over.
        assert await asyncio.wait_for(silent[3][0].read(), 2.5) == b""
        for reader, writer in silent:
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
        slow_reader, slow_writer = await asyncio.open_connection(host, int(port))
        slow_writer.write(b"POST /dispatch HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{")
        answer = await asyncio.wait_for(slow_reader.readuntil(b"}"), 5)
        assert answer.startswith(b"HTTP/1.1 408 ")
        slow_writer.close()
        await heard_again(address, envelopes("red", [0])[0].body)


async def test_a_webhook_s_faults_cost_time_and_no_message(tmp_path: Path) -> None:
    """500, 429 with Retry-After, a hang, a reset, garbage, 413: from a queue through a consumer."""
    heard: list[Any] = []
    troubles = ["500", "429", "hang", "reset", "garbage", "413"]

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        assert request.headers["X-Signature"].startswith("t=")
        trouble = troubles.pop() if troubles and len(heard) % 3 == 2 else ""
        if trouble == "hang":
            await asyncio.sleep(3)
        if trouble == "reset" and request.transport is not None:
            request.transport.abort()
        if trouble.isdigit():
            return web.Response(status=int(trouble), headers={"Retry-After": "0"})
        if trouble:
            return web.Response(text="<html>")
        heard.append(decode_message(body))
        return web.Response(body=json.dumps({"success": True, "dispatched": 1}).encode())

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    source = LocalQueue(tmp_path / "queue.db")
    webhook = HttpTransport(url, secret=SECRET, deadline_s=2)
    try:
        async with consuming(source, webhook) as consumer:
            for session in SESSIONS:
                await source.put(envelopes(session, range(20)))
            await until(lambda: consumer.counts.sent + consumer.counts.dead == 40)
            [letter] = await source.dead_letters()
    finally:
        await runner.cleanup()
    assert troubles == [] and letter.reason == "status 413"
    expected = in_order(SESSIONS, 20)
    expected[letter.row.session].remove(decode_message(letter.row.body).text)
    assert texts(heard) == expected
