"""All connections of one worker: their deadlines, their counts, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections import deque

import msgspec

from edge.transport.connection import TURN_S, Connection
from edge.transport.interface import Limits
from edge.transport.rounds import Rounds
from edge.transport.settings import LaneSettings

_LONGEST_SWEEP_S = 1.0
_SHORTEST_SWEEP_S = 0.02
_SWEPT_AT_ONCE = 100
"""Connections looked at in one turn of the event loop."""
_LAST_CALL_S = 1.0
"""For receivers to be told after a cut; it takes a few turns of the event loop."""


class LaneCounts(msgspec.Struct):
    """What went through a worker's connections since it started."""

    opened: int = 0
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    slow_peers: int = 0
    """Closed with 1008: they read too slowly."""
    silent_peers: int = 0
    """Closed with 1011: they did not answer a ping."""
    violations: int = 0
    """Closed with 1002, 1007 or 1009."""
    crashes: int = 0
    """Closed with 1011: the receiver raised."""


class Lanes:
    """The registry of a worker's connections.

    Made on the worker's event loop. Receivers are called in a copy of the context it is made in, so
    that what a session starts does not keep its HTTP request alive.
    """

    def __init__(self, settings: LaneSettings | None = None) -> None:
        self.settings = settings or LaneSettings()
        self.loop = asyncio.get_running_loop()
        self.rounds = Rounds(self.loop, self.settings.client_read_interval_ms / 1000)
        self.context = contextvars.copy_context()
        self._open: set[Connection] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()
        self._sweeping = False
        self._farewell: tuple[int, str] | None = None
        self._turns: deque[Connection] = deque()
        self._counts = LaneCounts()
        self._settings_of: dict[Limits, LaneSettings] = {}
        self._sweep_every_s = _sweep_interval_s(self.settings)

    @property
    def open_count(self) -> int:
        """Connections whose receiver has not been told of their end yet."""
        return len(self._open)

    def counts(self) -> LaneCounts:
        """Totals over all connections, open ones included."""
        counts = msgspec.structs.replace(self._counts)
        for connection in self._open:
            _add(counts, connection)
        return counts

    def close_all(self, code: int = 1001, reason: str = "Server is stopping") -> None:
        """Begin to close every connection, and at once each one that opens from now on.

        What was sent before goes out first; what has arrived is delivered.
        """
        self._farewell = (code, reason)
        for connection in tuple(self._open):
            connection.close(code, reason)

    async def wait_closed(self, deadline_s: float) -> int:
        """Wait until every connection is over; cut those that are not by the deadline.

        Returns how many were cut. Every receiver has been told when this returns, unless one needs
        more than a second for the messages that it had not taken yet.
        """
        try:
            async with asyncio.timeout(deadline_s):
                await self._none_open.wait()
        except TimeoutError:
            left = tuple(self._open)
            for connection in left:
                connection.abort()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_CALL_S):
                    await self._none_open.wait()
            return len(left)
        return 0

    # Called by the accepting server and by the connections

    def enter(self, connection: Connection, first: bytes, *, lost: bool) -> None:
        """Take in a connection and tell its receiver."""
        self._counts.opened += 1
        self._open.add(connection)
        self._none_open.clear()
        if not self._sweeping:
            self._sweeping = True
            self.loop.call_later(self._sweep_every_s, self._sweep)
        self.context.copy().run(connection.open, first, lost=lost)
        if self._farewell is not None:
            connection.close(*self._farewell)

    def settings_of(self, limits: Limits) -> LaneSettings:
        """The settings as a route with such limits wants them."""
        known = self._settings_of.get(limits)
        if known is None:
            chosen = {
                "client_outbox_bytes": limits.outbox_bytes,
                "client_send_timeout_s": limits.send_timeout_s,
                "client_ping_interval_s": limits.ping_interval_s,
            }
            given = {name: value for name, value in chosen.items() if value is not None}
            known = msgspec.structs.replace(self.settings, **given)
            self._settings_of[limits] = known
        return known

    @property
    def turns_due(self) -> bool:
        """Whether connections wait for their turn."""
        return bool(self._turns)

    def queue_turn(self, connection: Connection) -> None:
        """Give a connection its turn after those that wait already.

        However many have more than a read's worth to deliver, all of them together hold the event
        loop for little more than one connection's turn at a time.
        """
        if not self._turns:
            self.loop.call_soon(self._take_turns)
        self._turns.append(connection)

    def forget(self, connection: Connection) -> None:
        """A connection is over and its receiver knows."""
        self._open.discard(connection)
        _add(self._counts, connection)
        if not self._open:
            self._none_open.set()

    def count_slow(self) -> None:
        """A peer is dropped for reading too slowly."""
        self._counts.slow_peers += 1

    def count_silent(self) -> None:
        """A peer is dropped for not answering a ping."""
        self._counts.silent_peers += 1

    def count_fault(self, code: int) -> None:
        """A connection fails with ``code``: 1011 is ours, the rest are the peer's."""
        if code == 1011:
            self._counts.crashes += 1
        else:
            self._counts.violations += 1

    def _take_turns(self) -> None:
        turns = self._turns
        ends_s = time.perf_counter() + TURN_S
        try:
            # Those that are not done queue up behind the others again.
            for _ in range(len(turns)):
                try:
                    turns[0].take_turn(ends_s)
                finally:
                    turns.popleft()
                if time.perf_counter() >= ends_s:
                    break
        finally:
            if turns:
                self.loop.call_soon(self._take_turns)

    def _sweep(self) -> None:
        if not self._open:
            self._sweeping = False
            return
        self.loop.call_later(self._sweep_every_s, self._sweep)
        self._sweep_some(list(self._open))

    def _sweep_some(self, left: list[Connection]) -> None:
        now_s = self.loop.time()
        for connection in left[-_SWEPT_AT_ONCE:]:
            connection.sweep(now_s)
        del left[-_SWEPT_AT_ONCE:]
        if left:
            self.loop.call_soon(self._sweep_some, left)


def _sweep_interval_s(settings: LaneSettings) -> float:
    """Often enough to be late by at most a quarter of the shortest deadline."""
    shortest_s = min(
        settings.client_ping_interval_s or _LONGEST_SWEEP_S * 4,
        settings.client_pong_deadline_s,
        settings.client_send_timeout_s,
        settings.client_close_timeout_s,
    )
    return min(max(shortest_s / 4, _SHORTEST_SWEEP_S), _LONGEST_SWEEP_S)


def _add(counts: LaneCounts, connection: Connection) -> None:
    counts.messages_in += connection.messages_in
    counts.messages_out += connection.messages_out
    counts.bytes_in += connection.bytes_in
    counts.bytes_out += connection.bytes_out
