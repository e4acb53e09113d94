"""A scripted peer of the JavaScript client: the test itself says what the gateway says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from edge.ingest.session_audio import AudioFrame, parse_audio
from edge.web.files import load_web_files

SUBPROTOCOL = Subprotocol("edge.session.v1")
WITHIN_S = 8.0


class Peer:
    """One connection of a client."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.frames: list[AudioFrame] = []
        assert socket.request is not None
        query = parse_qs(urlsplit(socket.request.path).query)
        self.query = {name: values[0] for name, values in query.items()}

    async def next(self, type: str) -> dict[str, Any]:
        """The next message of a type; others are passed over."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                message = await self.messages.get()
                if message["type"] == type:
                    return message

    async def send(self, type: str, **members: Any) -> None:
        await self.socket.send(json.dumps({"type": type, **members}))

    async def welcome(self, offset: int = 0, *, epoch: str = "e", **members: Any) -> dict[str, Any]:
        """Take the hello and answer it; returns the hello."""
        hello = await self.next("hello")
        given = {"recovered": True, "audio_ack": 0, "session": "s", **members}
        await self.send("welcome", conn="c", epoch=epoch, offset=offset, **given)
        return hello

    async def event(self, offset: int, text: str = "", kind: str = "final") -> None:
        await self.send("ev", **event(offset, text, kind))

    async def heard(self, seq: int) -> list[int]:
        """The numbers of all frames, once the one with ``seq`` has come."""
        async with asyncio.timeout(WITHIN_S):
            while not self.frames or self.frames[-1].seq < seq:
                await asyncio.sleep(0.01)
        return [frame.seq for frame in self.frames]

    async def read(self) -> None:
        try:
            async for message in self.socket:
                if isinstance(message, bytes):
                    self.frames.append(parse_audio(message))
                else:
                    self.messages.put_nowait(json.loads(message))
        except ConnectionClosed:
            pass


def event(offset: int, text: str = "", kind: str = "final") -> dict[str, Any]:
    """An event as ``ev`` and snapshots have it."""
    return {"o": offset, "k": kind, "at": 1, "data": {"speaker": "anna", "text": text}}


class Script:
    """Serves the client and hands out its connections in turn."""

    def __init__(self) -> None:
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._files = load_web_files()
        self.server: Server | None = None

    @property
    def port(self) -> int:
        assert self.server is not None
        return int(next(iter(self.server.sockets)).getsockname()[1])

    async def next(self) -> Peer:
        async with asyncio.timeout(WITHIN_S):
            return await self._peers.get()

    @property
    def is_quiet(self) -> bool:
        return self._peers.empty()

    async def handle(self, socket: ServerConnection) -> None:
        peer = Peer(socket)
        self._peers.put_nowait(peer)
        await peer.read()

    def respond(self, socket: ServerConnection, request: Request) -> Response | None:
        if "Upgrade" in request.headers:
            return None
        file = self._files.get(urlsplit(request.path).path)
        body = file.content if file else b"<!doctype html><title>test</title>"
        headers = Headers(
            {
                "Content-Type": file.content_type if file else "text/html",
                "Content-Length": str(len(body)),
                "Connection": "close",
            }
        )
        return Response(HTTPStatus.OK, "OK", headers, body)


@asynccontextmanager
async def scripted() -> AsyncIterator[Script]:
    script = Script()
    async with serve(
        script.handle,
        "127.0.0.1",
        0,
        subprotocols=[SUBPROTOCOL],
        process_request=script.respond,
        compression=None,
        max_size=None,
    ) as server:
        script.server = server
        yield script
