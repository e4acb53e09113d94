"""Signals through Redis pub/sub: one connection of its own, restored when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import Any

import msgspec
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import RedisError

from edge.errors import StoreError
from edge.session.store.interface import Signal
from edge.session.store.listeners import Listeners
from edge.session.store.redis_link import RedisLink

MAX_PUBLISHING = 1000
RETRY_S = 0.2
HEARTBEAT_S = 1.0
SILENT_S = 4.0
"""A connection on which not even the answers to heartbeats come is given up."""
SILENT_CHANNEL = "edgescribe:nobody"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Signal).decode


def channel(session_key: str) -> str:
    """Where the signals of a session go."""
    return f"{session_key}c"


class RedisSignals:
    """Subscribes to what somebody listens to, and publishes what may be lost.

    A connection that was lost and restored makes everybody look at the store again, so that
    nobody has to look without a reason.
    """

    def __init__(self, link: RedisLink, listeners: Listeners) -> None:
        self._link = link
        self._listeners = listeners
        self._wanted: dict[str, tuple[str, asyncio.Event]] = {}
        self._outgoing: deque[tuple[str, Signal]] = deque(maxlen=MAX_PUBLISHING)
        self._some = asyncio.Event()
        self._pubsub: Any = None
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        self._tasks = [asyncio.create_task(self._hear()), asyncio.create_task(self._speak())]

    async def close(self) -> None:
        running = set(self._tasks)
        while running:
            # Again and again: a connect of the client can lose a cancellation before Python 3.12.
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=0.2)

    async def subscribe(self, session: str, name: str) -> None:
        """Return when the server has confirmed the channel."""
        while True:
            known = self._wanted.get(name)
            _, confirmed = known or self._wanted.setdefault(name, (session, asyncio.Event()))
            if confirmed.is_set():
                return
            if self._pubsub is not None and known is None:
                with contextlib.suppress(RedisError, OSError):
                    await self._pubsub.subscribe(name)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await confirmed.wait()

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
                    await self._link.command("publish", name, _encode(signal), repeat=False)

    async def _hear(self) -> None:
        while True:
            try:
                await self._hear_once()
            except (RedisError, OSError):
                self._pubsub = None
                for _, confirmed in self._wanted.values():
                    confirmed.clear()
                await asyncio.sleep(RETRY_S)

    async def _hear_once(self) -> None:
        """Listen on one connection until it is lost."""
        async with self._link.client.pubsub() as pubsub:
            asked = set(self._wanted)
            await pubsub.subscribe(SILENT_CHANNEL, *asked)
            self._pubsub = pubsub
            if late := self._wanted.keys() - asked:
                await pubsub.subscribe(*late)
            self._listeners.tell(Signal(""))
            heard_s = beat_s = time.monotonic()
            while True:
                message = await pubsub.get_message(timeout=HEARTBEAT_S)
                now_s = time.monotonic()
                if message is not None:
                    heard_s = now_s
                    await self._take(pubsub, message)
                elif now_s - heard_s > SILENT_S:
                    raise LostError("the connection is silent")
                if now_s - beat_s > HEARTBEAT_S:
                    beat_s = now_s
                    await self._forget(pubsub)
                    # Subscribing again is answered like a ping, also by a Cluster's client.
                    await pubsub.subscribe(SILENT_CHANNEL)

    async def _take(self, pubsub: Any, message: dict[str, Any]) -> None:
        if message["type"] == "message":
            with contextlib.suppress(msgspec.MsgspecError):
                self._listeners.tell(_decode(message["data"]))
            return
        name = message["channel"].decode()
        if (known := self._wanted.get(name)) is None:
            return
        if message["type"] == "subscribe":
            if known[1].is_set():
                # The client has restored the connection by itself: who knows what was missed.
                self._listeners.tell(Signal(known[0]))
            known[1].set()
        elif message["type"] == "unsubscribe":
            known[1].clear()
            await pubsub.subscribe(name)

    async def _forget(self, pubsub: Any) -> None:
        """Leave the channels that nobody listens to any more."""
        unused = [name for name, known in self._wanted.items() if known[0] not in self._listeners]
        for name in unused:
            del self._wanted[name]
        if unused:
            await pubsub.unsubscribe(*unused)
