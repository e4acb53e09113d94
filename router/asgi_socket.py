"""WebSockets of ASGI applications: the handshake, the frames and the two functions."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections import deque
from collections.abc import MutableMapping
from typing import Any

from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from router.errors import ServiceFailed
from router.front import RoutedRequest
from router.writing import RawResponse, header_line

Event = MutableMapping[str, Any]

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MAX_MESSAGE = 16 * 1024 * 1024
MAX_WAITING = 1024 * 1024
"""Bytes of messages that the application has not received, beyond which the client waits."""
MESSAGE_COST = 1024
"""What a message counts beyond its bytes, so that a flood of empty ones is bounded, too."""
CLOSE_DEADLINE_S = 10.0


class AsgiSocket(asyncio.Protocol):
    """One WebSocket of an ASGI application; takes the transport over at its acceptance."""

    def __init__(self, request: RoutedRequest) -> None:
        self._request = request
        headers = request.headers
        self._key = headers.getone("sec-websocket-key", "").strip()
        self.fault = _fault(request, self._key)
        """Why the request is no WebSocket handshake; None when it is one."""
        offered = ",".join(headers.getall("sec-websocket-protocol", ()))
        self.offered = [name.strip() for name in offered.split(",") if name.strip()]
        self.over = asyncio.Event()
        """Never set: a socket lives as long as its application."""
        self._frames = ServerProtocol(state=State.OPEN, max_size=MAX_MESSAGE)
        self._transport: asyncio.Transport | None = None
        self._denial: RawResponse | None = None
        self._waiting: deque[Event] = deque(({"type": "websocket.connect"},))
        self._cost = 0
        self._paused = False
        self._arrived = asyncio.Event()
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._lost = asyncio.Event()
        self._parts: list[bytes] = []
        self._is_text = False
        self._is_disconnected = False

    async def receive(self) -> Event:
        """The next event; ``websocket.disconnect`` again and again once there are no others."""
        while not self._waiting:
            if self._is_disconnected:
                return self._disconnect()
            self._arrived.clear()
            await self._arrived.wait()
        event = self._waiting.popleft()
        self._cost -= _cost(event)
        if self._paused and self._cost <= MAX_WAITING // 2 and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return event

    async def send(self, event: Event) -> None:
        """The application's events; raises ``OSError`` once the socket is gone."""
        kind = event["type"]
        if self._transport is None:
            await self._answer(kind, event)
            return
        if self._is_disconnected:
            raise OSError("the WebSocket is closed")
        if kind == "websocket.send":
            text = event.get("text")
            if text is not None:
                self._frames.send_text(text.encode())
            else:
                self._frames.send_binary(event.get("bytes") or b"")
        elif kind == "websocket.close":
            self._frames.send_close(event.get("code", 1000), event.get("reason") or "")
        else:
            raise ServiceFailed(f"the service sent {kind!r} out of turn")
        self._flush()
        await self._can_write.wait()

    async def end(self) -> None:
        """The application has returned: close what it left open and wait for the close."""
        if self._transport is None:
            if self._denial is None or not self._denial.finished:
                raise ServiceFailed("the service neither accepted nor refused the WebSocket")
            return
        if self._frames.state is State.OPEN:
            self._frames.send_close(1000, "")
            self._flush()
        try:
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await self._lost.wait()
        except TimeoutError:
            self._transport.abort()

    def fail(self) -> None:
        """The application has raised: close with 1011."""
        if self._transport is not None and self._frames.state is State.OPEN:
            self._frames.send_close(1011, "")
            self._flush()
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Frames of the client."""
        frames = self._frames
        frames.receive_data(data)
        for frame in frames.events_received():
            if isinstance(frame, Frame):
                self._take(frame)
        self._flush()
        if self._cost > MAX_WAITING and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if frames.state is not State.OPEN:
            self._disconnected()

    def eof_received(self) -> bool:
        """The client sends nothing more."""
        self._frames.receive_eof()
        self._flush()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever waits."""
        if self._frames.state is not State.CLOSED:
            self._frames.receive_eof()
        self._disconnected()
        self._can_write.set()
        self._lost.set()

    def pause_writing(self) -> None:
        """The client is slower than the application."""
        self._can_write.clear()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._can_write.set()

    async def _answer(self, kind: str, event: Event) -> None:
        """What the application says to the handshake."""
        if kind == "websocket.accept" and self._denial is None:
            self._accept(event)
        elif kind == "websocket.close" and self._denial is None:
            self._denial = RawResponse(self._request)
            await self._denial.start(403, b"", ((b"content-length", b"0"),))
            await self._denial.finish()
            self._disconnected()
        elif kind == "websocket.http.response.start" and self._denial is None:
            self._denial = RawResponse(self._request)
            await self._denial.start(event["status"], b"", event.get("headers", ()))
        elif kind == "websocket.http.response.body" and self._denial is not None:
            await self._denial.write(event.get("body", b""))
            if not event.get("more_body", False):
                await self._denial.finish()
                self._disconnected()
        else:
            raise ServiceFailed(f"the service sent {kind!r} out of turn")

    def _accept(self, event: Event) -> None:
        digest = hashlib.sha1(self._key.encode() + GUID, usedforsecurity=False).digest()
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest),
        ]
        if event.get("subprotocol"):
            lines.append(header_line(b"Sec-WebSocket-Protocol", event["subprotocol"].encode()))
        lines += [header_line(name, value) for name, value in event.get("headers", ())]
        transport, rest = self._request.exchange.let_go()
        self._transport = transport
        transport.set_protocol(self)
        transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
        transport.resume_reading()
        if rest:
            self.data_received(rest)

    def _take(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            if frame.opcode is not Opcode.CONT:
                self._is_text = frame.opcode is Opcode.TEXT
            self._parts.append(bytes(frame.data))
            if not frame.fin:
                return
            data = b"".join(self._parts)
            self._parts.clear()
            event: Event = {"type": "websocket.receive"}
            try:
                event["text" if self._is_text else "bytes"] = (
                    data.decode() if self._is_text else data
                )
            except UnicodeDecodeError:
                self._frames.fail(1007, "invalid UTF-8")
                return
            self._waiting.append(event)
            self._cost += _cost(event)
            self._arrived.set()

    def _flush(self) -> None:
        transport = self._transport
        if transport is None:
            return
        for data in self._frames.data_to_send():
            if data:
                transport.write(data)
            else:
                transport.close()

    def _disconnected(self) -> None:
        self._is_disconnected = True
        self._arrived.set()

    def _disconnect(self) -> Event:
        frames = self._frames
        close = frames.close_rcvd or frames.close_sent
        code, reason = (close.code, close.reason) if close else (1006, "")
        return {"type": "websocket.disconnect", "code": code, "reason": reason}


def _cost(event: Event) -> int:
    data = event.get("bytes") or event.get("text") or ""
    return len(data) + MESSAGE_COST if event["type"] == "websocket.receive" else 0


def _fault(request: RoutedRequest, key: str) -> str | None:
    """Why the application is not asked for a WebSocket."""
    headers = request.headers
    tokens = ",".join(headers.getall("connection", ())).lower().split(",")
    if request.method != "GET" or request.version != "1.1":
        return "a WebSocket begins with GET and HTTP/1.1"
    if "upgrade" not in (token.strip() for token in tokens):
        return "Connection does not ask for an upgrade"
    if headers.get("sec-websocket-version", "").strip() != "13":
        return "the WebSocket version is not 13"
    try:
        return None if len(base64.b64decode(key, validate=True)) == 16 else "the key is too short"
    except binascii.Error:
        return "the key is no base64"
