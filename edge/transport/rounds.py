"""Connections that stream are read in rounds: once in 40 ms, or when audio is due.

A packet that wakes the worker costs it more than everything that is then done with the packet. So
a connection that has many small reads a second is taken off the event loop's list and read in the
next round; once it falls quiet the event loop watches it again. Those that are due are read one
after the other: code and data are then in the nearest caches for all but the first, and the worker
sleeps longer.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import TYPE_CHECKING

from _native.sockets import MOST_BYTES, receive

if TYPE_CHECKING:
    from edge.transport.reading import ReadingHalf

BUSY_READS_PER_S = 40
"""From so many reads a second on rounds are cheaper than waking up."""
SMALL_READ_BYTES = 4096
"""A connection with larger reads sends in bulk: the event loop reads more at once."""
LEAST_LOOK_S = 0.25
"""Reads are counted over so long at least."""
QUIET_ROUNDS = 5
"""Rounds without a byte after which the event loop watches a connection again."""
BUDGET_S = 0.0005
"""Connections are read for about so long, then other work of the event loop is done."""
STEPS = 2
"""What rests between two reads is counted in halves of a round."""
MOST_REST_S = 0.1
"""A ping waits no longer than this, whatever else is needed when."""
EARLY = 0.25
"""Share of a step by which a timer may come early."""


class Arrivals:
    """How often and how much a connection read, between two looks at it."""

    __slots__ = ("_bytes", "_reads", "_since_s")

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._reads = 0
        self._bytes = 0

    def are_small_and_many(self, now_s: float, reads: int, size: int) -> bool:
        """Judge by the totals since the last look; False when that is too short ago."""
        passed_s = now_s - self._since_s
        if passed_s < LEAST_LOOK_S:
            return False
        new_reads, new_bytes = reads - self._reads, size - self._bytes
        self._since_s, self._reads, self._bytes = now_s, reads, size
        return (
            new_reads >= BUSY_READS_PER_S * passed_s and new_bytes <= SMALL_READ_BYTES * new_reads
        )


class Member:
    """A connection that is read in rounds, and its place in them."""

    __slots__ = ("_connection", "_fd", "_members", "_quiet_rounds", "_transport")

    def __init__(
        self, connection: ReadingHalf, transport: asyncio.Transport, fd: int, members: set[Member]
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._fd = fd
        self._members = members
        self._quiet_rounds = 0

    def leave(self) -> None:
        """Be read no more in rounds. Idempotent."""
        if self._fd >= 0:
            self._fd = -1
            self._members.discard(self)

    def read(self) -> float:
        """Hand over what has arrived; leave when it is more than a little, or nothing for long.

        Returns the seconds until more of it is needed, 0 when nobody knows, below 0 once it left.
        """
        connection, transport = self._connection, self._transport
        if self._fd < 0:
            return -1.0
        if transport.is_closing() or not connection.is_reading:
            return 0.0
        try:
            data = receive(self._fd)
        except OSError:
            transport.abort()
            return -1.0
        if data is None and self._quiet_rounds < QUIET_ROUNDS:
            self._quiet_rounds += 1
            return 0.0
        if not data or len(data) == MOST_BYTES:
            connection.leave_rounds()
        else:
            self._quiet_rounds = 0
        connection.rest_s = 0.0
        if data:
            connection.data_received(data)
        return connection.rest_s if self._fd >= 0 else -1.0


class Rounds:
    """The members of one worker. Each is read ``interval_s`` after it was read last, 0 means no
    rounds; or, where it is known when its next audio is needed, right then."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interval_s: float) -> None:
        self._loop = loop
        self._step_s = interval_s / STEPS
        self._members: set[Member] = set()
        self._due: deque[Member] = deque()
        self._later: dict[int, list[Member]] = {}
        """Who is to be read at which step since the clock's zero."""
        self._timer: asyncio.TimerHandle | None = None
        self._armed = 0
        """The step that the timer waits for."""

    @property
    def members(self) -> int:
        """Connections that are read in rounds now."""
        return len(self._members)

    def invite(self, connection: ReadingHalf, transport: asyncio.Transport) -> Member | None:
        """Take in a connection, if its bytes can be read without its transport."""
        if not self._step_s or transport.is_closing():
            return None
        handle = transport.get_extra_info("socket")
        if handle is None or transport.get_extra_info("ssl_object") is not None:
            return None
        member = Member(connection, transport, handle.fileno(), self._members)
        self._members.add(member)
        self._read_later(member, 0.0)
        self._arm()
        return member

    def _read_later(self, member: Member, rest_s: float) -> None:
        step_s = self._step_s
        steps = STEPS if rest_s <= 0.0 else math.ceil(min(rest_s, MOST_REST_S) / step_s)
        step = math.floor(self._loop.time() / step_s + EARLY) + steps
        self._later.setdefault(step, []).append(member)

    def _arm(self) -> None:
        if not self._later:
            return
        step = min(self._later)
        if self._timer is not None:
            if self._armed <= step:
                return
            self._timer.cancel()
        self._armed = step
        self._timer = self._loop.call_at(step * self._step_s, self._beat)

    def _beat(self) -> None:
        self._timer = None
        was_done = not self._due
        now = math.floor(self._loop.time() / self._step_s + EARLY)
        for step in sorted(step for step in self._later if step <= now):
            self._due.extend(self._later.pop(step))
        if was_done and self._due:
            self._read_due()
        else:
            self._arm()

    def _read_due(self) -> None:
        due, clock = self._due, time.perf_counter
        ends_s = clock() + BUDGET_S
        try:
            while due:
                member = due.popleft()
                rest_s = member.read()
                if rest_s >= 0.0:
                    self._read_later(member, rest_s)
                if clock() >= ends_s:
                    break
        finally:
            if due:
                self._loop.call_soon(self._read_due)
            self._arm()
