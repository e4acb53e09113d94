"""Rows that one process has taken from a queue, in order of their sessions."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from dispatch.outbox import Row


class HeldRow(Row, Protocol):
    """A row that the queue knows by a name of its own."""

    @property
    def name(self) -> str: ...

    def failed(self) -> HeldRow:
        """The same row after one more failure."""


HeldT = TypeVar("HeldT", bound=HeldRow)


class _Session(msgspec.Struct, Generic[HeldT], eq=False):
    waiting: deque[HeldT]
    out: deque[HeldT]
    due_s: float = 0.0
    """Until then nothing is handed out, or what is out comes back."""


class Sessions(Generic[HeldT]):
    """Hands the rows of a session to one delivery at a time; times are of the monotonic clock."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session[HeldT]] = {}
        self.size = 0
        """Rows that wait here."""
        self.out = 0
        """Rows that are being delivered."""

    def put(self, rows: Iterable[HeldT]) -> None:
        """Rows that come after all others of their sessions."""
        for row in rows:
            held = self._sessions.get(row.session)
            if held is None:
                held = self._sessions[row.session] = _Session(deque(), deque())
            held.waiting.append(row)
            self.size += 1

    def take(self, limit: int, lease_s: float) -> list[HeldT]:
        """Rows of sessions that are due and not out; they come back when the lease ends."""
        now_s = time.monotonic()
        taken: list[HeldT] = []
        for held in self._sessions.values():
            if len(taken) >= limit:
                break
            if held.due_s > now_s:
                continue
            if held.out:
                self._back(held)
            count = min(len(held.waiting), limit - len(taken))
            for _ in range(count):
                held.out.append(held.waiting.popleft())
            taken += held.out
            held.due_s = now_s + lease_s
            self.size -= count
            self.out += count
        return taken

    def settle(self, rows: Sequence[HeldT]) -> None:
        """Rows that were delivered or given up; their session goes on when all of them are."""
        for row in rows:
            held = self._sessions.get(row.session)
            if held is None or not _drop(held.out, row.name):
                continue
            self.out -= 1
            if not held.out:
                held.due_s = 0.0
                if not held.waiting:
                    del self._sessions[row.session]

    def back(self, row: HeldT, delay_s: float) -> None:
        """A row that failed, and what else of its session is out, wait for so long."""
        held = self._sessions.get(row.session)
        if held is None or not held.out:
            return
        self._back(held)
        if held.waiting[0].name == row.name:
            held.waiting[0] = row.failed()  # type: ignore[assignment]
        held.due_s = time.monotonic() + delay_s

    def _back(self, held: _Session[HeldT]) -> None:
        count = len(held.out)
        while held.out:
            held.waiting.appendleft(held.out.pop())
        self.size += count
        self.out -= count

    def rows(self) -> list[HeldT]:
        """All of them."""
        return [
            row
            for held in self._sessions.values()
            for rows in (held.out, held.waiting)
            for row in rows
        ]

    def hasten(self, ahead_s: float) -> None:
        """Sessions that are to wait longer than that do not wait any more."""
        until_s = time.monotonic() + ahead_s
        for held in self._sessions.values():
            if not held.out and held.due_s > until_s:
                held.due_s = 0.0

    def oldest_ms(self) -> int | None:
        """When the row that waits longest was stored."""
        heads = (held.waiting[0].enqueued_ms for held in self._sessions.values() if held.waiting)
        return min(heads, default=None)


def _drop(rows: deque[HeldT], name: str) -> bool:
    for index, row in enumerate(rows):
        if row.name == name:
            del rows[index]
            return True
    return False
