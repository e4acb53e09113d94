"""A client's place in a session's log: its claim, the names of its tracks, what it is still owed.

Comes in: the tracks of a ``LiveSession``. Goes out: their lines in the log, under names that nobody
else writes; what another worker could not tell the client; where the session's clock stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from secrets import token_hex
from uuid import uuid4

import msgspec

from edge.asr.transcript import Transcript
from edge.errors import Conflict, SessionDeleted, StoreError
from edge.logs import get_logger
from edge.session.claim import Holder, retrying
from edge.session.entries import FinalEntry, decode_entry
from edge.session.interface import SessionRequest, SpokenLine
from edge.session.ledger import Ledger
from edge.session.store.interface import now_ms
from edge.session.writer import TrackWriter

MEDIA_SERVER = "/transcribe"
"""The name of the claim of a client that speaks for everybody."""
TOLD = "told"
MOST_OWED = 1000
NEWEST = 50
MOST_WRITERS = 64

_log = get_logger("edge.session.place")
_mark = msgspec.json.Decoder(int).decode


class Place:
    """One ``LiveSession``'s; ``owes`` gets the finals that were said while its client was away."""

    def __init__(
        self,
        ledger: Ledger,
        request: SessionRequest,
        holder: Holder,
        owes: Callable[[list[SpokenLine]], None],
        *,
        resumable: bool,
    ) -> None:
        """Media servers that cannot come back do not take one another's place; speakers do."""
        self._ledger = ledger
        self._owes = owes
        self.session = request.session_id or str(uuid4())
        self._name = MEDIA_SERVER if request.speaker is None else request.speaker
        self._is_media = request.speaker is None
        self._posts = bool(request.use_dispatcher)
        self._apart = ""
        self._began_unix_ms = 0
        self._shift_ms = 0.0
        self._created_unix_ms: int | None = None
        self._writers: dict[str, TrackWriter] = {}
        self._told_ms = 0
        """Up to here others have told of the session's time."""
        self._tasks: set[asyncio.Task[None]] = set()
        is_named = request.session_id is not None
        is_shared = self._is_media and (
            not resumable or ledger.is_contested(self.session, self._name)
        )
        if is_named and not is_shared:
            self.claim = ledger.claim(self.session, self._name, holder)
            self._spawn(self._look_back())
        else:
            if is_named:
                self._apart = f"#{token_hex(3)}"
            self.claim = ledger.unclaimed(self.session, holder)

    def write(self, tag: str, taken: Collection[str]) -> TrackWriter:
        """The way of a tag's lines into the log; ``taken``: names of tracks that run now."""
        if not self._began_unix_ms:
            self._began_unix_ms = now_ms()
            self._set_clock()
        name = tag + self._apart
        number = 2
        while name in taken:
            name = f"{tag}{self._apart}#{number}"
            number += 1
        writer = self._writers.get(name)
        if writer is not None and not writer.is_over:
            # A second fence would cut off what the tag's last track has not stored yet.
            writer.begin()
            return writer
        self._prune()
        writer = self._writers[name] = self._ledger.write(
            self.claim, name, attends=self._is_media, posts=self._posts
        )
        return writer

    def _prune(self) -> None:
        """Forget writers that have nothing to do; tags come and go."""
        if len(self._writers) >= MOST_WRITERS:
            self._writers = {
                name: writer for name, writer in self._writers.items() if not writer.is_idle
            }

    def session_ms(self, track_ms: float) -> float:
        """A time of this client's tracks on the clock that began when the session was made."""
        return track_ms + self._shift_ms

    def track_ms(self, session_ms: float) -> float:
        """The other way round."""
        return session_ms - self._shift_ms

    def told(self) -> None:
        """The client has been told all it was owed: no other worker has to."""
        if self._is_media and self.claim.name:
            self._spawn(self._tell_others())

    async def flushed(self) -> None:
        """Return when all that its tracks said is in the log."""
        await self._ledger.flushed(self.claim)

    def leave(self) -> None:
        """Its tracks have ended."""
        for task in self._tasks:
            task.cancel()
        self._owes = _nobody
        self._ledger.release(self.claim)

    def _spawn(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _set_clock(self) -> None:
        if self._created_unix_ms is not None and self._began_unix_ms:
            passed_ms = self._began_unix_ms - self._created_unix_ms
            self._shift_ms = float(max(self._told_ms, passed_ms))

    async def _look_back(self) -> None:
        """What was before this client came to this worker."""
        try:
            async for attempt in retrying():
                with attempt:
                    found = await self._ledger.store.detail(self.session)
            if found is None:
                return
            self._told_ms = await self._last_end_ms(found.place.head)
            self._created_unix_ms = found.info.created_ms
            self._set_clock()
            if self._is_media:
                await self.claim.ready.wait()
                async for attempt in retrying():
                    with attempt:
                        owed = await self._owed()
                if owed:
                    self._owes(owed)
        except SessionDeleted:
            return
        except StoreError as error:
            _log.error("a session's past cannot be read", reason=str(error))

    async def _last_end_ms(self, head: int) -> int:
        """Where the newest finals end."""
        page = None
        async for attempt in retrying():
            with attempt:
                page = await self._ledger.store.read(self.session, max(0, head - NEWEST))
        bodies = (
            [decode_entry(entry.body) for entry in page.entries if entry.kind == "final"]
            if page
            else []
        )
        return max((body.end_ms for body in bodies if isinstance(body, FinalEntry)), default=0)

    async def _owed(self) -> list[SpokenLine]:
        store = self._ledger.store
        head = await store.head(self.session)
        if head is None:
            return []
        record = await store.get(self.session, TOLD, MEDIA_SERVER)
        after = max(_mark(record.body) if record else 0, head.tail - 1, head.head - MOST_OWED)
        owed: list[SpokenLine] = []
        while (page := await store.read(self.session, after)) and page.entries:
            after = page.entries[-1].offset
            for entry in page.entries:
                if entry.kind == "final":
                    body = decode_entry(entry.body)
                    if isinstance(body, FinalEntry) and not body.sent:
                        owed.append(_line(body))
        return owed

    async def _tell_others(self) -> None:
        """Leave a mark for the worker that the client may come to next."""
        store = self._ledger.store
        try:
            await self.flushed()
            head = await store.head(self.session)
            while head is not None:
                record = await store.get(self.session, TOLD, MEDIA_SERVER)
                body, version = str(head.head).encode(), record.version if record else 0
                try:
                    await store.put(self.session, TOLD, MEDIA_SERVER, body, version)
                    return
                except Conflict:
                    continue
        except StoreError as error:
            self._ledger.repeats.note("a mark cannot be left", reason=str(error))


def _nobody(owed: list[SpokenLine]) -> None:
    """The client is gone for good."""


def _line(final: FinalEntry) -> SpokenLine:
    """A stored final, to be told late."""
    transcript = Transcript(
        text=final.text,
        is_final=True,
        item_id=final.item_id,
        provider=final.provider,
        start_ms=float(final.start_ms),
        end_ms=float(final.end_ms),
        timestamp_unix_ms=final.timestamp_unix_ms,
        language=final.language,
        confidence=final.confidence,
        speaker=final.voice,
    )
    return SpokenLine(
        tag=final.speaker,
        transcript=transcript,
        start_ms=float(final.start_ms),
        end_ms=float(final.end_ms),
        turn=final.turn,
    )
