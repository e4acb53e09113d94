"""Stored audio to text, window by window; and forgetting what was said.

Comes in: the chunks of a role, as far as they are stored. Goes out: an utterance for each window,
in the session's log as soon as its text is there, so that an error takes nothing along. Windows end
a hop apart; the last one of a run that was asked for ends with the audio.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from msgspec import Struct

from dispatch.messages import transcription
from edge.asr.batch import Recognized, recognize
from edge.asr.interface import Recognizer
from edge.errors import HistoryLost, ObjectError, RecognizerError, StaleFence, StoreError
from edge.logs import Repeats, get_logger
from edge.meeting import lease
from edge.meeting.audio import Piece, duration_bytes, read
from edge.meeting.book import ASR, INGEST, PEOPLE, Book
from edge.meeting.flush import flush
from edge.meeting.records import (
    CHUNK_BYTES,
    CHUNK_MS,
    RATE_HZ,
    Asr,
    Ingest,
    Role,
    Utterance,
    iso,
)
from edge.meeting.settings import MeetingSettings
from edge.meeting.spans import Span, failed, heard, joined, next_span
from edge.meeting.view import WINDOWS, Views, utterance
from edge.objects.interface import ObjectStore
from edge.session.entries import FinalEntry, ResetEntry, encode_entry
from edge.session.store.interface import Draft, Grant, SessionStore, now_ms

AT_ONCE = 4
"""Windows that a worker recognizes at the same time."""
MOST_RUNNING = 1000
"""Roles of a worker that are looked at after their chunks; others are with their next chunk."""
LEASE_SPARE_S = 15.0
LEAST_DEADLINE_S = 15.0
MESSAGE = "What was recognized is cleared; the stored chunks were kept"

_log = get_logger("edge.meeting.windows")

Said = Callable[[Utterance], None]
"""Told of each new utterance; must not block."""


class WindowsResult(Struct, frozen=True, kw_only=True):
    """What a run did, and where the role's recognition stands after it."""

    session_id: str
    stream_role: Role
    generated: int
    """Windows of this run."""
    last_window_end_seq: int
    utterance_count: int
    total_windows_processed: int
    total_audio_seconds_processed: int
    last_window_latency_ms: float
    avg_window_latency_ms: float
    avg_rtf: float
    last_error: str | None
    missing_seqs: tuple[int, ...]
    """Chunks of this run's windows that were not there: they were taken for silence."""


class ResetResult(Struct, frozen=True, kw_only=True):
    """How much was forgotten."""

    session_id: str
    stream_role: Role
    removed_raw: int = 0
    removed_merged: int = 0
    removed_events: int = 0
    message: str = MESSAGE


class Windows:
    """One worker's runs; owns those that chunks begin, until ``stop``."""

    def __init__(
        self,
        store: SessionStore,
        objects: ObjectStore,
        views: Views,
        settings: MeetingSettings,
        choices: Callable[[str], Sequence[Recognizer]],
        model_of: Callable[[str], str],
        said: Said,
        posted: Callable[[], None] | None = None,
    ) -> None:
        """``choices`` gives the recognizers of a provider (empty: any), best first, and raises
        ``KeyError`` for one that is not there; ``model_of`` their models by their own names.
        With ``posted`` utterances go to the dispatcher, and it is told that one waits."""
        self._store = store
        self._objects = objects
        self._book = Book(store)
        self._views = views
        self._settings = settings
        self._choices = choices
        self._model_of = model_of
        self._said = said
        self._posted = posted
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._deadline_s = settings.asr_timeout_ms / 1000 or LEAST_DEADLINE_S
        self._running: dict[tuple[str, Role], asyncio.Task[None]] = {}
        self._stored: set[tuple[str, Role]] = set()
        """Roles of which a chunk was stored while they were being looked at."""
        self._is_over = False
        self._repeats = Repeats(_log)

    async def stop(self) -> None:
        """End the runs that chunks began; a window that is not ready is done anew another time."""
        self._is_over = True
        tasks = tuple(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._repeats.summarize()

    def chunk_stored(self, session: str, role: Role) -> None:
        """See whether a window is complete, where roles are not recognized as they are spoken."""
        if self._settings.asr_realtime_enabled or not self._settings.asr_enabled or self._is_over:
            return
        key = session, role
        self._stored.add(key)
        if key not in self._running and len(self._running) < MOST_RUNNING:
            task = asyncio.get_running_loop().create_task(self._look(session, role))
            self._running[key] = task

    async def run(
        self, session: str, role: Role, max_windows: int = 0, *, forced: bool = True
    ) -> WindowsResult:
        """Recognize the windows that are due, at most ``max_windows`` of them if that is not 0.

        A run that is not ``forced`` gives way to others, waits after failures, and leaves the tail
        alone; a forced one takes the work of others over. Recognizers that fail end it and are
        told in ``last_error``. Raises what the session store raises.
        """
        run = _Run(self._book, session, role)
        problem = await self._begin(run)
        span = None if problem else await self._next(run, forced=forced)
        if span is not None and not run.must_wait(forced=forced):
            ttl_s = self._deadline_s + LEASE_SPARE_S
            key = f"windows/{role}"
            if held := await lease.take(self._store, session, key, ttl_s, steal=forced):
                try:
                    await self._windows(run, held, max_windows, forced=forced)
                finally:
                    await held.release()
        asr = await self._book.read(session, ASR[role])
        return WindowsResult(
            session_id=session,
            stream_role=role,
            generated=run.generated,
            last_window_end_seq=asr.last_window_end_seq,
            utterance_count=len((await self._views.of(session)).raw(role)),
            total_windows_processed=asr.total_windows_processed,
            total_audio_seconds_processed=asr.total_audio_seconds_processed,
            last_window_latency_ms=asr.last_window_latency_ms,
            avg_window_latency_ms=asr.avg_window_latency_ms,
            avg_rtf=asr.avg_rtf,
            last_error=problem or asr.last_error,
            missing_seqs=tuple(sorted(run.missing)),
        )

    async def reset(self, session: str, role: Role) -> ResetResult:
        """Forget what a role said and who said it, and how its recognition fared.

        A recognizer that runs is ended and its last words are forgotten, too; windows that are
        being recognized are given up. Chunks stay, and the next audio is recognized again.
        """
        if await self._store.head(session) is None:
            return ResetResult(session_id=session, stream_role=role)
        key = f"windows/{role}"
        held = await lease.take(self._store, session, key, self._deadline_s, steal=True)
        try:
            await flush(self._store, session, (role,))
            # Appends of whoever was recognizing windows are refused from here on.
            await self._store.open_track(session, role + WINDOWS)
            view = await self._views.of(session)
            result = ResetResult(
                session_id=session,
                stream_role=role,
                removed_raw=len(view.raw(role)),
                removed_merged=len(view.merged(role)),
                removed_events=len(view.events(role)),
            )
            await self._store.note(session, [Draft("event", encode_entry(ResetEntry(role)))])
            await self._book.change(session, ASR[role], lambda asr: Asr(updated_at=iso()))
        finally:
            if held is not None:
                await held.release()
        return result

    async def _look(self, session: str, role: Role) -> None:
        key = session, role
        try:
            while key in self._stored:
                self._stored.discard(key)
                while (await self.run(session, role, 1, forced=False)).generated:
                    pass
        except StoreError as error:
            self._repeats.note("windows have to wait for the store", reason=str(error))
        except Exception as error:
            _log.error("windows failed", session=session, role=role, exc_info=error)
        finally:
            self._stored.discard(key)
            del self._running[key]

    async def _begin(self, run: _Run) -> str | None:
        """Find out what there is to do it with; why there is nothing, if so."""
        if not self._settings.asr_enabled:
            return "Recognition is switched off: set ASR_ENABLED=true"
        people = await self._book.read(run.session, PEOPLE)
        try:
            run.recognizers = self._choices(people.provider)
        except KeyError:
            return f"The recognizer {people.provider!r} is not available"
        return None if run.recognizers else "No recognizer is available"

    async def _next(self, run: _Run, *, forced: bool) -> Span | None:
        run.ingest = await self._book.read(run.session, INGEST[run.role])
        if not run.ingest.last_seq:
            return None
        if run.done is None:
            run.asr = await self._book.read(run.session, ASR[run.role])
            # The log is right where a worker died before it could write the record.
            raw = (await self._views.of(run.session)).raw(run.role)
            ends = (each.end_seq for each in raw)
            run.done = max(run.asr.last_window_end_seq, max(ends, default=0))
        return next_span(
            run.ingest,
            run.done,
            self._settings.asr_window_seconds,
            self._settings.asr_hop_seconds,
            tail=forced,
        )

    async def _windows(
        self, run: _Run, held: lease.Lease, max_windows: int, *, forced: bool
    ) -> None:
        # Whoever had the work appends no more: what the log says from here on is all there is.
        run.grant = await self._store.open_track(run.session, run.role + WINDOWS)
        run.done = None
        while not max_windows or run.generated < max_windows:
            span = await self._next(run, forced=forced)
            if span is None:
                return
            async with self._at_once:
                if not await held.renew():
                    return
                began_s = time.monotonic()
                try:
                    piece = await self._load(run, span)
                    found = await self._recognize(run, piece.pcm)
                except (RecognizerError, ObjectError) as error:
                    if await held.renew():
                        await run.failed(str(error))
                    self._repeats.note("a window was not recognized", reason=str(error))
                    return
            latency_ms = round((time.monotonic() - began_s) * 1000)
            final = self._final(run, span, found, latency_ms)
            if not await self._append(run, held, final):
                return
            run.missing.update(piece.missing)
            run.generated += 1
            run.done = span.last
            await run.heard(span, latency_ms)
            if final.text:
                self._said(utterance(run.session, run.role, final, final.timestamp_unix_ms))

    async def _load(self, run: _Run, span: Span) -> Piece:
        return await read(self._objects, run.session, run.role, run.ingest, span.first, span.last)

    async def _recognize(self, run: _Run, pcm: bytes) -> Recognized:
        track = f"{run.session} {run.role}"
        return await recognize(run.recognizers, pcm, RATE_HZ, track, self._deadline_s)

    def _final(self, run: _Run, span: Span, found: Recognized, latency_ms: int) -> FinalEntry:
        begin_ms = (span.first - 1) * CHUNK_MS
        size = duration_bytes(run.ingest, span.first, span.last)
        at_ms = now_ms()
        return FinalEntry(
            speaker=run.role,
            turn=at_ms,
            text=joined(final.text for final in found.finals),
            start_ms=begin_ms,
            end_ms=begin_ms + size * CHUNK_MS // CHUNK_BYTES,
            timestamp_unix_ms=at_ms,
            item_id=f"window-{span.first}-{span.last}",
            provider=found.provider,
            audio_seq=span.last,
            latency_ms=latency_ms,
            model=self._model_of(found.provider) or None,
        )

    async def _append(self, run: _Run, held: lease.Lease, final: FinalEntry) -> bool:
        """Store an utterance; False when the work is another's by now."""
        drafts = [Draft("final", encode_entry(final))]
        message = self._message(run, final) if self._posted else None
        outbox = [] if message is None else [(0, message)]
        while True:
            try:
                if run.grant is None:
                    run.grant = await self._store.open_track(run.session, run.role + WINDOWS)
                    if not await held.renew():
                        return False
                await self._store.append(run.grant, drafts, outbox)
                if outbox and self._posted:
                    self._posted()
                return True
            except (StaleFence, HistoryLost):
                # Somebody took the role's place live, or took this work over: the lease tells.
                run.grant = None

    def _message(self, run: _Run, final: FinalEntry) -> bytes | None:
        return transcription(
            run.session, run.role, [final.text], final.timestamp_unix_ms, final.language
        )


class _Run:
    """One run, and what it found."""

    def __init__(self, book: Book, session: str, role: Role) -> None:
        self._book = book
        self.session = session
        self.role = role
        self.recognizers: Sequence[Recognizer] = ()
        self.ingest = Ingest()
        self.asr = Asr()
        self.done: int | None = None
        """The last chunk of the window before; what is said live meanwhile does not move it."""
        self.grant: Grant | None = None
        self.generated = 0
        self.missing: set[int] = set()

    def must_wait(self, *, forced: bool) -> bool:
        """Whether failures of late have to pass first."""
        return not forced and now_ms() < self.asr.next_retry_after_ms

    async def heard(self, span: Span, latency_ms: int) -> None:
        """Count a window."""
        await self._book.change(
            self.session, ASR[self.role], lambda asr: heard(asr, span, latency_ms)
        )

    async def failed(self, reason: str) -> None:
        """Count a failure."""
        await self._book.change(self.session, ASR[self.role], lambda asr: failed(asr, reason))
