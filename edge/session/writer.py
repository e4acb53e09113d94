"""What one track, or a session, has to say to the log: queued here, appended as the store allows.

Comes in: lines of a track, in the turn of the event loop that made them. Goes out: entries in the
same order, by one task at a time, again and again while the store is away; interims to whoever
wants them. Whoever speaks never waits for any of it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from dispatch.messages import transcription
from edge.errors import HistoryLost, SessionDeleted, StaleFence, StoreError
from edge.logs import get_logger
from edge.session.claim import Claim, until_done
from edge.session.entries import (
    Body,
    FinalEntry,
    NoteEntry,
    Part,
    TurnEndEntry,
    TurnStartEntry,
    encode_entry,
    encode_passing,
    kind_of,
)
from edge.session.interface import SpokenLine, participant_id
from edge.session.store.interface import SIGNAL_MAX_BYTES, Draft, Grant, SessionStore, now_ms

if TYPE_CHECKING:
    from edge.session.ledger import Ledger

Queued = tuple[Draft, bytes | None]
"""What is to be stored, and the message that goes out for it."""
MOST_AT_ONCE = 200
CONFLATE_S = 0.1
MOST_OPEN_TURNS = 16

_log = get_logger("edge.session.writer")


class Writer(ABC):
    """A bounded queue into one session's log; ``_append`` says how its drafts get there."""

    def __init__(self, ledger: Ledger, session: str) -> None:
        self._ledger = ledger
        self._store: SessionStore = ledger.store
        self.session = session
        self._queue: deque[Queued] = deque()
        self._dropped = 0
        self._task: asyncio.Task[None] | None = None
        self.claim: Claim | None = None
        self.is_over = False
        """Whether nothing it says can be written any more."""

    def say(self, *bodies: Body, message: bytes | None = None) -> None:
        """Queue entries that belong together; too many of all writers: they are dropped.

        ``message`` goes to the dispatcher for the first of them.
        """
        if self.is_over:
            return
        if not self._ledger.has_room(len(bodies)):
            self._dropped += sum(isinstance(body, FinalEntry) for body in bodies)
            self._ledger.counts.dropped += len(bodies)
            return
        if self._dropped:
            text = f"{self._dropped} finals were not stored: the store was away for too long"
            bodies = (NoteEntry("lost", text, self.name), *bodies)
            self._dropped = 0
        for body in bodies:
            due = message if isinstance(body, FinalEntry) else None
            self._queue.append((Draft(kind_of(body), encode_entry(body)), due))
        self._ledger.counts.waiting += len(bodies)
        self._ledger.soon(self)

    @property
    def name(self) -> str:
        """Whose lines these are; empty for those of no track."""
        return ""

    @property
    def waits(self) -> bool:
        """Whether something has not been stored yet."""
        return self._task is not None or bool(self._queue)

    def wake(self) -> None:
        """See to it now that what is queued gets stored."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._pump())
            self._ledger.busy.add(self)

    async def flushed(self) -> None:
        """Return when all that was queued is stored, or cannot be any more."""
        if self._queue:
            self.wake()
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def abandon(self) -> None:
        """Store no more."""
        self.is_over = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _pump(self) -> None:
        try:
            await self._prepare()
            while self._queue:
                batch = list(islice(self._queue, MOST_AT_ONCE))
                await until_done(partial(self._append, batch))
                for _ in batch:
                    self._queue.popleft()
                self._ledger.counts.waiting -= len(batch)
                self._ledger.counts.appended += len(batch)
        except StaleFence:
            self.is_over = True
            self._ledger.counts.superseded += 1
            self._superseded()
        except SessionDeleted:
            self.is_over = True
            self._deleted()
        except StoreError as error:
            self.is_over = True
            self._ledger.repeats.note("a log cannot be written", "error", reason=str(error))
        except Exception as error:
            self.is_over = True
            _log.error("a log cannot be written", exc_info=error)
        finally:
            self._task = None
            if self.is_over:
                self._forget()
            self._ledger.settled(self)

    def _forget(self) -> None:
        self._ledger.counts.waiting -= len(self._queue)
        self._ledger.counts.refused += len(self._queue)
        self._queue.clear()

    @abstractmethod
    async def _prepare(self) -> None:
        """What has to happen before anything is appended."""

    @abstractmethod
    async def _append(self, batch: list[Queued]) -> None:
        """Store these in one step; what keeps the store from it is raised."""

    @abstractmethod
    def _superseded(self) -> None:
        """Another writes now."""

    @abstractmethod
    def _deleted(self) -> None:
        """The session is gone."""


class NoteWriter(Writer):
    """Entries of a session that no track writes."""

    async def _append(self, batch: list[Queued]) -> None:
        await self._store.note(self.session, [draft for draft, _ in batch])

    async def _prepare(self) -> None:
        """It has no fence to take."""

    def _superseded(self) -> None:
        """Nobody can take its place."""

    def _deleted(self) -> None:
        """Whoever holds a claim in the session is told."""


class TrackWriter(Writer):
    """The lines of one track; made by ``Ledger.write``."""

    def __init__(
        self, ledger: Ledger, claim: Claim, track: str, *, attends: bool, posts: bool = False
    ) -> None:
        """``attends``: its beginning and end are the coming and going of its speaker.

        That is so for a media server's tracks, of which only finals are told: each is a turn.
        ``posts``: its finals go to the dispatcher, in the same step of the store.
        """
        super().__init__(ledger, claim.session)
        self.claim: Claim = claim
        self.track = track
        self._attends = attends
        self._posts = posts
        self._users = 0
        """Tracks that have not finished: one, but for a moment when a tag's track is replaced."""
        self._grant: Grant | None = None
        self._turns: dict[str, int] = {}
        """Turns that are open, by the recognizer's name for them."""
        self._last_turn = 0
        self._revisions: dict[int, int] = {}
        self._part: Part | None = None
        self._part_due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        return self.track

    def turn_of(self, item_id: str) -> int:
        """The number of an utterance's turn; later turns have higher ones, on any worker."""
        turn = self._turns.get(item_id)
        if turn is None:
            turn = self._last_turn = max(self._last_turn + 1, now_ms())
            self._turns[item_id] = turn
            if len(self._turns) > MOST_OPEN_TURNS:
                del self._turns[next(iter(self._turns))]
        return turn

    def interim(self, line: SpokenLine) -> None:
        """Show a turn so far to those who follow, at most every 100 ms; the newest wins."""
        self._begin(line)
        if self.is_over or not self._ledger.wants_parts(self.session):
            return
        revision = self._revisions[line.turn] = self._revisions.get(line.turn, 0) + 1
        self._part = Part(self.track, line.turn, revision, line.transcript.text)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(self._part_due_s, loop.time()), self._publish)

    def final(self, line: SpokenLine, *, sent: bool, audio_seq: int | None = None) -> None:
        """A turn is finished: store it."""
        self._begin(line)
        self._turns.pop(line.transcript.item_id, None)
        self._revisions.pop(line.turn, None)
        if self._part is not None and self._part.turn == line.turn:
            self._part = None
        said = line.transcript
        end_ms = round(line.end_ms)
        self.say(
            FinalEntry(
                speaker=self.track,
                turn=line.turn,
                text=said.text,
                start_ms=round(line.start_ms),
                end_ms=end_ms,
                timestamp_unix_ms=said.timestamp_unix_ms,
                item_id=said.item_id,
                provider=said.provider,
                language=said.language,
                confidence=said.confidence,
                voice=said.speaker,
                audio_seq=audio_seq,
                sent=sent,
                latency_ms=line.latency_ms,
                model=line.model,
            ),
            *(() if self._attends else (TurnEndEntry(self.track, line.turn, end_ms),)),
            message=self._message(line) if self._posts else None,
        )

    def _message(self, line: SpokenLine) -> bytes | None:
        said = line.transcript
        return transcription(
            self.session,
            participant_id(line.tag),
            [said.text],
            said.timestamp_unix_ms,
            said.language,
        )

    @property
    def is_idle(self) -> bool:
        """Whether it has neither a track nor anything left to store."""
        return not self._users and not self.waits

    def begin(self) -> None:
        """A track speaks; its fence is taken at once."""
        self._users += 1
        if self._users == 1:
            self._ledger.began(self, attends=self._attends)
        self.wake()

    def finish(self) -> None:
        """A track says nothing more; what is queued is still stored."""
        self._users -= 1
        if self._users:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._attends:
            self._ledger.leaves(self)
        self._ledger.finished(self)

    def _begin(self, line: SpokenLine) -> None:
        if line.turn not in self._revisions:
            self._revisions[line.turn] = 0
            if len(self._revisions) > MOST_OPEN_TURNS:
                del self._revisions[next(iter(self._revisions))]
            if not self._attends:
                self.say(TurnStartEntry(self.track, line.turn, round(line.start_ms)))

    def _publish(self) -> None:
        self._timer = None
        part, self._part = self._part, None
        if part is None:
            return
        self._part_due_s = asyncio.get_running_loop().time() + CONFLATE_S
        data = encode_passing(part)
        if len(data) <= SIGNAL_MAX_BYTES:
            self._store.publish(self.session, data)

    async def _prepare(self) -> None:
        if self._grant is None:
            await until_done(self._open)

    async def _open(self) -> None:
        await self.claim.confirm()
        self._grant = await self._store.open_track(self.session, self.track)

    async def _append(self, batch: list[Queued]) -> None:
        drafts = [draft for draft, _ in batch]
        outbox = [(index, due) for index, (_, due) in enumerate(batch) if due is not None]
        while True:
            if self._grant is None:
                await self._open()
            assert self._grant is not None
            try:
                await self._store.append(self._grant, drafts, outbox)
            except HistoryLost:
                # The new epoch gets what the old one did not confirm.
                self._ledger.counts.histories_lost += 1
                self._grant = None
            else:
                if outbox:
                    self._ledger.posted()
                return

    def _superseded(self) -> None:
        self._ledger.lost(self.claim)
        self.claim.holder.superseded()

    def _deleted(self) -> None:
        self.claim.holder.deleted()
