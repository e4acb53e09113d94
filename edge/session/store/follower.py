"""Follow a session from an offset on and then live, without a gap or a duplicate.

Comes in: signals and pages of a ``SessionStore``. Goes out: entries in offset order. All followers
of a session in one worker share one ``Tail``, so that a room of hundreds reads the store once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from edge.errors import HistoryLost, SessionDeleted, StoreBusy, StoreUnavailable
from edge.session.store.interface import MAX_PAGE, Entry, Head, Page, SessionStore, Signal

KEPT_ENTRIES = 2000
RETRY_S = 0.5


class Tail:
    """The end of one session's log, as this worker knows it; owned by ``Followers``."""

    def __init__(self, store: SessionStore, session: str) -> None:
        self._store = store
        self._session = session
        self._kept: deque[Entry] = deque(maxlen=KEPT_ENTRIES)
        self._nudged = asyncio.Event()
        self._grown = asyncio.Condition()
        self._reading = asyncio.Lock()
        self._pages: dict[int, asyncio.Task[Page | None]] = {}
        self._end: Callable[[], None] = lambda: None
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Task[None] | None = None
        self.head: Head | None = None
        self.users = 0

    async def start(self) -> None:
        """Listen first, read then; all who come meanwhile wait for the same."""
        if self._ready is None:
            self._ready = asyncio.create_task(self._start())
        await asyncio.shield(self._ready)

    async def _start(self) -> None:
        self._end = self._store.listen(self._session, self._hear)
        await self._store.listening(self._session)
        head = await self._store.head(self._session)
        if head is not None:
            page = await self._store.read(self._session, max(head.head - KEPT_ENTRIES // 2, 0))
            self._take(page)
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        self._end()
        tasks = [task for task in (self._ready, self._task, *self._pages.values()) if task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _hear(self, signal: Signal) -> None:
        if signal.body or (signal.head and self.head and signal.head <= self.head.head):
            return
        self._nudged.set()

    def _take(self, page: Page | None) -> bool:
        """Add what is new; whether more may be there."""
        before = self.head
        self.head = page.head if page else None
        is_same = page and before and page.head.epoch == before.epoch
        if not is_same or (page and before and page.head.head < before.head):
            self._kept.clear()
        if page is None or not page.entries:
            return False
        if self._kept and page.entries[0].offset != self._kept[-1].offset + 1:
            self._kept.clear()
        self._kept.extend(page.entries)
        last = page.entries[-1].offset
        if last < page.head.head:
            self.head = Head(page.head.epoch, page.head.tail, last)
            return True
        return False

    async def _watch(self) -> None:
        while True:
            await self._nudged.wait()
            self._nudged.clear()
            more = True
            while more:
                try:
                    more = await self.refresh()
                except (StoreUnavailable, StoreBusy):
                    await asyncio.sleep(RETRY_S)

    async def refresh(self) -> bool:
        """Read on from where this tail ends; whether more may be there."""
        async with self._reading:
            known = self.head
            page = await self._store.read(self._session, known.head if known else 0)
            if page and known and page.head.epoch == known.epoch and page.head.head < known.head:
                # Whoever comes after us must know as well, before the log grows over the gap.
                await self._store.resume(self._session, known.epoch, known.head)
                page = await self._store.read(self._session, 0)
            more = self._take(page)
        async with self._grown:
            self._grown.notify_all()
        return more

    async def after(self, epoch: str, offset: int) -> Sequence[Entry]:
        """The entries that follow ``offset``, at least one; waits for it.

        Raises ``HistoryLost`` when the epoch is over, ``SessionDeleted`` when the session is.
        """
        while True:
            if self.head is None:
                raise SessionDeleted(self._session)
            if self.head.epoch != epoch or offset > self.head.head:
                raise HistoryLost(self._session, self.head.epoch)
            if offset < self.head.head:
                break
            async with self._grown:
                if self.head is not None and (self.head.epoch, self.head.head) == (epoch, offset):
                    await self._grown.wait()
        if self._kept and self._kept[0].offset <= offset + 1:
            start = offset + 1 - self._kept[0].offset
            return [self._kept[index] for index in range(start, len(self._kept))]
        page = await self._page(offset)
        if page is None:
            raise SessionDeleted(self._session)
        if page.head.epoch != epoch or not page.entries:
            raise HistoryLost(self._session, page.head.epoch)
        return page.entries

    async def _page(self, offset: int) -> Page | None:
        """Read older entries; those who want the same share one read."""
        task = self._pages.get(offset)
        if task is None:
            task = asyncio.create_task(self._store.read(self._session, offset, MAX_PAGE))
            self._pages[offset] = task
            task.add_done_callback(lambda _: self._pages.pop(offset, None))
        return await asyncio.shield(task)


class Follower:
    """One that follows; ``offset`` of ``epoch`` is the last it was given."""

    def __init__(self, tail: Tail, epoch: str, offset: int, *, recovered: bool) -> None:
        self._tail = tail
        self.epoch = epoch
        self.offset = offset
        self.recovered = recovered

    async def next(self) -> Sequence[Entry]:
        """At least one further entry, in order; may be cancelled without losing any.

        ``HistoryLost`` says that another epoch has begun: follow again.
        """
        entries = await self._tail.after(self.epoch, self.offset)
        self.offset = entries[-1].offset
        return entries


class Followers:
    """All who follow sessions in this worker."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._tails: dict[str, Tail] = {}

    @asynccontextmanager
    async def follow(
        self, session: str, epoch: str = "", offset: int = 0
    ) -> AsyncIterator[Follower]:
        """Follow from after ``offset`` of ``epoch``, or from the first entry that is kept.

        ``recovered`` of the follower says whether it goes on where it was. Raises
        ``SessionDeleted`` when there is no such session.
        """
        tail = self._tails.setdefault(session, Tail(self._store, session))
        tail.users += 1
        try:
            await tail.start()
            head = tail.head
            if head is None or (epoch and (epoch != head.epoch or offset > head.head)):
                resumed = await self._store.resume(session, epoch, offset)
                if resumed is None:
                    raise SessionDeleted(session)
                while await tail.refresh():
                    pass
                head = tail.head
                if head is None:
                    raise SessionDeleted(session)
            recovered = epoch == head.epoch and head.tail - 1 <= offset <= head.head
            start = offset if recovered else head.tail - 1
            yield Follower(tail, head.epoch, start, recovered=recovered)
        finally:
            tail.users -= 1
            if not tail.users:
                if self._tails.get(session) is tail:
                    del self._tails[session]
                await tail.stop()
