"""Clients of ``edge.session.v1`` that come back for ever, as a careful page would.

A ``Speaker`` says numbered words; what it has not heard to be in the log it sends again. A
``Listener`` follows, and complains about every gap.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.typing import Subprotocol

from tests.asr.support.tones import WORDS, silence, tone

SUBPROTOCOL = Subprotocol("edge.session.v1")
RATE_HZ = 16000
FRAME_MS = 100
FRAME_BYTES = RATE_HZ // 1000 * FRAME_MS * 2
PATIENCE_S = 5.0
PAUSE_MS = 900
RING_FRAMES = 1200

_header = struct.Struct(">BBHII")


class Welcomed(msgspec.Struct):
    """One welcome: when it came, how long it took since the connection was lost, what it said."""

    at_s: float
    took_s: float
    recovered: bool
    resumed: bool
    epoch: str
    offset: int


class Client:
    """Connects again whenever it has to; remembers each entry it was shown, by epoch and offset."""

    role = "listener"

    def __init__(self, address: str, session: str, speaker: str = "") -> None:
        query = f"session={session}" + (f"&speaker={speaker}" if speaker else "")
        self.name = speaker or "listener"
        self._url = f"ws://{address}/listen?{query}"
        self.seen: dict[tuple[str, int], dict[str, Any]] = {}
        """Entries by epoch and offset, from ``ev`` and snapshots."""
        self.welcomes: list[Welcomed] = []
        self.closes: list[tuple[float, int | None, str]] = []
        self.faults: list[str] = []
        """Promises that were broken."""
        self.epoch, self.offset = "", 0
        self.is_stopping = False

    async def run(self) -> None:
        lost_s = time.monotonic()
        while not self.is_stopping:
            code: int | None = None
            reason = ""
            socket: ClientConnection | None = None
            try:
                async with connect(
                    self._url,
                    subprotocols=[SUBPROTOCOL],
                    compression=None,
                    open_timeout=PATIENCE_S,
                    close_timeout=0.2,
                    ping_interval=1.0,
                    ping_timeout=2.0,
                    proxy=None,
                ) as socket:
                    await self._talk(socket, lost_s)
            except (OSError, TimeoutError, InvalidHandshake, WebSocketException, EOFError) as error:
                reason = repr(error)
            if socket is not None:
                code = socket.close_code
            lost_s = time.monotonic()
            self.closes.append((lost_s, code, reason))
            if not self.is_stopping:
                await asyncio.sleep(random.uniform(0.05, 0.25))

    def hello(self) -> dict[str, Any]:
        message: dict[str, Any] = {"type": "hello", "role": self.role}
        if self.epoch:
            message["resume"] = {"epoch": self.epoch, "offset": self.offset}
        return message

    async def _talk(self, socket: ClientConnection, lost_s: float) -> None:
        hello = self.hello()
        await socket.send(json.dumps(hello))
        async with asyncio.timeout(PATIENCE_S):
            welcome = json.loads(await socket.recv())
        if welcome["type"] == "drain":
            return
        if welcome["type"] != "welcome":
            self.faults.append(f"{self.name}: {welcome} instead of a welcome")
            return
        self._welcomed(welcome, "resume" in hello, lost_s)
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(self._feed(socket, welcome))
            with suppress(WebSocketException):
                async for message in socket:
                    self._take(json.loads(message))
            feeding.cancel()

    def _welcomed(self, welcome: dict[str, Any], resumed: bool, lost_s: float) -> None:
        epoch, offset, recovered = welcome["epoch"], welcome["offset"], welcome["recovered"]
        now_s = time.monotonic()
        self.welcomes.append(Welcomed(now_s, now_s - lost_s, recovered, resumed, epoch, offset))
        if recovered and (epoch, offset) != (self.epoch, self.offset):
            self.faults.append(f"{self.name}: recovered at {offset}, not at {self.offset}")
        for final in welcome.get("snapshot", {}).get("finals", ()):
            self.seen[epoch, final["o"]] = final
        self.epoch, self.offset = epoch, offset

    def _take(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "ev":
                offset = message["o"]
                if offset <= self.offset:
                    return
                if offset != self.offset + 1:
                    self.faults.append(f"{self.name}: {offset} follows {self.offset}")
                self.offset = offset
                self.seen[self.epoch, offset] = message
            case "welcome":
                self._welcomed(message, True, time.monotonic())
            case "snapshot":
                for final in message["finals"]:
                    self.seen[self.epoch, final["o"]] = final
            case _:
                pass

    async def _feed(self, socket: ClientConnection, welcome: dict[str, Any]) -> None:
        """A listener says nothing."""


class Listener(Client):
    pass


class Speaker(Client):
    """Says ``alpha bravo charlie …`` round and round in real time, two words at a time."""

    role = "speaker"

    def __init__(self, address: str, session: str, speaker: str) -> None:
        super().__init__(address, session, speaker)
        self._began_s = time.monotonic()
        self._frames: dict[int, bytes] = {}
        self._pcm = bytearray()
        self._last = 0
        """The newest frame that was spoken."""
        self.words = 0
        """Words that were said to their end."""
        self.is_silent = False
        """Set, it finishes its words and says no more; its frames go on."""

    def hello(self) -> dict[str, Any]:
        message = super().hello()
        message["audio"] = {"encoding": "pcm16", "rate": RATE_HZ, "channels": 1}
        if "resume" in message:
            message["resume"]["audio_seq"] = self._last
        return message

    def _speak(self) -> None:
        """Record up to now, whether there is a connection or not."""
        due = int((time.monotonic() - self._began_s) * 1000) // FRAME_MS
        while self._last < due:
            if len(self._pcm) < FRAME_BYTES:
                self._more()
            self._last += 1
            self._frames[self._last] = bytes(self._pcm[:FRAME_BYTES])
            del self._pcm[:FRAME_BYTES]
            self._frames.pop(self._last - RING_FRAMES, None)

    def _more(self) -> None:
        if self.is_silent:
            self._pcm += silence(FRAME_MS, RATE_HZ)
            return
        for _ in range(2):
            self._pcm += tone(WORDS[self.words % len(WORDS)], RATE_HZ)
            self.words += 1
        self._pcm += silence(PAUSE_MS, RATE_HZ)

    async def _feed(self, socket: ClientConnection, welcome: dict[str, Any]) -> None:
        sent = welcome["audio_ack"]
        with suppress(WebSocketException):
            while True:
                self._speak()
                while sent < self._last:
                    sent += 1
                    if (pcm := self._frames.get(sent)) is not None:
                        header = _header.pack(1, 0, 0, sent, (sent - 1) * FRAME_MS)
                        await socket.send(header + pcm)
                await asyncio.sleep(FRAME_MS / 1000)


@asynccontextmanager
async def run_clients(clients: Sequence[Client]) -> AsyncIterator[None]:
    """Let them talk and follow; what one of them fails with is a fault of its."""
    tasks = [asyncio.create_task(client.run()) for client in clients]
    try:
        yield
    finally:
        for client in clients:
            client.is_stopping = True
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for client, end in zip(clients, ends, strict=True):
            if isinstance(end, Exception):
                client.faults.append(f"{client.name}: {end!r}")
