"""A real Sanic server with the lane in the test's own event loop, and a client of raw frames."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from sanic import HTTPResponse, Request, Sanic
from sanic.response import text

from _native import frame_writer, frames
from _native.frames import BINARY, CLOSE, PING, PONG, TEXT, Decoder
from edge.transport.interface import Close, Limits, Socket
from edge.transport.lane import LaneProtocol, accept, refuse
from edge.transport.registry import Lanes
from edge.transport.settings import LaneSettings
from router.front import RoutedHttp

KEY = b"\x37\xfa\x21\x3d"
PATIENCE_S = 20.0
# Without it Sanic can be started only once in a process: it rewrites its own methods at start.
Sanic.test_mode = True
# It then keeps the originals under these names, and takes those of a base class for a subclass's.
for _name in RoutedHttp.__touchup__:
    setattr(RoutedHttp, f"_{_name}", getattr(RoutedHttp, _name))
_names = (f"lane-{n}" for n in itertools.count())


def settings(**values: float) -> LaneSettings:
    """Settings without pings unless asked for."""
    return msgspec.convert({"client_ping_interval_s": 0, **values}, LaneSettings)


class Recorder:
    """A receiver that keeps all it is told; ``on_message`` may be replaced."""

    def __init__(self, greeting: bytes | None = None) -> None:
        self.greeting = greeting
        self.socket: Socket
        self.messages: list[bytes] = []
        self.texts: list[bool] = []
        self.calls: list[str] = []
        self.close: Close | None = None
        self.over = asyncio.Event()
        self.changed = asyncio.Event()
        self.on_message: Callable[[bytes], None] = lambda data: None

    def opened(self, socket: Socket) -> None:
        self.calls.append("opened")
        self.socket = socket
        if self.greeting is not None:
            socket.send_text(self.greeting)

    def message(self, data: bytes, is_text: bool) -> None:
        self.calls.append("message")
        self.messages.append(data)
        self.texts.append(is_text)
        self.changed.set()
        self.on_message(data)

    def closed(self, close: Close) -> None:
        self.calls.append("closed")
        self.close = close
        self.over.set()
        self.changed.set()

    async def received(self, count: int) -> list[bytes]:
        """Wait for ``count`` messages in all."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.messages) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.messages

    async def ended(self) -> Close:
        """Wait for the end and return how it came."""
        async with asyncio.timeout(PATIENCE_S):
            await self.over.wait()
        assert self.close is not None
        assert self.calls[0] == "opened"
        assert self.calls[-1] == "closed"
        assert self.calls.count("opened") == self.calls.count("closed") == 1
        return self.close


class Server:
    """Where the tests connect to; ``recorders`` holds the receivers in order of connection."""

    def __init__(self, port: int, lanes: Lanes, app: Sanic[Any, Any]) -> None:
        self.port = port
        self.lanes = lanes
        self.app = app
        self.recorders: list[Recorder] = []
        self.make: Callable[[], Recorder] = Recorder
        self._arrived = asyncio.Event()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/lane"

    def receiver(self) -> Recorder:
        recorder = self.make()
        self.recorders.append(recorder)
        self._arrived.set()
        return recorder

    async def recorder(self, index: int = 0) -> Recorder:
        """Wait for the receiver of the connection number ``index``."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.recorders) <= index:
                self._arrived.clear()
                await self._arrived.wait()
        return self.recorders[index]


@contextlib.asynccontextmanager
async def serving(
    lane_settings: LaneSettings | None = None,
    limits: Limits | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    subprotocol: str | None = None,
) -> AsyncIterator[Server]:
    """Serve ``/lane`` (accepted), ``/refused`` (raw 404) and ``/plain`` (HTTP) on a free port.

    ``/stubborn`` accepts only once the client has gone away.
    """
    app: Sanic[Any, Any] = Sanic(next(_names), configure_logging=False)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = Server(listener.getsockname()[1], Lanes(lane_settings or settings()), app)

    @app.get("/lane")
    async def lane(request: Request) -> HTTPResponse:
        return accept(
            request,
            server.receiver(),
            lanes=server.lanes,
            limits=limits,
            subprotocol=subprotocol,
        )

    @app.get("/stubborn")
    async def stubborn(request: Request) -> HTTPResponse:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(PATIENCE_S)
        return await lane(request)

    @app.get("/refused")
    async def refused(request: Request) -> HTTPResponse:
        return refuse(request, 404, "No such place")

    @app.get("/plain")
    async def plain(request: Request) -> HTTPResponse:
        return text("plain")

    sanic_server = await app.create_server(
        sock=listener, protocol=LaneProtocol, ssl=tls, access_log=False, return_asyncio_server=True
    )
    assert sanic_server is not None
    try:
        await sanic_server.startup()
        yield server
    finally:
        server.lanes.close_all()
        await server.lanes.wait_closed(1.0)
        sanic_server.close()
        for connection in tuple(sanic_server.connections):
            connection.abort()
        async with asyncio.timeout(PATIENCE_S):
            while sanic_server.connections:
                await asyncio.sleep(0.01)
        await sanic_server.wait_closed()
        Sanic.unregister_app(app)


def handshake(path: str = "/lane", *, key: str | None = None, headers: str = "") -> bytes:
    """An opening handshake; ``headers`` are further lines, each ended by CRLF."""
    nonce = key or base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {nonce}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    ).encode()


def masked(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A frame as a client sends it."""
    return frame_writer.encode_masked(opcode, payload, KEY, fin=fin)


def close_frame(code: int, reason: str = "") -> bytes:
    """A client's close frame."""
    return masked(CLOSE, frame_writer.close_payload(code, reason))


class RawClient:
    """A client that sends what it is told and takes frames apart, nothing else.

    It answers neither pings nor close frames, and reads only while it is asked to.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._decoder = Decoder(1 << 24, masked=False)
        self._frames: list[tuple[int, bytes]] = []

    @classmethod
    async def connect(
        cls,
        server: Server,
        *,
        first: bytes = b"",
        path: str = "/lane",
        tls: ssl.SSLContext | None = None,
        receive_buffer_bytes: int | None = None,
    ) -> RawClient:
        """Connect and upgrade; ``first`` is sent in one piece with the handshake."""
        sock = socket.socket()
        if receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
        # A small limit makes the reader stop reading soon when nobody asks.
        reader, writer = await asyncio.open_connection(
            sock=sock, limit=4096, ssl=tls, server_hostname="localhost" if tls else None
        )
        client = cls(reader, writer)
        client.send(handshake(path) + first)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return client

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)

    async def frame(self) -> tuple[int, bytes]:
        """The next frame as (opcode, payload); ``(-1, b"")`` at the end of the stream."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._frames:
                data = await self.reader.read(65536)
                if not data:
                    return -1, b""
                self._frames += self._decoder.decode(data)
        return self._frames.pop(0)

    async def until_close(self) -> tuple[int, str]:
        """Code and reason of the server's close frame; 1006 when the stream ends without one."""
        while True:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                return frames.parse_close(payload)
            if opcode == -1:
                return 1006, ""

    async def end(self) -> None:
        """Wait for the end of the stream, then close."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self.frame())[0] != -1:
                pass
        await self.leave()

    async def leave(self) -> None:
        """Close the TCP connection."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Drop the TCP connection with a reset."""
        self.writer.transport.abort()


__all__ = [
    "BINARY",
    "CLOSE",
    "PING",
    "PONG",
    "TEXT",
    "RawClient",
    "Recorder",
    "Server",
    "close_frame",
    "handshake",
    "masked",
    "serving",
    "settings",
]
