"""Signals through Redis pub/sub: one connection of its own, restored when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

import msgspec
from redis.exceptions import RedisError

from edge.errors import StoreError
from edge.session.store.interface import Signal
from edge.session.store.listeners import Listeners
from edge.session.store.redis_link import RedisLink

MAX_PUBLISHING = 1000
RETRY_S = 0.2
HEARTBEAT_S = 1.0
SILENT_CHANNEL = "edgescribe:nobody"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Signal).decode


def channel(session_key: str) -> str:
    """Where the signals of a session go."""
    return f"{session_key}c"


class RedisSignals:
    """Subscribes to what somebody listens to, and publishes what may be lost."""

    def __init__(self, link: RedisLink, listeners: Listeners) -> None:
        self._link = link
        self._listeners = listeners
        self._wanted: dict[str, str] = {}
        self._confirmed: set[str] = set()
        self._change = asyncio.Condition()
        self._outgoing: deque[tuple[str, Signal]] = deque(maxlen=MAX_PUBLISHING)
        self._some = asyncio.Event()
        self._pubsub: Any = None
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        self._tasks = [asyncio.create_task(self._hear()), asyncio.create_task(self._speak())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def subscribe(self, session: str, name: str) -> None:
        """Return when the server has confirmed the channel."""
        self._wanted[name] = session
        while name not in self._confirmed:
            if self._pubsub is not None:
                with contextlib.suppress(RedisError, OSError):
                    await self._pubsub.subscribe(name)
            async with self._change:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_S):
                        await self._change.wait_for(lambda: name in self._confirmed)

    def publish(self, name: str, signal: Signal) -> None:
        """Send it soon; when too much waits the oldest is lost."""
        self._outgoing.append((name, signal))
        self._some.set()

    async def _speak(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            while self._outgoing:
                name, signal = self._outgoing.popleft()
                with contextlib.suppress(StoreError):
                    await self._send(name, _encode(signal))

    async def _send(self, name: str, data: bytes) -> None:
        await self._link.command("publish", name, data, repeat=False)

    async def _hear(self) -> None:
        while True:
            try:
                await self._hear_once()
            except (RedisError, OSError):
                self._pubsub = None
                self._confirmed.clear()
                await asyncio.sleep(RETRY_S)

    async def _hear_once(self) -> None:
        """Listen on one connection until it is lost."""
        client = self._link.client
        async with client.pubsub() as pubsub:
            await pubsub.subscribe(SILENT_CHANNEL, *self._wanted)
            self._pubsub = pubsub
            self._listeners.tell(Signal(""))
            while True:
                message = await pubsub.get_message(timeout=HEARTBEAT_S)
                if message is None:
                    await self._forget(pubsub)
                elif message["type"] == "subscribe":
                    async with self._change:
                        self._confirmed.add(message["channel"].decode())
                        self._change.notify_all()
                elif message["type"] == "message":
                    with contextlib.suppress(msgspec.MsgspecError):
                        self._listeners.tell(_decode(message["data"]))

    async def _forget(self, pubsub: Any) -> None:
        """Leave the channels that nobody listens to any more."""
        unused = [name for name, session in self._wanted.items() if session not in self._listeners]
        for name in unused:
            del self._wanted[name]
            self._confirmed.discard(name)
        if unused:
            await pubsub.unsubscribe(*unused)
