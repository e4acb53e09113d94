"""A session's followers in one worker: whatever is to be said to all of them is put in words once.

Comes in: the entries of a session's log, and what passes without being stored. Goes out: the same
frames to every member's socket. One task reads the log for all members that are up to date; a
member that is not reads by itself until it is (``session_replay``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

from edge.errors import HistoryLost, SessionDeleted, StoreError
from edge.ingest.session_events import event_text, part_text, said
from edge.logs import Repeats, get_logger
from edge.session.entries import Part, decode_part
from edge.session.ledger import Ledger
from edge.session.store.interface import Entry, Signal
from edge.transport.interface import Socket, text_frame

KEPT_TEXTS = 2000
"""Entries in words, for the many who may come back at once."""
CROWDED_BYTES = 64 * 1024
"""A socket with so much unsent gets no interims."""
MAX_SPEAKERS = 1000
"""Speakers whose turns are remembered; the oldest are forgotten."""
RETRY_S = 0.5
CAUGHT_UP_LOOK_S = 0.01

_log = get_logger("edge.ingest.session_room")


class Guest(Protocol):
    """What a room tells the owner of a member."""

    def moved(self) -> None:
        """The history is another one: join again."""
        ...

    def ended(self) -> None:
        """The session is over or deleted, and all of it has been sent."""
        ...


class Member:
    """One connection that is up to date; what is behind ``offset`` it has been sent."""

    __slots__ = (
        "_conflate_s",
        "_due_s",
        "_guest",
        "_pending",
        "_timer",
        "offset",
        "skip",
        "socket",
    )

    def __init__(
        self, guest: Guest, socket: Socket, offset: int, *, conflate_s: float, skip: str = ""
    ) -> None:
        self._guest = guest
        self.socket = socket
        self.offset = offset
        self.skip = skip
        """A speaker whose interims it gets by a shorter way."""
        self._conflate_s = conflate_s
        self._due_s: dict[str, float] = {}
        self._pending: dict[str, bytes] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def guest(self) -> Guest:
        """Its owner."""
        return self._guest

    def entry(self, offset: int, frame: bytes, speaker: str | None) -> None:
        """Send an entry, unless it has been sent; a turn that has ended is spoken of no more."""
        if offset > self.offset:
            self.offset = offset
            self.socket.send_frame(frame)
        if speaker is not None:
            self._pending.pop(speaker, None)

    def part(self, speaker: str, frame: bytes) -> None:
        """Send a speaker's newest interim now or when the last is old enough; crowded: later."""
        if speaker == self.skip or not self.socket.is_open:
            return
        now_s = asyncio.get_running_loop().time()
        due_s = self._due_s.get(speaker, 0.0)
        if now_s >= due_s and self.socket.unsent_bytes < CROWDED_BYTES:
            self._pending.pop(speaker, None)
            self._send(speaker, frame, now_s)
            return
        self._pending[speaker] = frame
        self._arm(max(due_s, now_s + self._conflate_s))

    def forget(self, speaker: str) -> None:
        """Nothing more comes of a speaker."""
        self._due_s.pop(speaker, None)
        self._pending.pop(speaker, None)

    def leave(self) -> None:
        """Be sent nothing more."""
        self._pending.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send(self, speaker: str, frame: bytes, now_s: float) -> None:
        self._due_s[speaker] = now_s + self._conflate_s
        self.socket.send_frame(frame)

    def _arm(self, at_s: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(at_s, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if not self._pending or not self.socket.is_open:
            return
        now_s = asyncio.get_running_loop().time()
        if self.socket.unsent_bytes >= CROWDED_BYTES:
            self._arm(now_s + max(self._conflate_s, 0.05))
            return
        pending, self._pending = self._pending, {}
        for speaker, frame in pending.items():
            if now_s >= self._due_s.get(speaker, 0.0):
                self._send(speaker, frame, now_s)
            else:
                self._pending[speaker] = frame
        if self._pending:
            self._arm(min(self._due_s[speaker] for speaker in self._pending))


class Room:
    """The members of one session; owned by ``Rooms``."""

    def __init__(self, ledger: Ledger, session: str) -> None:
        self._ledger = ledger
        self._store = ledger.store
        self._followers = ledger.followers
        self.session = session
        self.users = 0
        self.epoch = ""
        self.offset = 0
        """Up to here every member has been sent the log, or has read it by itself."""
        self._members: dict[Guest, Member] = {}
        self._texts: dict[int, bytes] = {}
        self._turns: dict[str, int] = {}
        """The last finished turn of each speaker: interims that come late are not shown."""
        self._started = asyncio.Event()
        self._failed: StoreError | None = None
        self._task: asyncio.Task[None] | None = None
        self._ends: list[Callable[[], None]] = []
        self._repeats = Repeats(_log)

    def start(self) -> None:
        """Begin to follow."""
        self._ends.append(self._store.listen(self.session, self._hear))
        self._ends.append(self._ledger.want_parts(self.session))
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Follow no more; members have left."""
        for end in self._ends:
            end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        self._repeats.summarize()

    @property
    def is_over(self) -> bool:
        """Whether it follows no more: who comes now needs another."""
        return self._failed is not None

    async def ready(self) -> None:
        """Wait until it follows the log; raises what keeps it from that."""
        await self._started.wait()
        if self._failed is not None:
            raise self._failed

    def enter(self, member: Member, epoch: str) -> bool:
        """Take in a member that has been sent everything up to its offset; False: not yet."""
        if epoch != self.epoch or member.offset < self.offset:
            return False
        self._members[member.guest] = member
        return True

    def leave(self, guest: Guest) -> None:
        """Send a guest nothing more."""
        if member := self._members.pop(guest, None):
            member.leave()

    def text(self, entry: Entry) -> bytes:
        """An entry of the present epoch as its ``ev``, encoded once for all who want it."""
        text = self._texts.get(entry.offset)
        if text is None:
            text = self._texts[entry.offset] = event_text(entry)
            if len(self._texts) > KEPT_TEXTS:
                del self._texts[next(iter(self._texts))]
        return text

    def speak(self, part: Part) -> None:
        """Show an interim to the members, unless its turn has ended."""
        if part.turn <= self._turns.get(part.speaker, -1) or not self._members:
            return
        frame = text_frame(part_text(part))
        for member in self._members.values():
            member.part(part.speaker, frame)

    async def caught_up(self) -> None:
        """Wait until the members have been sent all that is in the log now."""
        head = await self._store.head(self.session)
        while head is not None and self.epoch == head.epoch and self.offset < head.head:
            await asyncio.sleep(CAUGHT_UP_LOOK_S)

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except HistoryLost:
                self._texts.clear()
                self._turns.clear()
                for guest in self._clear():
                    guest.moved()
            except SessionDeleted as error:
                if await self._was_lost():
                    continue
                self._failed = error
                self._started.set()
                for guest in self._clear():
                    guest.ended()
                return
            except StoreError as error:
                self._repeats.note("a session cannot be followed", reason=str(error))
                if not self._started.is_set():
                    self._failed = error
                    self._started.set()
                    return
                await asyncio.sleep(RETRY_S)

    async def _was_lost(self) -> bool:
        """Whether the session is not there because the store lost it: it has been made anew."""
        try:
            await self._store.ensure(self.session)
        except SessionDeleted:
            return False
        except StoreError:
            await asyncio.sleep(RETRY_S)
            return True
        self.epoch = ""
        self._texts.clear()
        self._turns.clear()
        for guest in self._clear():
            guest.moved()
        return True

    async def _follow(self) -> None:
        epoch, offset = self.epoch, self.offset
        if not epoch:
            head = await self._store.head(self.session)
            if head is None:
                raise SessionDeleted(self.session)
            epoch, offset = head.epoch, head.head
        async with self._followers.follow(self.session, epoch, offset) as follower:
            if not follower.recovered:
                was_following, self.epoch = bool(self.epoch), ""
                if was_following:
                    raise HistoryLost(self.session, follower.epoch)
                return
            self.epoch, self.offset = follower.epoch, follower.offset
            self._started.set()
            try:
                while True:
                    self._tell(await follower.next())
            except HistoryLost:
                self.epoch = ""
                raise

    def _tell(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            frame = text_frame(self.text(entry))
            what = said(entry)
            speaker = what.speaker if entry.kind == "final" else None
            if speaker is not None:
                self._finish(speaker, what.turn)
            for member in self._members.values():
                member.entry(entry.offset, frame, speaker)
            self.offset = entry.offset
            if what.type == "end":
                for guest in self._clear():
                    guest.ended()

    def _finish(self, speaker: str, turn: int) -> None:
        self._turns.pop(speaker, None)
        self._turns[speaker] = turn
        if len(self._turns) > MAX_SPEAKERS:
            del self._turns[next(iter(self._turns))]

    def _clear(self) -> list[Guest]:
        guests = list(self._members)
        for guest in guests:
            self.leave(guest)
        return guests

    def _hear(self, signal: Signal) -> None:
        if signal.body and (part := decode_part(signal.body)) is not None:
            self.speak(part)


class Rooms:
    """All rooms of one worker."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._rooms: dict[str, Room] = {}
        self._stopping: set[asyncio.Task[None]] = set()

    def enter(self, session: str) -> Room:
        """The room of a session that exists, opened now if need be; give it back with ``leave``."""
        room = self._rooms.get(session)
        if room is None or room.is_over:
            room = self._rooms[session] = Room(self._ledger, session)
            room.start()
        room.users += 1
        return room

    def leave(self, room: Room) -> None:
        """A guest needs a room no more; the last one closes it."""
        room.users -= 1
        if room.users == 0:
            if self._rooms.get(room.session) is room:
                del self._rooms[room.session]
            task = asyncio.get_running_loop().create_task(room.stop())
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    async def caught_up(self, deadline_s: float) -> None:
        """Wait until all members have been sent what is in the logs, no longer than this."""
        with contextlib.suppress(TimeoutError, StoreError):
            async with asyncio.timeout(deadline_s):
                await asyncio.gather(*(room.caught_up() for room in self._rooms.values()))

    async def stop(self) -> None:
        """Close what is left."""
        rooms, self._rooms = list(self._rooms.values()), {}
        await asyncio.gather(*(room.stop() for room in rooms), *self._stopping)
