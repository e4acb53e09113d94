"""Threads that talk to SQLite, so that the event loop never does.

Comes in: functions of a connection, through a bounded queue. Goes out: their answers, as futures of
the event loop. The writer does whatever waits in one transaction (group commit), and takes turns
with the writers of other processes through a file lock, which the kernel hands on at once where
SQLite's own would be polled.
"""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from edge.errors import StoreBusy, StoreDamaged, StoreError, StoreUnavailable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]
Job = tuple[Work, "asyncio.Future[Any]"]

MAX_WAITING = 20_000
MAX_GROUP = 500


class SqliteThread:
    """One connection and the thread that alone uses it.

    ``lock`` is an open file for the writer, None for a reader. ``committed`` is called in the
    thread after each group, before its callers hear of it.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        *,
        lock: int | None = None,
        committed: Callable[[], None] = lambda: None,
        deadline_s: float = 5.0,
    ) -> None:
        self._connect = connect
        self._lock = lock
        self._committed = committed
        self._deadline_s = deadline_s
        self._waiting: deque[Job] = deque()
        self._wake = threading.Condition(threading.Lock())
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        name = "store-reader" if lock is None else "store-writer"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do ``work`` in the thread; raises ``StoreBusy`` when too much waits.

        A writer's work must raise its refusals before it changes anything.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        with self._wake:
            if self._closing:
                raise StoreUnavailable("the session store is closed")
            if len(self._waiting) >= MAX_WAITING:
                raise StoreBusy(f"{MAX_WAITING} operations wait for the session store")
            self._waiting.append((work, future))
            self._wake.notify()
        try:
            async with asyncio.timeout(self._deadline_s):
                return await future
        except TimeoutError:
            raise StoreUnavailable(
                f"the session store did not answer within {self._deadline_s:g} s: "
                "its disk is slow, or another process holds its lock"
            ) from None

    async def close(self, deadline_s: float = 5.0) -> None:
        """Do what waits, then close the connection; a thread that hangs is left behind."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        try:
            async with asyncio.timeout(deadline_s):
                await self._ended.wait()
        except TimeoutError:
            return
        self._thread.join()

    def _run(self) -> None:
        try:
            connection = self._connect()
            while group := self._next_group():
                self._answer(self._do(connection, group))
            connection.close()
        except (sqlite3.Error, OSError):
            with self._wake:
                self._closing = True
                group = list(self._waiting)
                self._waiting.clear()
            lost = StoreUnavailable("the session store's database cannot be opened any more")
            self._answer([(future, None, lost) for _, future in group])
        finally:
            self._tell(self._ended.set)

    def _next_group(self) -> list[Job]:
        with self._wake:
            while not self._waiting and not self._closing:
                self._wake.wait()
            count = min(len(self._waiting), 1 if self._lock is None else MAX_GROUP)
            return [self._waiting.popleft() for _ in range(count)]

    def _do(self, connection: sqlite3.Connection, group: list[Job]) -> list[Answer]:
        if self._lock is None:
            wanted = [job for job in group if not job[1].cancelled()]
            return [self._one(connection, work, future) for work, future in wanted]
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            group = [job for job in group if not job[1].cancelled()]
            return self._commit(connection, group) if group else []
        except Exception as error:
            if len(group) == 1:
                return [(group[0][1], None, translated(error))]
            return [answer for job in group for answer in self._alone(connection, job)]
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            self._committed()

    def _alone(self, connection: sqlite3.Connection, job: Job) -> list[Answer]:
        try:
            return self._commit(connection, [job])
        except Exception as error:
            return [(job[1], None, translated(error))]

    def _commit(self, connection: sqlite3.Connection, group: list[Job]) -> list[Answer]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            answers: list[Answer] = []
            for work, future in group:
                try:
                    answers.append((future, work(connection), None))
                except StoreError as refusal:
                    answers.append((future, None, refusal))
            connection.execute("COMMIT")
            return answers
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    @staticmethod
    def _one(connection: sqlite3.Connection, work: Work, future: asyncio.Future[Any]) -> Answer:
        try:
            return future, work(connection), None
        except Exception as error:
            return future, None, translated(error)

    def _answer(self, answers: list[Answer]) -> None:
        self._tell(settle, answers)

    def _tell(self, told: Callable[..., object], *what: object) -> None:
        """Call on the event loop, unless it is gone with all who asked."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(told, *what)


Answer = tuple["asyncio.Future[Any]", Any, Exception | None]


def settle(answers: list[Answer]) -> None:
    """Give answers to those who still wait for them."""
    for future, answer, refusal in answers:
        if future.done():
            continue
        if refusal is None:
            future.set_result(answer)
        else:
            future.set_exception(refusal)


def translated(error: Exception) -> Exception:
    """SQLite's error as one of ours; any other as it is."""
    if not isinstance(error, sqlite3.Error):
        return error
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreDamaged(f"the session store's database is damaged ({error})")
    if code == sqlite3.SQLITE_FULL:
        return StoreUnavailable("the session store's disk is full: free space on it")
    return StoreUnavailable(f"the session store cannot read or write its database: {error}")
