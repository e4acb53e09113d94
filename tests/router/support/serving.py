"""A router behind a real socket, in this event loop, and a client that sends what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from sanic import HTTPResponse, Request, Sanic
from sanic.exceptions import MethodNotAllowed, NotFound
from sanic.response import json

from router import Namespace, Router, RouterProtocol, RouterSettings

_numbers = itertools.count(1)


class Reply(msgspec.Struct):
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes
    trailers: dict[str, str] = {}


@contextlib.asynccontextmanager
async def listening(app: Sanic[Any, Any], **options: Any) -> AsyncIterator[int]:
    """Serve an application as Sanic does; gives the port."""
    # Sanic rewrites its own classes when it starts, which only works once in a process.
    app.config.TOUCHUP = False
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    port = listener.getsockname()[1]
    server = await app.create_server(sock=listener, return_asyncio_server=True, **options)
    assert server is not None
    await server.startup()
    await server.before_start()
    await server.after_start()
    try:
        yield port
    finally:
        await server.before_stop()
        await server.close()
        for connection in list(server.connections):
            connection.abort()
        await server.after_stop()
        Sanic.unregister_app(app)


@contextlib.asynccontextmanager
async def serving(
    *namespaces: Namespace, settings: RouterSettings | None = None
) -> AsyncIterator[int]:
    """A router of these namespaces; gives the port."""
    router = Router(namespaces, settings or RouterSettings(expose_errors=True))
    async with listening(router.app(f"router-{next(_numbers)}"), protocol=RouterProtocol) as port:
        yield port


def named(name: str) -> str:
    """A name that no other Sanic application has."""
    return f"{name}-{next(_numbers)}"


def sanic_service(service: str, raises: str | None = None) -> Sanic[Any, Any]:
    """Tells which service it is, for every method and path."""
    app: Sanic[Any, Any] = Sanic(named(service), configure_logging=False)

    async def answer(request: Request, *_: object) -> HTTPResponse:
        if raises is not None:
            raise RuntimeError(raises)
        return json({"service": service, "path": request.path, "method": request.method})

    app.add_route(answer, "/", methods=["GET", "POST", "HEAD", "OPTIONS"])
    app.error_handler.add(NotFound, answer)
    app.error_handler.add(MethodNotAllowed, answer)
    if raises is not None:

        @app.on_request
        async def fail(request: Request) -> None:
            raise RuntimeError(raises)

    return app


def asgi_service(service: str, raises: str | None = None) -> Any:
    """The same as an ASGI application without lifespan."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        if raises is not None:
            raise RuntimeError(raises)
        told = {"service": service, "path": scope["path"], "method": scope["method"]}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": msgspec.json.encode(told)})

    return app


def request_bytes(
    host: str | None,
    target: str = "/",
    method: str = "GET",
    version: str = "1.1",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"{method} {target} HTTP/{version}"]
    lines += [] if host is None else [f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode(errors="surrogateescape") + b"\r\n\r\n" + body


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ask(self, *args: Any, **kwargs: Any) -> Reply:
        """Send a request and read its response."""
        data = request_bytes(*args, **kwargs)
        await self.send(data)
        return await self.reply(is_head=data.startswith(b"HEAD "))

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next response."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = [line.split(": ", 1) for line in head[1:] if line]
        return int(head[0].split(" ")[1]), {name.lower(): value for name, value in fields}

    async def chunk(self) -> bytes:
        """The next chunk of a response; empty at its end, whose trailers are left."""
        size = int(await self.reader.readline(), 16)
        data = await self.reader.readexactly(size)
        if size:
            await self.reader.readexactly(2)
        return data

    async def reply(self, *, is_head: bool = False) -> Reply:
        """The next response, whole."""
        status, headers = await self.head()
        if is_head or status in (101, 204, 304):
            return Reply(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while data := await self.chunk():
                body += data
            lines = (await self.reader.readuntil(b"\r\n")).decode()
            trailers: dict[str, str] = {}
            while lines != "\r\n":
                name, value = lines.strip().split(": ", 1)
                trailers[name.lower()] = value
                lines = (await self.reader.readuntil(b"\r\n")).decode()
            return Reply(status, headers, body, trailers)
        if "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
            return Reply(status, headers, body)
        return Reply(status, headers, await self.reader.read())


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    """A client of a port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
