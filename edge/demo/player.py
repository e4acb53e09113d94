"""Plays a bridge's schedule to a gateway in real time, with pings, and hears what comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import msgspec
from websockets.asyncio.client import ClientConnection

from edge.demo.bridge import Schedule, ping_message, session_end_message
from edge.demo.client import Disconnected, ServerMessage, connected, decode

PING_EVERY_S = 10.0
PONG_WITHIN_S = 3.0
_QUIET_S = 1.5
"""A pause of this length after the last packet and no open interim: all has been heard."""

OnMessage = Callable[[float, ServerMessage], None]
"""Told each message and the second it came, on the schedule's clock."""
OnProgress = Callable[[float], None]
"""Told the second of the schedule that has been sent, about ten times a second."""


class NoPong(Disconnected):
    """The gateway did not answer a ping in time."""


class Played(msgspec.Struct, frozen=True):
    """How the playing went."""

    packets: int
    """Messages of the schedule that were sent."""
    pings: int
    latest_s: float
    """The longest a message left after it was due: how far to trust the latencies."""


class BridgePlayer:
    """One connection of a bridge: ``await play()`` once.

    Like the bridge it pings every 10 s, gives up with 1000 when a pong stays away for 3 s, and at
    the end sends ``session-end`` and closes with 1001; only that it waits up to ``linger_s`` for
    the last finals before, since a demo ends with its speech and a conference doesn't.
    """

    def __init__(
        self,
        url: str,
        schedule: Schedule,
        on_message: OnMessage,
        on_progress: OnProgress = lambda at_s: None,
        *,
        linger_s: float = 6.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._url = url
        self._schedule = schedule
        self._on_message = on_message
        self._on_progress = on_progress
        self._linger_s = linger_s
        self._headers = headers
        self._zero_s = 0.0
        self._pings = 0
        self._pong = asyncio.Event()
        self._open_interims: set[str] = set()
        self._heard_s = 0.0

    async def play(self) -> Played:
        """Connect, play, linger, close. Raises ``Unreachable`` or ``Disconnected``."""
        async with connected(self._url, self._headers) as socket:
            self._zero_s = time.perf_counter()
            sending = asyncio.create_task(self._send(socket))
            listening = asyncio.create_task(self._listen(socket))
            pinging = asyncio.create_task(self._ping(socket))
            tasks = (pinging, listening, sending)
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                # The first two end by failing only.
                for task in tasks:
                    if task.done():
                        task.result()
                latest_s = sending.result()
                await socket.send(session_end_message())
                await socket.close(1001, "closing")
            except NoPong:
                await socket.close(1000, "Ping timeout")
                raise
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return Played(len(self._schedule.departures), self._pings, latest_s)

    def _now_s(self) -> float:
        return time.perf_counter() - self._zero_s

    async def _send(self, socket: ClientConnection) -> float:
        """Send the schedule and linger; returns how late the latest message left."""
        latest_s = 0.0
        told_s = -1.0
        for departure in self._schedule.departures:
            early_s = departure.at_s - self._now_s()
            if early_s > 0:
                await asyncio.sleep(early_s)
            latest_s = max(latest_s, self._now_s() - departure.at_s)
            await socket.send(departure.text)
            if departure.at_s - told_s >= 0.1:
                told_s = departure.at_s
                self._on_progress(told_s)
        await self._linger()
        return latest_s

    async def _linger(self) -> None:
        ended_s = self._now_s()
        while (now_s := self._now_s()) < ended_s + self._linger_s:
            quiet_s = now_s - max(ended_s, self._heard_s)
            if not self._open_interims and quiet_s >= _QUIET_S:
                return
            await asyncio.sleep(0.05)

    async def _listen(self, socket: ClientConnection) -> None:
        while True:
            data = await socket.recv()
            at_s = self._now_s()
            message = decode(data)
            if message is None:
                continue
            if message.event == "pong" and message.id == self._pings:
                self._pong.set()
            elif message.is_result:
                self._heard_s = at_s
                if message.is_interim:
                    self._open_interims.add(message.speaker)
                else:
                    self._open_interims.discard(message.speaker)
            self._on_message(at_s, message)

    async def _ping(self, socket: ClientConnection) -> None:
        while True:
            await asyncio.sleep(PING_EVERY_S)
            self._pings += 1
            self._pong.clear()
            await socket.send(ping_message(self._pings))
            try:
                async with asyncio.timeout(PONG_WITHIN_S):
                    await self._pong.wait()
            except TimeoutError:
                raise NoPong(
                    f"ping {self._pings} had no pong within {PONG_WITHIN_S:g} s: the gateway stalls"
                ) from None
