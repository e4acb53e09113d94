"""What each transport delivers to: real servers, queues and objects that a test can disturb."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from redis.asyncio import Redis
from websockets.asyncio.server import Server, ServerConnection, serve

from dispatch import (
    DispatcherTranscriptionMessage,
    Envelope,
    RPCResponse,
    TranscriptionDispatcher,
    Transport,
    Unreachable,
)
from dispatch.local_queue import LocalQueue
from dispatch.messages import decode_message, encode_answer, transcription
from dispatch.redis_stream import envelope_of as entry_envelope
from dispatch.redis_stream import partition_of, partitions
from dispatch.sqs_queue import envelope_of as message_envelope
from dispatch.transports.binding import BindingTransport
from dispatch.transports.http import HttpTransport
from dispatch.transports.local import LocalTransport
from dispatch.transports.redis import RedisTransport
from dispatch.transports.sqs import SqsTransport
from dispatch.transports.websocket import WebSocketTransport
from tests.dispatch.support.moto import CREDENTIALS, Moto
from tests.session.store.support.valkey import Valkey
from tests.support.server import free_port

POISON = "poison"
TAKEN = encode_answer(RPCResponse(success=True, dispatched=1))
NOT_TAKEN = encode_answer(RPCResponse(success=False, dispatched=0, errors=["no"]))


def envelope_of(session: str, offset: int, text: str = "", attempt: int = 1) -> Envelope:
    """A message whose text is its offset, if not given."""
    body = transcription(session, "anna", [text or str(offset)], 1700000000000 + offset)
    assert body is not None
    return Envelope(f"{session}:{offset}", session, body, attempt, "epoch", 1700000000000)


def envelopes(session: str, count: int) -> list[Envelope]:
    return [envelope_of(session, offset) for offset in range(1, count + 1)]


class Heard(msgspec.Struct, frozen=True):
    """What arrived; None for what the way there has no place for."""

    body: bytes
    message_id: str | None = None
    attempt: int | None = None

    @property
    def session(self) -> str:
        return decode_message(self.body).session_id


class Target(ABC):
    """Where messages arrive. ``away`` targets are not there; ``hang`` and ``wake`` at will."""

    keeps_once = False
    """Whether a message that comes again is not there twice."""

    async def start(self) -> None:
        """Be there."""
        return None

    async def stop(self) -> None:
        """Be there no more."""
        return None

    @abstractmethod
    def transport(self, deadline_s: float) -> Transport:
        """A way to it."""

    @abstractmethod
    async def heard(self) -> list[Heard]:
        """All that arrived, in order."""

    @abstractmethod
    async def hang(self) -> None:
        """Answer nothing any more."""

    @abstractmethod
    async def wake(self) -> None:
        """Answer again."""

    def poison(self, session: str, offset: int) -> Envelope | None:
        """A message that it refuses, if there is such a thing."""
        return envelope_of(session, offset, POISON)


class Held:
    """What services have in common: they can be made to wait."""

    def __init__(self) -> None:
        self.taken: list[Heard] = []
        self.is_free = asyncio.Event()
        self.is_free.set()

    async def judge(self, heard: Heard) -> bool:
        """Whether a message is taken; not before the service is free."""
        await self.is_free.wait()
        if POISON in decode_message(heard.body).text:
            return False
        self.taken.append(heard)
        return True


class BindingTarget(Target):
    class Listener(TranscriptionDispatcher):
        def __init__(self, held: Held) -> None:
            self.held = held
            self.is_there = False

        async def dispatch(self, message: DispatcherTranscriptionMessage) -> RPCResponse:
            if not self.is_there:
                raise Unreachable("not there")
            is_taken = await self.held.judge(Heard(msgspec.json.encode(message)))
            return RPCResponse(success=is_taken, dispatched=int(is_taken))

    def __init__(self) -> None:
        self.held = Held()
        self.listener = self.Listener(self.held)

    async def start(self) -> None:
        self.listener.is_there = True

    def transport(self, deadline_s: float) -> Transport:
        return BindingTransport(self.listener, deadline_s)

    async def heard(self) -> list[Heard]:
        return self.held.taken

    async def hang(self) -> None:
        self.held.is_free.clear()

    async def wake(self) -> None:
        self.held.is_free.set()


class HttpTarget(Target):
    def __init__(self) -> None:
        self.held = Held()
        self.port = free_port()
        self.runner: web.ServerRunner | None = None

    async def start(self) -> None:
        self.runner = web.ServerRunner(web.Server(self.answer), shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        name = request.headers["Idempotency-Key"]
        attempt = int(request.headers["X-Attempt"])
        is_taken = await self.held.judge(Heard(await request.read(), name, attempt))
        return web.Response(body=TAKEN if is_taken else NOT_TAKEN)

    def transport(self, deadline_s: float) -> Transport:
        return HttpTransport(f"http://127.0.0.1:{self.port}/dispatch", deadline_s=deadline_s)

    async def heard(self) -> list[Heard]:
        return self.held.taken

    async def hang(self) -> None:
        self.held.is_free.clear()

    async def wake(self) -> None:
        self.held.is_free.set()


class WebSocketTarget(Target):
    def __init__(self) -> None:
        self.held = Held()
        self.port = free_port()
        self.paths: list[str] = []
        self.server: Server | None = None

    async def start(self) -> None:
        self.server = await serve(self.answer, "127.0.0.1", self.port, close_timeout=0.2)

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
            await self.server.wait_closed()

    async def answer(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.paths.append(socket.request.path)
        async for message in socket:
            assert isinstance(message, str)
            is_taken = await self.held.judge(Heard(message.encode()))
            await socket.send((TAKEN if is_taken else NOT_TAKEN).decode())

    def transport(self, deadline_s: float) -> Transport:
        return WebSocketTransport(f"ws://127.0.0.1:{self.port}/ws?a=b", deadline_s=deadline_s)

    async def heard(self) -> list[Heard]:
        return self.held.taken

    async def hang(self) -> None:
        self.held.is_free.clear()

    async def wake(self) -> None:
        self.held.is_free.set()


class RedisTarget(Target):
    keeps_once = True

    def __init__(self, server: Valkey) -> None:
        self.server = server
        self.prefix = secrets.token_hex(4)
        self.url = f"redis://127.0.0.1:{free_port()}/0"

    async def start(self) -> None:
        self.url = self.server.url

    def transport(self, deadline_s: float) -> Transport:
        return RedisTransport(self.url, self.prefix, deadline_s)

    async def heard(self) -> list[Heard]:
        heard = []
        async with Redis.from_url(self.url) as redis:
            for partition in partitions(self.prefix):
                entries: Any = await redis.xrange(partition.messages)
                for _, fields in entries:
                    found = entry_envelope(fields)
                    assert partition_of(found.session, self.prefix) == partition
                    heard.append(Heard(found.body, found.message_id, found.attempt))
        return heard

    async def hang(self) -> None:
        assert self.server.process is not None
        self.server.process.send_signal(signal.SIGSTOP)

    async def wake(self) -> None:
        assert self.server.process is not None
        self.server.process.send_signal(signal.SIGCONT)

    def poison(self, session: str, offset: int) -> Envelope | None:
        """A stream takes whatever it is given."""
        return None


class LocalTarget(Target):
    keeps_once = True

    def __init__(self, folder: Path) -> None:
        self.path = folder / "data" / "queue.db"
        self.path.parent.write_text("in the way")
        self.lock = -1

    async def start(self) -> None:
        self.path.parent.unlink()

    def transport(self, deadline_s: float) -> Transport:
        return LocalTransport(LocalQueue(self.path, deadline_s=deadline_s))

    async def heard(self) -> list[Heard]:
        async with LocalQueue(self.path) as queue:
            rows = await queue.claim("test", 1000, 0.0)
        return [Heard(row.body, f"{row.session}:{row.offset}", row.attempt + 1) for row in rows]

    async def hang(self) -> None:
        self.lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    async def wake(self) -> None:
        os.close(self.lock)

    def poison(self, session: str, offset: int) -> Envelope | None:
        return msgspec.structs.replace(envelope_of(session, offset), message_id="no offset")


class SqsTarget(Target):
    keeps_once = True

    def __init__(self, server: Moto) -> None:
        self.server = server
        self.endpoint = f"http://127.0.0.1:{free_port()}"
        self.queue_url = f"{self.endpoint}/123456789012/none.fifo"
        self.taken: list[Heard] = []

    async def start(self) -> None:
        self.endpoint = self.server.url
        self.queue_url = await self.server.make_queue(f"{secrets.token_hex(4)}.fifo")

    def transport(self, deadline_s: float) -> Transport:
        return SqsTransport(
            self.queue_url,
            endpoint_url=self.endpoint,
            credentials=CREDENTIALS,
            deadline_s=deadline_s,
        )

    async def heard(self) -> list[Heard]:
        for message in await self.server.take_all(self.queue_url):
            found = message_envelope(message)
            self.taken.append(Heard(found.body, found.message_id, found.attempt))
        return self.taken

    async def hang(self) -> None:
        self.server.hold()

    async def wake(self) -> None:
        self.server.go_on()

    def poison(self, session: str, offset: int) -> Envelope | None:
        """Longer than SQS takes it."""
        return envelope_of(session, offset, "x" * 300_000)
