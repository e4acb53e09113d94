"""The thread that alone talks to the embedded queue's database.

Comes in: functions of a connection. Goes out: their answers, as futures of the event loop. Changes
that wait are committed together, and take turns with those of other processes through a lock file:
the kernel hands it on at once, where SQLite would have it polled for.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from dispatch.errors import Unreachable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]
Future = asyncio.Future[Any]
Answer = tuple[Future, Any, Exception | None]

MAX_WAITING = 10_000
MAX_GROUP = 200
CLOSE_WITHIN_S = 5.0


class LocalThread:
    """Runs work on the database of ``path``, one piece after the other.

    A piece that changes something must do so only after whatever makes it fail.
    """

    def __init__(
        self, path: Path, connect: Callable[[Path], sqlite3.Connection], deadline_s: float
    ) -> None:
        self._path = path
        self._connect = connect
        self._deadline_s = deadline_s
        self._waiting: deque[tuple[Work, bool, Future]] = deque()
        self._wake = threading.Condition(threading.Lock())
        self._is_closing = False
        self._why_closed = "the queue is closed"
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        # A daemon: a disk that hangs does not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="local-queue", daemon=True)
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        """Whether the database could not be opened; whoever asks is refused."""
        return self._ended.is_set()

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What ``work`` returns; raises ``Unreachable``, also when the deadline has passed."""
        return await self._ask(work, is_change=False)

    async def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Like ``read``; what ``work`` changed is committed when this returns."""
        return await self._ask(work, is_change=True)

    async def _ask(self, work: Callable[[sqlite3.Connection], T], *, is_change: bool) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        with self._wake:
            if self._is_closing:
                raise Unreachable(self._why_closed)
            if len(self._waiting) >= MAX_WAITING:
                raise Unreachable(f"{MAX_WAITING} operations wait for the queue's disk")
            self._waiting.append((work, is_change, future))
            self._wake.notify()
        try:
            async with asyncio.timeout(self._deadline_s):
                return await future
        except TimeoutError:
            raise Unreachable(
                f"the queue's database did not answer within {self._deadline_s:g} s: "
                "its disk is slow, or another process holds its lock"
            ) from None

    async def close(self) -> None:
        """Do what waits, then close the connection; a thread that hangs is left behind."""
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._ended.wait()
            self._thread.join()

    def _run(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._work(lock)
            finally:
                os.close(lock)
        except (sqlite3.Error, OSError) as error:
            with self._wake:
                self._why_closed = str(translated(error))
                self._is_closing = True
                left = list(self._waiting)
                self._waiting.clear()
            self._tell(settle, [(future, None, translated(error)) for _, _, future in left])
        finally:
            self._tell(self._ended.set)

    def _work(self, lock: int) -> None:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            connection = self._connect(self._path)
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
        try:
            while group := self._next_group():
                self._tell(settle, self._do(connection, lock, group))
        finally:
            connection.close()

    def _next_group(self) -> list[tuple[Work, bool, Future]]:
        """One piece that reads, or the changes that come next."""
        with self._wake:
            while not self._waiting and not self._is_closing:
                self._wake.wait()
            group: list[tuple[Work, bool, Future]] = []
            while self._waiting and len(group) < MAX_GROUP:
                if group and not (self._waiting[0][1] and group[0][1]):
                    break
                group.append(self._waiting.popleft())
            return group

    def _do(
        self, connection: sqlite3.Connection, lock: int, group: list[tuple[Work, bool, Future]]
    ) -> list[Answer]:
        """Answer each; one that fails costs the others nothing."""
        wanted = [(work, future) for work, _, future in group if not future.cancelled()]
        if not group[0][1]:
            return [attempt(connection, work, future) for work, future in wanted]
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return commit(connection, wanted)
        except Exception as error:
            if len(wanted) == 1:
                return [(wanted[0][1], None, translated(error))]
            answers: list[Answer] = []
            for work, future in wanted:
                try:
                    answers += commit(connection, [(work, future)])
                except Exception as reason:
                    answers.append((future, None, translated(reason)))
            return answers
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)

    def _tell(self, told: Callable[..., object], *what: object) -> None:
        """Call on the event loop, unless it is gone with all who asked."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(told, *what)


def attempt(connection: sqlite3.Connection, work: Work, future: Future) -> Answer:
    try:
        return future, work(connection), None
    except Exception as error:
        return future, None, translated(error)


def commit(connection: sqlite3.Connection, group: list[tuple[Work, Future]]) -> list[Answer]:
    """All of it in one transaction, or nothing and the first error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        answers: list[Answer] = [(future, work(connection), None) for work, future in group]
        connection.execute("COMMIT")
        return answers
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def settle(answers: list[Answer]) -> None:
    """Give answers to those who still wait for them."""
    for future, answer, error in answers:
        if future.done():
            continue
        if error is None:
            future.set_result(answer)
        else:
            future.set_exception(error)


def translated(error: Exception) -> Exception:
    """SQLite's and the file system's errors as one of ours; any other as it is."""
    if isinstance(error, sqlite3.Error | OSError):
        return Unreachable(f"the queue's database cannot be read or written: {error}")
    return error
