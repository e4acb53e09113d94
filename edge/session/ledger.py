"""A worker's way to the session store: claims, writers, followers, and commands of other workers.

Comes in: what tracks say, who holds them, notes. Goes out: entries in session logs, however long
the store was away, within a bound; parts to those who follow; commands to holders.
``edge.session`` and ``edge.ingest`` may call it; ``edge.compose`` makes one for each worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable

import msgspec

from edge.beat import next_beat
from edge.errors import StoreError
from edge.logs import Repeats, get_logger
from edge.session.claim import DRAIN, Claim, Holder
from edge.session.claim import retrying as retrying
from edge.session.entries import (
    Body,
    JoinEntry,
    LeaveEntry,
    Wanted,
    decode_passing,
    encode_passing,
)
from edge.session.store import commands
from edge.session.store.follower import Followers
from edge.session.store.interface import SessionStore, Signal
from edge.session.store.settings import StoreSettings
from edge.session.writer import NoteWriter, TrackWriter, Writer

WANTED_S = 10.0
BEAT_S = 4.0
STORE_EVERY_S = 0.08
"""A final that somebody follows is in the log so much later at most."""
STORE_UNSEEN_EVERY_S = 0.2
"""Any other: who said it has long been told, and to store five costs little more than one."""
MOST_LOSSES = 3
LOSSES_WITHIN_S = 10.0
"""After so many claims of a name lost within so long its clients are several: all of them stay."""
MAX_LOSERS = 10_000

_log = get_logger("edge.session.ledger")


class LedgerCounts(msgspec.Struct):
    """What became of entries."""

    appended: int = 0
    dropped: int = 0
    """The queue was full."""
    refused: int = 0
    """The track was another's, or the session deleted."""
    superseded: int = 0
    histories_lost: int = 0
    waiting: int = 0
    """Right now."""


class Desk:
    """What one session's listeners have to hear in this worker."""

    def __init__(self, ledger: Ledger, session: str) -> None:
        self._ledger = ledger
        self._session = session
        self.claims: set[Claim] = set()
        self.users = 0
        self.wanted_until_s = 0.0
        self._nudged = False
        self._looking: asyncio.Task[None] | None = None
        self._working: set[asyncio.Task[None]] = set()
        self._unlisten = ledger.store.listen(session, self._hear)

    async def close(self) -> None:
        """Hear nothing more; commands that are being done are finished, their senders wait."""
        self._unlisten()
        if self._looking:
            self._looking.cancel()
            await asyncio.wait((self._looking,))
        if self._working:
            await asyncio.wait(self._working)

    def _hear(self, signal: Signal) -> None:
        if signal.body:
            if isinstance(decode_passing(signal.body), Wanted):
                self.wanted_until_s = time.monotonic() + WANTED_S
        elif not signal.head and self.claims:
            self._nudged = True
            if self._looking is None:
                self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        """Take the commands that wait for holders here."""
        store, session = self._ledger.store, self._session
        try:
            while self._nudged:
                self._nudged = False
                names = {name for claim in self.claims for name in claim.answers_to}
                for command, version in await commands.take(store, session, names):
                    task = asyncio.get_running_loop().create_task(self._do(command, version))
                    self._working.add(task)
                    task.add_done_callback(self._working.discard)
                if self.claims and await store.head(session) is None:
                    await asyncio.gather(*(claim.look() for claim in tuple(self.claims)))
        except StoreError as error:
            self._ledger.repeats.note("commands cannot be read", reason=str(error))
        finally:
            self._looking = None

    async def _do(self, command: commands.Command, version: int) -> None:
        claims = [claim for claim in self.claims if command.track in claim.answers_to]
        answer = b""
        try:
            if command.op == DRAIN:
                for claim in claims:
                    self._ledger.lost(claim)
                    await claim.holder.drain()
            elif claims:
                answer = await claims[-1].holder.command(command.op, command.body)
        except Exception as error:
            _log.error("a command failed", op=command.op, exc_info=error)
            answer = b"the gateway failed on this command"
        try:
            await commands.answer(self._ledger.store, self._session, command, version, answer)
        except StoreError as error:
            self._ledger.repeats.note("a command cannot be answered", reason=str(error))


class Ledger:
    """One worker's; all methods are for the event loop's thread, none but coroutines wait."""

    def __init__(
        self,
        store: SessionStore,
        settings: StoreSettings,
        posted: Callable[[], None] = lambda: None,
    ) -> None:
        """``posted`` is called when something waits in the outbox that was not there before."""
        self.store = store
        self.posted = posted
        self.followers = Followers(store)
        self.counts = LedgerCounts()
        self.repeats = Repeats(_log)
        self.busy: set[Writer] = set()
        """Writers with something to store."""
        self._most_waiting = settings.log_queue_entries
        self._desks: dict[str, Desk] = {}
        self._notes: dict[str, NoteWriter] = {}
        self._wanted: dict[str, int] = {}
        self._losses: dict[tuple[str, str], deque[float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._beating: asyncio.Task[None] | None = None
        self._storing: asyncio.TimerHandle | None = None

    async def flush(self, deadline_s: float) -> None:
        """Wait until all that was said is stored, no longer than this."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while self.busy:
                    await asyncio.gather(*(writer.flushed() for writer in tuple(self.busy)))

    async def stop(self, deadline_s: float = 2.0) -> None:
        """Store what can be stored within the deadline, and let go; the store stays open."""
        await self.flush(deadline_s)
        if self._storing is not None:
            self._storing.cancel()
        if self.counts.waiting:
            _log.error("entries could not be stored before the end", entries=self.counts.waiting)
        await asyncio.gather(*(writer.abandon() for writer in tuple(self.busy)))
        tasks = [*self._tasks, *([self._beating] if self._beating else [])]
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(desk.close() for desk in tuple(self._desks.values())))
        self._desks.clear()
        self.repeats.summarize()

    # Tracks

    def claim(self, session: str, name: str, holder: Holder) -> Claim:
        """Take the place of whoever has this name in the session, on whichever worker."""
        claim = Claim(self.store, session, name, holder)
        self._enter(session).claims.add(claim)
        claim.take()
        return claim

    def unclaimed(self, session: str, holder: Holder) -> Claim:
        """A claim that nobody can contest: of a session nobody else knows, or of names apart."""
        claim = Claim(self.store, session, "", holder)
        claim.is_certain = True
        claim.ready.set()
        self._enter(session)
        return claim

    async def flushed(self, claim: Claim) -> None:
        """Return when all that the claim's tracks said is stored, or cannot be."""
        while waiting := [writer for writer in self.busy if writer.claim is claim]:
            await asyncio.gather(*(writer.flushed() for writer in waiting))

    def release(self, claim: Claim) -> None:
        """Its tracks have ended; what they said is stored before the place is free."""
        if desk := self._desks.get(claim.session):
            desk.claims.discard(claim)
        self._leave(claim.session)
        self._spawn(self._release(claim))

    def is_contested(self, session: str, name: str) -> bool:
        """Whether this name was lost so often lately that several clients must share it."""
        lost_s = self._losses.get((session, name))
        return (
            lost_s is not None
            and len(lost_s) == MOST_LOSSES
            and time.monotonic() - lost_s[0] <= LOSSES_WITHIN_S
        )

    def lost(self, claim: Claim) -> None:
        """A claim goes, or went, to another client."""
        if claim.was_asked_for or not claim.name:
            return
        claim.was_asked_for = True
        key = (claim.session, claim.name)
        self._losses.setdefault(key, deque(maxlen=MOST_LOSSES)).append(time.monotonic())
        if len(self._losses) > MAX_LOSERS:
            del self._losses[next(iter(self._losses))]

    def write(
        self, claim: Claim, track: str, *, attends: bool = False, posts: bool = False
    ) -> TrackWriter:
        """The way of a track's lines into the log; its fence is taken at once.

        ``attends``: a join and a leave of the speaker are noted with it. ``posts``: its finals go
        to the dispatcher.
        """
        writer = TrackWriter(self, claim, track, attends=attends, posts=posts)
        writer.begin()
        return writer

    def note(self, session: str, body: Body) -> None:
        """Write an entry of no track."""
        notes = self._notes.get(session)
        if notes is None:
            notes = self._notes[session] = NoteWriter(self, session)
        notes.say(body)
        self.settled(notes)

    async def exists(self, session: str) -> None:
        """See to it that there is such a session; raises ``SessionDeleted`` and what stores do."""
        await self.store.ensure(session)

    # Parts

    def wants_parts(self, session: str) -> bool:
        """Whether somebody follows this session, as far as is known."""
        desk = self._desks.get(session)
        return desk is not None and desk.wanted_until_s > time.monotonic()

    def want_parts(self, session: str) -> Callable[[], None]:
        """Ask all workers for the parts of a session, until the answer is called."""
        self._wanted[session] = self._wanted.get(session, 0) + 1
        self.store.publish(session, encode_passing(Wanted()))
        if self._beating is None:
            self._beating = asyncio.get_running_loop().create_task(self._beat())

        def end() -> None:
            if self._wanted.get(session, 0) > 1:
                self._wanted[session] -= 1
            else:
                self._wanted.pop(session, None)

        return end

    async def _beat(self) -> None:
        wanted = encode_passing(Wanted())
        while True:
            await asyncio.sleep(BEAT_S)
            for session in self._wanted:
                self.store.publish(session, wanted)

    # For writers

    def has_room(self, entries: int) -> bool:
        """Whether so many more may wait."""
        return self.counts.waiting + entries <= self._most_waiting

    def soon(self, writer: Writer) -> None:
        """Let a writer store what it has, together with others: that costs little more than one."""
        self.busy.add(writer)
        is_seen = writer.session in self._wanted or self.wants_parts(writer.session)
        loop = asyncio.get_running_loop()
        due_s = next_beat(loop.time(), STORE_EVERY_S if is_seen else STORE_UNSEEN_EVERY_S)
        if self._storing is not None:
            if self._storing.when() <= due_s:
                return
            self._storing.cancel()
        self._storing = loop.call_at(due_s, self._store_all)

    def _store_all(self) -> None:
        self._storing = None
        for writer in tuple(self.busy):
            writer.wake()

    def settled(self, writer: Writer) -> None:
        """A writer has nothing left to do."""
        if writer.waits:
            return
        self.busy.discard(writer)
        if self._notes.get(writer.session) is writer:
            del self._notes[writer.session]

    def began(self, writer: TrackWriter, *, attends: bool) -> None:
        """A track's writer has something to say from now on."""
        self._enter(writer.session)
        if attends:
            self.note(writer.session, JoinEntry(writer.track))

    def leaves(self, writer: TrackWriter) -> None:
        """A speaker who was noted has gone."""
        if not writer.is_over:
            writer.say(LeaveEntry(writer.track))

    def finished(self, writer: TrackWriter) -> None:
        """A track's writer says nothing more."""
        self._leave(writer.session)

    def _enter(self, session: str) -> Desk:
        desk = self._desks.get(session)
        if desk is None:
            desk = self._desks[session] = Desk(self, session)
        desk.users += 1
        return desk

    def _leave(self, session: str) -> None:
        desk = self._desks.get(session)
        if desk is None:
            return
        desk.users -= 1
        if desk.users == 0:
            del self._desks[session]
            self._spawn(desk.close())

    async def _release(self, claim: Claim) -> None:
        await self.flushed(claim)
        await claim.release()

    def _spawn(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
