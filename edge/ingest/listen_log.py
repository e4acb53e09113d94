"""A session's log as one plain client is told of it: what it missed, then where its turns are.

Comes in: the log, from where the client was on. Goes out: the finals of one speaker with their
offsets. ``edge.ingest.listen`` owns the task that runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from edge.errors import HistoryLost
from edge.ingest.listen_messages import Resumed
from edge.ingest.listen_query import ResumePoint
from edge.session.entries import FinalEntry, decode_entry
from edge.session.ledger import Ledger
from edge.session.store.follower import Follower
from edge.session.store.interface import Entry


class LogListener(Protocol):
    """Who is told; called on the event loop, must not block."""

    def resumed(self, message: Resumed) -> None:
        """From where the log is told: first of all, and again if its history is lost."""
        ...

    def logged(self, entry: FinalEntry, epoch: str, offset: int) -> None:
        """A final of the speaker is in the log."""
        ...


class LogReader:
    """Tells one client of the finals of one speaker in a session's log."""

    def __init__(self, ledger: Ledger, session: str, speaker: str) -> None:
        self._ledger = ledger
        self._session = session
        self._speaker = speaker

    async def run(
        self, resume: ResumePoint | None, listener: LogListener, on_current: Callable[[], None]
    ) -> None:
        """Tell what follows ``resume``, call ``on_current``, and go on until cancelled.

        Without a point to resume from what is in the log already is passed over. Raises
        ``SessionDeleted``, and ``StoreError`` while the store is away.
        """
        await self._ledger.exists(self._session)
        head = await self._ledger.store.head(self._session)
        current = head.head if head else 0
        if resume is None and head is not None:
            resume = ResumePoint(head.epoch, head.head)
        while True:
            epoch, offset = (resume.epoch, resume.offset) if resume else ("", 0)
            async with self._ledger.followers.follow(self._session, epoch, offset) as follower:
                listener.resumed(
                    Resumed(
                        recovered=follower.recovered, epoch=follower.epoch, offset=follower.offset
                    )
                )
                while follower.offset < current:
                    self._tell(await follower.next(), follower, listener)
                on_current()
                try:
                    while True:
                        self._tell(await follower.next(), follower, listener)
                except HistoryLost as lost:
                    resume, current = ResumePoint(follower.epoch, follower.offset), 0
                    if lost.epoch == follower.epoch:
                        raise

    def _tell(self, entries: Sequence[Entry], follower: Follower, listener: LogListener) -> None:
        for entry in entries:
            body = decode_entry(entry.body)
            if isinstance(body, FinalEntry) and body.speaker == self._speaker:
                listener.logged(body, follower.epoch, entry.offset)
