"""A spool on local disk in front of an object store that may be away.

Comes in: what is put while the store does not answer. Goes out: the same operations to the store,
once it answers again, in the order in which they came. All workers of a node share one database;
one of them, whichever holds a file lock, carries out what all of them left. What is put is durable
when it is acked, and is read and found before it has arrived; it survives the death of any worker.

A worker that met a store which is away asks it nothing more until some operation of the spool has
been carried out: it acks at the speed of the local disk meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from prometheus_client import Counter, Gauge

from edge.errors import ObjectError, ObjectExists, ObjectMissing, ObjectsUnavailable, StoreError
from edge.logs import Repeats, get_logger
from edge.objects import spool_table as table
from edge.objects.interface import ObjectStore, check_key
from edge.objects.spool_table import Filled, Operation
from edge.session.store.sqlite_thread import SqliteThread

AT_ONCE = 16
"""Operations that are carried out together; they have different keys."""
LOOK_S = 0.5
"""How often a worker looks for what other workers left, or whether the store is back."""
LONGEST_WAIT_S = 5.0
"""Between two tries at a store that is away."""
REFUSED_WAIT_MS = 60_000
"""Until what a store refused for good is tried again, should somebody have mended it."""
SUMMARY_S = 60.0
MEASURE_S = 1.0

_WAITING = Gauge(
    "edgescribe_spool_objects",
    "Objects on local disk that wait for the object store",
    multiprocess_mode="livemax",
)
_BYTES = Gauge(
    "edgescribe_spool_bytes",
    "Room they take of spool_max_bytes",
    multiprocess_mode="livemax",
)
_AGE = Gauge(
    "edgescribe_spool_age_seconds",
    "How long the oldest of them waits",
    multiprocess_mode="livemax",
)
_OPERATIONS = Counter(
    "edgescribe_spool_operations",
    "Objects taken while the store was away; stored: they are there, refused: the store will not"
    " have them as they are, full: there was no room for them",
    ["outcome"],
)

T = TypeVar("T")
Outcome = Literal["done", "refused", "away"]
_log = get_logger("edge.objects.spool")


class SpooledStore(ObjectStore):
    """``behind`` is the store; ``path`` the database, in a folder that all workers share."""

    def __init__(self, behind: ObjectStore, path: Path, most_bytes: int) -> None:
        self._behind = behind
        self._path = path
        self._most_bytes = most_bytes
        self._files: list[int] = []
        self._writer: SqliteThread | None = None
        self._reader: SqliteThread | None = None
        self._carrier: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._away_since: int | None = None
        """Progress of the spool when the store was found to be away."""
        self._look_after_s = 0.0
        self._repeats = Repeats(_log)

    @property
    def away(self) -> bool:
        """Whether this worker puts objects into the spool, and not into the store."""
        return self._away_since is not None

    async def open(self) -> None:
        """Take up what waits; raises ``ObjectError`` when the spool cannot be written."""
        await self._behind.open()
        try:
            await asyncio.to_thread(self._prepare)
        except (OSError, sqlite3.Error) as error:
            await self._behind.close()
            raise ObjectsUnavailable(
                f"the spool of objects {self._path} cannot be used ({error}):"
                " make room, or move it away if it is damaged"
            ) from error
        connect = partial(table.connect, self._path)
        self._writer = SqliteThread(connect, lock=self._lock("lock"))
        self._reader = SqliteThread(connect)
        self._writer.start()
        self._reader.start()
        self._carrier = asyncio.create_task(self._carry(self._lock("carrier")))
        waiting = await self._read(table.filled)
        if waiting.objects:
            _log.info("objects wait in the spool", objects=waiting.objects, bytes=waiting.bytes)

    async def close(self) -> None:
        """Leave what waits to the other workers, or to the next start."""
        if self._carrier:
            self._carrier.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._carrier
        for thread in (self._writer, self._reader):
            if thread:
                await thread.close()
        self._writer = self._reader = self._carrier = None
        for descriptor in self._files:
            os.close(descriptor)
        self._files.clear()
        await self._behind.close()

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] = {},
        only_new: bool = False,
    ) -> None:
        """Store, or keep on local disk while the store is away.

        A new object that the spool keeps counts as new when this node knows of no other; should
        the store have one with another body after all, that one stays, and the log says so.
        """
        check_key(key)
        if not self.away and not await self._read(lambda db: table.waits(db, key)):
            try:
                await self._behind.put(
                    key, body, content_type=content_type, metadata=metadata, only_new=only_new
                )
                return
            except ObjectsUnavailable as error:
                await self._went_away(error)
        operation = Operation(
            key=key,
            kind="new" if only_new else "put",
            content_type=content_type,
            metadata=dict(metadata),
            body=body,
        )
        verdict = await self._write(
            lambda db: table.append(db, operation, self._most_bytes, self._path.parent)
        )
        if verdict == "exists":
            raise ObjectExists(key)
        if verdict in ("full", "no room"):
            _OPERATIONS.labels("full").inc()
        if verdict == "full":
            raise ObjectsUnavailable(
                f"the object store is away, and the spool {self._path} is full: mend the store,"
                " or raise EDGESCRIBE_SPOOL_MAX_BYTES"
            )
        if verdict == "no room":
            raise ObjectsUnavailable(
                f"the object store is away, and the disk of the spool {self._path} is full: mend"
                " the store, or make room"
            )
        _OPERATIONS.labels("kept").inc()
        self._wake.set()

    async def get(self, key: str) -> bytes:
        check_key(key)
        held = await self._read(lambda db: table.held(db, key))
        if held is None:
            return await self._behind.get(key)
        kind, body = held
        if kind == "remove":
            raise ObjectMissing(key)
        return body

    async def find(self, prefix: str, after: str = "", limit: int = 1000) -> list[str]:
        """Those of the spool and of the store; raises while the store is away, for it may have
        others."""
        # In this order: what is carried out in between is in the store then.
        held = await self._read(lambda db: table.keys(db, prefix, after))
        removed = {key for key, kind in held if kind == "remove"}
        waiting = [key for key, kind in held if kind != "remove"]
        found: set[str] = set()
        while True:
            page = await self._behind.find(prefix, after, limit)
            whole = len(page) < limit
            end = page[-1] if page else after
            found.update(key for key in page if key not in removed)
            found.update(key for key in waiting if whole or key <= end)
            if whole or len(found) >= limit:
                return sorted(found)[:limit]
            after = end

    async def remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            check_key(key)
        withdrawn = set(await self._write(lambda db: table.withdraw(db, list(keys))))
        if withdrawn:
            self._wake.set()
        if others := [key for key in keys if key not in withdrawn]:
            await self._behind.remove(others)

    async def waiting(self) -> Filled:
        """What waits, of all workers."""
        return await self._read(table.filled)

    # What waits

    async def _carry(self, lock: int) -> None:
        """Carry out what waits, while no other worker does; owned by the store."""
        wait_s, is_carrier, is_empty = LOOK_S, False, True
        loop = asyncio.get_running_loop()
        summary_due_s, measure_due_s = loop.time() + SUMMARY_S, loop.time()
        while True:
            outcome: Outcome = "done"
            try:
                is_carrier = is_carrier or _locked(lock)
                if is_carrier:
                    if loop.time() >= measure_due_s:
                        await self._measure()
                        measure_due_s = loop.time() + MEASURE_S
                    operations = await self._read(lambda db: table.next_operations(db, AT_ONCE))
                    if operations:
                        outcome, is_empty = await self._carry_out(operations), False
                    elif not is_empty:
                        await asyncio.to_thread(table.shrink, self._path)
                        _log.info("the spool of objects is empty again")
                        is_empty = True
                if not is_carrier or not operations:
                    await self._look()
            except (ObjectError, sqlite3.Error, OSError) as error:
                self._repeats.note("the spool of objects is stuck", reason=str(error))
                outcome = "away"
            except Exception:
                _log.exception("the spool of objects is stuck")
                outcome = "away"
            if loop.time() >= summary_due_s:
                self._repeats.summarize()
                summary_due_s = loop.time() + SUMMARY_S
            if outcome == "away":
                await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
                continue
            wait_s = LOOK_S
            if not is_carrier or not operations:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S * random.uniform(0.5, 1.0)):
                        await self._wake.wait()
            self._wake.clear()

    async def _measure(self) -> None:
        """Show what waits; one worker of a node does."""
        waiting = await self._read(table.filled)
        _WAITING.set(waiting.objects)
        _BYTES.set(waiting.bytes)
        _AGE.set(waiting.oldest_age_s)

    async def _carry_out(self, operations: list[Operation]) -> Outcome:
        outcomes = await asyncio.gather(*map(self._one, operations))
        numbers = [each.number for each in operations]
        done = [number for number, how in zip(numbers, outcomes, strict=True) if how == "done"]
        refused = [
            number for number, how in zip(numbers, outcomes, strict=True) if how == "refused"
        ]
        await self._write(lambda db: table.settle(db, done, refused, REFUSED_WAIT_MS))
        _OPERATIONS.labels("stored").inc(len(done))
        _OPERATIONS.labels("refused").inc(len(refused))
        if done:
            self._came_back()
        return "away" if "away" in outcomes else "done"

    async def _one(self, operation: Operation) -> Outcome:
        try:
            if operation.kind == "remove":
                await self._behind.remove([operation.key])
            else:
                await self._arrive(operation)
            return "done"
        except ObjectsUnavailable as error:
            self._repeats.note("the object store is away", reason=str(error))
            return "away"
        except ObjectError as error:
            self._repeats.note("an object is refused", level="error", reason=str(error))
            return "refused"

    async def _arrive(self, operation: Operation) -> None:
        try:
            await self._behind.put(
                operation.key,
                operation.body,
                content_type=operation.content_type,
                metadata=operation.metadata,
                only_new=operation.kind == "new",
            )
        except ObjectExists:
            # Ours, when the answer to the first try was lost.
            with contextlib.suppress(ObjectMissing):
                if await self._behind.get(operation.key) != operation.body:
                    self._repeats.note(
                        "an object that was spooled is there already, with another body",
                        object=operation.key,
                    )

    # Whether the store is away

    async def _went_away(self, error: ObjectsUnavailable) -> None:
        progress, _ = await self._read(table.progress)
        if not self.away:
            self._away_since = progress
            # What was refused is in the spool by then, so that something waits.
            self._look_after_s = asyncio.get_running_loop().time() + LOOK_S
            _log.warning("objects go to the spool", reason=str(error))

    def _came_back(self) -> None:
        if self.away:
            self._away_since = None
            _log.info("objects go to the object store again")

    async def _look(self) -> None:
        """See whether another worker has carried something out, or nothing waits."""
        if self._away_since is None or asyncio.get_running_loop().time() < self._look_after_s:
            return
        progress, is_due = await self._read(table.progress)
        if progress != self._away_since or not is_due:
            self._came_back()

    # The database

    def _prepare(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        table.prepare(self._path)

    def _lock(self, what: str) -> int:
        """An open file that is locked while something is done."""
        path = self._path.with_name(f"{self._path.name}.{what}")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._files.append(descriptor)
        return descriptor

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._run(self._reader, work)

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._run(self._writer, work)

    async def _run(self, thread: SqliteThread | None, work: Callable[[sqlite3.Connection], T]) -> T:
        if thread is None:
            raise ObjectsUnavailable("the object store is closed")
        try:
            return await thread.run(work)
        except StoreError as error:
            raise ObjectsUnavailable(
                f"the spool of objects {self._path} cannot be used: its disk is full or damaged"
            ) from error


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
