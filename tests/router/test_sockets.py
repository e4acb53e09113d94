"""WebSockets through the router, to each kind of service (R9, W1 to W4)."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sanic import Request, Sanic, Websocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from router import Namespace
from tests.router.support.serving import (
    asgi_service,
    connected,
    listening,
    named,
    request_bytes,
    sanic_service,
    serving,
)
from tests.router.support.tls import context_for, trusted

KINDS = ("sanic", "asgi", "remote", "remote-tls", "remote-asgi")
LARGE = bytes(range(256)) * 10


def sanic_echo(closed: asyncio.Queue[Any]) -> Sanic[Any, Any]:
    app: Sanic[Any, Any] = Sanic(named("echo"), configure_logging=False)

    @app.websocket("/echo", subprotocols=["chat"])
    async def echo(request: Request, ws: Websocket) -> None:
        try:
            while (message := await ws.recv()) is not None:
                if message == "bye":
                    await ws.close(4002, "as you wish")
                    return
                await ws.send(message)
        finally:
            closed.put_nowait(None)

    return app


def asgi_echo(closed: asyncio.Queue[Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            return
        assert await receive() == {"type": "websocket.connect"}
        if scope["path"] == "/refused":
            await send({"type": "websocket.close"})
            return
        if scope["path"] == "/fails":
            await send({"type": "websocket.accept"})
            raise RuntimeError("boom")
        assert "chat" in scope["subprotocols"] or not scope["subprotocols"]
        chosen = "chat" if scope["subprotocols"] else None
        await send({"type": "websocket.accept", "subprotocol": chosen})
        while (event := await receive())["type"] == "websocket.receive":
            if event.get("text") == "bye":
                await send({"type": "websocket.close", "code": 4002, "reason": "as you wish"})
                break
            await send(event | {"type": "websocket.send"})
        else:
            closed.put_nowait((event["code"], event["reason"]))

    return app


@contextlib.asynccontextmanager
async def routed(kind: str, closed: asyncio.Queue[Any]) -> AsyncIterator[int]:
    namespace = Namespace("production")
    async with contextlib.AsyncExitStack() as stack:
        source = (sanic_echo if "asgi" not in kind else asgi_echo)(closed)
        if kind == "remote":
            source = f"http://127.0.0.1:{await stack.enter_async_context(listening(source))}"
        elif kind == "remote-tls":
            stack.enter_context(trusted())
            upstream = listening(source, ssl=context_for("127.0.0.1"))
            source = f"https://127.0.0.1:{await stack.enter_async_context(upstream)}"
        elif kind == "remote-asgi":
            behind = Namespace("production")
            behind.register("db", source)
            source = f"http://127.0.0.1:{await stack.enter_async_context(serving(behind))}"
        namespace.register("db", source)
        yield await stack.enter_async_context(serving(namespace))


@contextlib.asynccontextmanager
async def socket(port: int, path: str = "/echo", **options: Any) -> AsyncIterator[ClientConnection]:
    url = f"ws://db.do:{port}{path}"
    async with connect(url, host="127.0.0.1", proxy=None, compression=None, **options) as ws:
        yield ws


@pytest.mark.parametrize("kind", KINDS)
async def test_w1_messages_and_closes_travel_both_ways(kind: str) -> None:
    closed: asyncio.Queue[Any] = asyncio.Queue()
    async with routed(kind, closed) as port:
        async with socket(port, subprotocols=["chat"]) as ws:  # type: ignore[list-item]
            assert ws.subprotocol == "chat"
            for message in (LARGE, "text äöü", "", LARGE * 200):
                await ws.send(message)
                assert await ws.recv() == message
            await (await ws.ping())
            await ws.send("bye")
            with pytest.raises(ConnectionClosed):
                await ws.recv()
            assert (ws.close_code, ws.close_reason) == (4002, "as you wish")
        async with socket(port, subprotocols=["chat"]) as ws:  # type: ignore[list-item]
            await ws.close(4001, "enough")
            told = await closed.get()
            if kind != "sanic" and "asgi" in kind:
                assert told == (4001, "enough")


@pytest.mark.parametrize(("host", "word"), [("no.do", "not found"), ("auth.do", "not deployed")])
async def test_w2_w3_a_miss_is_a_plain_404(host: str, word: str) -> None:
    async with routed("asgi", asyncio.Queue()) as port:
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"ws://{host}:{port}/echo", host="127.0.0.1", proxy=None):
                pass
    response = refused.value.response
    assert response.status_code == 404
    assert response.body is not None and f"Service {word}".encode() in bytes(response.body)


@pytest.mark.parametrize("kind", KINDS)
async def test_w4_tokens_are_compared_without_case(kind: str) -> None:
    headers = {
        "Upgrade": "WebSocket",
        "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "chat",
    }
    async with routed(kind, asyncio.Queue()) as port, connected(port) as client:
        await client.send(request_bytes("db.do", "/echo", headers=headers))
        status, told = await client.head()
        assert (status, told["sec-websocket-accept"]) == (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")


async def test_an_asgi_service_may_refuse_or_fail() -> None:
    async with routed("asgi", asyncio.Queue()) as port:
        with pytest.raises(InvalidStatus) as refused:
            async with socket(port, "/refused"):
                pass
        assert refused.value.response.status_code == 403
        async with socket(port, "/fails") as ws:
            with pytest.raises(ConnectionClosed):
                await ws.recv()
            assert ws.close_code == 1011


@pytest.mark.parametrize("kind", ["sanic", "asgi"])
async def test_a_socket_that_wants_to_end_the_process_ends_itself(kind: str) -> None:
    app: Sanic[Any, Any] = Sanic(named("exits"), configure_logging=False)

    @app.websocket("/echo")
    async def leave(request: Request, ws: Websocket) -> None:
        sys.exit("enough")

    async def exits(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        await send({"type": "websocket.accept"})
        sys.exit("enough")

    namespace = Namespace("production")
    namespace.register("db", app if kind == "sanic" else exits)
    namespace.register("auth", asgi_service("auth"))
    async with serving(namespace) as port:
        async with socket(port) as ws:
            with pytest.raises(ConnectionClosed):
                await ws.recv()
        async with connected(port) as client:
            assert (await client.ask("auth.do")).status == 200


async def test_a_client_that_reads_nothing_stops_the_echo() -> None:
    """Frames wait in the sockets, not in the router."""
    async with routed("asgi", asyncio.Queue()) as port, socket(port, max_queue=1) as ws:
        sent = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                while True:
                    await ws.send(bytes(65536))
                    sent += 65536
        assert sent < 64 * 1024 * 1024
        ws.transport.abort()


async def test_w14_any_host_and_path_gets_an_answer_of_the_table() -> None:
    namespace = Namespace("production")
    for name in ("gateway", "db"):
        namespace.register(name, (sanic_service if name == "db" else asgi_service)(name))
    text = st.text(
        st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=30
    )
    seen: list[tuple[str, str]] = []

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        host=st.one_of(text, st.builds("{}.do{}".format, st.sampled_from(["db", "x"]), text)),
        target=st.one_of(text, st.builds("/{}".format, text)),
    )
    def collect(host: str, target: str) -> None:
        seen.append((host, target))

    collect()
    async with serving(namespace) as port:
        for host, target in seen:
            async with connected(port) as client:
                reply = await client.ask(host, target)
                assert reply.status in (200, 400, 404), (host, target, reply)
                assert reply.headers["content-type"] == "application/json", (host, target)
