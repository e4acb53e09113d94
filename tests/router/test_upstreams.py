"""Remote services: certificates, deadlines, and connections that are used again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sanic import HTTPResponse, Request, Sanic
from sanic.response import text

from router import Limits, Namespace
from router.errors import ConfigurationError
from router.remote import RemoteService
from tests.router.support.serving import (
    Reply,
    connected,
    listening,
    named,
    request_bytes,
    serving,
)
from tests.router.support.tls import context_for, trusted

SOON_S = 0.5


def counting() -> Sanic[Any, Any]:
    """Tells the port that each request came from."""
    app: Sanic[Any, Any] = Sanic(named("counting"), configure_logging=False)

    @app.get("/")
    async def port(request: Request) -> HTTPResponse:
        return text(str(request.port))

    return app


async def asked(source: Any, count: int = 1) -> list[Reply]:
    """One request after the other to a service, each on a connection of its own."""
    namespace = Namespace("production")
    namespace.register("db", source)
    async with serving(namespace) as port:
        replies = []
        for _ in range(count):
            async with connected(port) as client:
                replies.append(await client.ask("db.do"))
        return replies


@pytest.mark.parametrize("tls", [False, True])
async def test_connections_are_used_again(tls: bool) -> None:
    options = {"ssl": context_for("127.0.0.1")} if tls else {}
    scheme = "https" if tls else "http"
    with trusted():
        async with listening(counting(), **options) as port:
            replies = await asked(f"{scheme}://127.0.0.1:{port}", 5)
    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1


@pytest.mark.parametrize("name", ["other.example", None])
async def test_a_certificate_that_proves_nothing_is_a_failed_service(name: str | None) -> None:
    """It is for another name, or of an authority that nobody trusts."""
    with trusted() if name else contextlib.nullcontext():
        async with listening(counting(), ssl=context_for(name or "127.0.0.1")) as port:
            (reply,) = await asked(f"https://127.0.0.1:{port}")
    assert reply.status == 500
    assert b"cannot be reached" in reply.body and b"certificate" in reply.body.lower()


@contextlib.asynccontextmanager
async def silent(answer: bytes = b"") -> AsyncIterator[int]:
    """Takes connections, says this much and no more."""
    over = asyncio.Event()

    async def stay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        await over.wait()
        writer.close()

    server = await asyncio.start_server(stay, "127.0.0.1", 0)
    async with server:
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            over.set()


async def test_a_handshake_a_head_and_a_body_have_their_deadlines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router.remote.CONNECT_DEADLINE_S", SOON_S)
    options = {"head_deadline_s": SOON_S, "move_deadline_s": SOON_S}
    began_s = time.monotonic()
    async with silent() as port:
        (reply,) = await asked(RemoteService(f"https://127.0.0.1:{port}", **options))
        assert reply.status == 500 and b"cannot be reached" in reply.body
        (reply,) = await asked(RemoteService(f"http://127.0.0.1:{port}", **options))
        assert reply.status == 500 and b"does not answer" in reply.body
    async with silent(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf") as port:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asked(RemoteService(f"http://127.0.0.1:{port}", **options))
    assert time.monotonic() - began_s < 50 * SOON_S


async def test_w13_an_upstream_is_replaced_under_load_without_a_failure() -> None:
    """By another upstream, by a service of this process, and back."""
    seen: set[bytes] = set()
    stop = asyncio.Event()
    namespace = Namespace("production")

    def version(number: int) -> Sanic[Any, Any]:
        app: Sanic[Any, Any] = Sanic(named("version"), configure_logging=False)

        async def answer(request: Request) -> HTTPResponse:
            await asyncio.sleep(0.002)
            return text(str(number))

        app.add_route(answer, "/")
        return app

    async with contextlib.AsyncExitStack() as stack:
        sources: list[Any] = []
        for number in range(6):
            app = version(number)
            if number % 3 == 2:
                sources.append(app)
                continue
            sources.append(f"http://127.0.0.1:{await stack.enter_async_context(listening(app))}")
        namespace.register("db", sources[0], limits=Limits(max_concurrency=64))
        port = await stack.enter_async_context(serving(namespace))

        async def load() -> int:
            count = 0
            async with connected(port) as client:
                while not stop.is_set():
                    reply = await client.ask("db.do")
                    assert reply.status == 200
                    seen.add(reply.body)
                    count += 1
            return count

        clients = [asyncio.ensure_future(load()) for _ in range(16)]
        for number, source in enumerate(sources):
            await namespace.replace("db", source)
            async with asyncio.timeout(5):
                while str(number).encode() not in seen:
                    await asyncio.sleep(0.001)
        stop.set()
        assert min(await asyncio.gather(*clients)) >= 1


async def test_nothing_of_an_upload_or_an_answer_over_tls_is_kept() -> None:
    """An upstream that does not read holds the client back; one that sends is held back by it."""
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while sent < 1_000_000_000:
                writer.write(bytes(65536))
                sent += 65536
                await writer.drain()
        writer.close()

    with trusted():
        context = context_for("127.0.0.1")
        server = await asyncio.start_server(flood, "127.0.0.1", 0, ssl=context)
        namespace = Namespace("production")
        namespace.register("db", f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with server, serving(namespace) as port, connected(port) as client:
            await client.send(request_bytes("db.do"))
            assert (await client.head())[0] == 200
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.2)
            assert sent < 32 * 1024 * 1024


@pytest.mark.parametrize("url", ["ftp://a", "https://", "http://a:x", "http://a/b", "http://u@a"])
def test_what_is_no_upstream_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        RemoteService(url)
