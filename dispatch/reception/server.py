"""``POST /dispatch``, the WebSocket ``/dispatch`` and ``GET /health`` on one port."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import unquote

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from dispatch.interface import Transport
from dispatch.messages import encode_answer
from dispatch.reception.desk import Answer, Desk, refusal
from dispatch.seen import Seen
from dispatch.signature import HEADER, is_signed

Connection = web.RequestHandler

HEALTH = "Transcription Dispatcher"
MAX_NAME = 512
"""Characters of an ``Idempotency-Key``."""


class ReceptionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What gateways may send; beyond, they are told to come later (429) or not at all."""

    max_message_bytes: int = 262_144
    max_connections: int = 1000
    max_at_once: int = 1000
    """Messages on their way to the sink."""
    messages_per_s: float = 10_000
    request_within_s: float = 10.0
    """From a connection's first byte to a whole request; also the time to answer a message."""
    idle_s: float = 75.0
    """A connection on which nothing was asked for so long is closed; sockets are pinged."""


DEFAULT_LIMITS = ReceptionLimits()


class Reception:
    """A server in front of a sink. With a ``secret`` only what is signed with it is taken."""

    def __init__(
        self,
        sink: Transport,
        *,
        secret: bytes = b"",
        limits: ReceptionLimits = DEFAULT_LIMITS,
        seen: Seen | None = None,
    ) -> None:
        self._secret = secret
        self._limits = limits
        self._desk = Desk(
            sink,
            Seen() if seen is None else seen,
            deadline_s=limits.request_within_s,
            max_at_once=limits.max_at_once,
            per_s=limits.messages_per_s,
        )
        self._silent: dict[Connection, asyncio.TimerHandle] = {}
        self._sockets: set[web.WebSocketResponse] = set()

    @asynccontextmanager
    async def serving(
        self, host: str, port: int, *, stop_within_s: float = 10.0
    ) -> AsyncIterator[int]:
        """Listen for the length of the block, which is given the port; then finish."""
        server = web.Server(self._answer, keepalive_timeout=self._limits.idle_s, access_log=None)
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: self._door(server), host, port)
        try:
            yield int(listener.sockets[0].getsockname()[1])
        finally:
            listener.close()
            await self._desk.finish(stop_within_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(stop_within_s):
                    await asyncio.gather(
                        *(leave(each, WSCloseCode.GOING_AWAY, "stopping") for each in self._sockets)
                    )
            await server.shutdown(1.0)
            for timer in self._silent.values():
                timer.cancel()

    def _door(self, server: web.Server) -> asyncio.Protocol:
        """A connection's protocol; one too many is hung up on, and so is one that never asks."""
        if len(server.connections) >= self._limits.max_connections:
            return Closed()
        protocol = server()
        self._silent[protocol] = asyncio.get_running_loop().call_later(
            self._limits.request_within_s, self._hang_up_on, protocol
        )
        return protocol

    def _hang_up_on(self, protocol: Connection) -> None:
        del self._silent[protocol]
        if protocol.transport is not None:
            protocol.force_close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if timer := self._silent.pop(request.protocol, None):
            timer.cancel()
        if request.path == "/health":
            return web.Response(text=HEALTH)
        if request.path != "/dispatch":
            return http_answer(refusal(404, "POST /dispatch takes messages"))
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._socket(request)
        if request.method != "POST":
            return http_answer(refusal(405, "POST /dispatch takes messages"))
        return http_answer(await self._post(request))

    async def _post(self, request: web.BaseRequest) -> Answer:
        if (request.content_length or 0) > self._limits.max_message_bytes:
            return self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.request_within_s):
                async for piece in request.content.iter_any():
                    body += piece
                    if len(body) > self._limits.max_message_bytes:
                        return self._too_large()
        except TimeoutError:
            return refusal(408, f"no whole request within {self._limits.request_within_s:g} s")
        if not self._is_signed(request, bytes(body)):
            return refusal(401, f"{HEADER} does not sign this body, or not now")
        name = unquote(request.headers.get("Idempotency-Key", ""))
        if len(name) > MAX_NAME:
            return refusal(400, f"Idempotency-Key is longer than {MAX_NAME} characters")
        attempt = request.headers.get("X-Attempt", "")
        return await self._desk.take(
            bytes(body),
            name,
            int(attempt) if attempt.isascii() and attempt.isdigit() and len(attempt) < 9 else 1,
            request.headers.get("X-Epoch", "")[:MAX_NAME],
        )

    async def _socket(self, request: web.BaseRequest) -> web.StreamResponse:
        """Each text message is answered by one ``RPCResponse``, in the same order.

        What cannot be taken now ends the socket with 1013, so that it is brought again later.
        """
        if not self._may_open(request):
            return http_answer(refusal(401, "this socket needs the secret: see the documentation"))
        socket = web.WebSocketResponse(
            timeout=self._limits.request_within_s,
            heartbeat=self._limits.idle_s / 2,
            max_msg_size=self._limits.max_message_bytes,
            compress=False,
        )
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    await leave(socket, WSCloseCode.UNSUPPORTED_DATA, "messages are text")
                    break
                body = message.data.encode()
                answer = await self._desk.take(body, hashlib.sha256(body).hexdigest())
                if answer.retry_after_s is not None:
                    reason = (answer.said.errors or [""])[0]
                    await leave(socket, WSCloseCode.TRY_AGAIN_LATER, reason)
                    break
                async with asyncio.timeout(self._limits.request_within_s):
                    await socket.send_str(encode_answer(answer.said).decode())
        except (TimeoutError, ConnectionError):
            await leave(socket, WSCloseCode.TRY_AGAIN_LATER, "the answer is not read")
        finally:
            self._sockets.discard(socket)
        return socket

    def _may_open(self, request: web.BaseRequest) -> bool:
        """A signature of nothing, or the secret itself where headers are always the same."""
        given = request.headers.get("Authorization", "").encode()
        return self._is_signed(request, b"") or hmac.compare_digest(
            given, b"Bearer " + self._secret
        )

    def _too_large(self) -> Answer:
        return refusal(413, f"a message has at most {self._limits.max_message_bytes} bytes")

    def _is_signed(self, request: web.BaseRequest, body: bytes) -> bool:
        if not self._secret:
            return True
        value = request.headers.get(HEADER, "")
        return is_signed(self._secret, body, value, int(time.time()))


async def leave(socket: web.WebSocketResponse, code: WSCloseCode, reason: str) -> None:
    """Close with a reason, whatever the other side does."""
    with suppress(Exception):
        await socket.close(code=code, message=reason.encode()[:123])


class Closed(asyncio.Protocol):
    """Hangs up at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def http_answer(answer: Answer) -> web.Response:
    """The answer as an HTTP response."""
    headers = {"Content-Type": "application/json"}
    if answer.retry_after_s is not None:
        headers["Retry-After"] = str(answer.retry_after_s)
    return web.Response(status=answer.status, body=encode_answer(answer.said), headers=headers)
