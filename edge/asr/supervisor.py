"""Keeps one track's audio flowing to a recognizer that works, and its text flowing back.

Comes in: a track and its recognizers, best first. Goes out: interim and final transcripts in audio
time of the track; nothing said is lost or told twice while a recognizer drops and another takes
over, as long as the track still holds the audio since the last final. ``edge.session`` owns
supervisors; each owns one task.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec

from edge.asr.breaker import Breakers, Permit
from edge.asr.choice import Choice, Choices
from edge.asr.interface import EngineMessage, Final, Interim, Recognizer, StreamRequest
from edge.asr.link import WARM_UP_MS, Link
from edge.asr.observer import NoObserver, RecognizerObserver
from edge.asr.settings import SupervisorSettings
from edge.asr.standing import Activity, Standing
from edge.asr.teller import Teller, TranscriptListener
from edge.asr.turn_ends import TurnEnds
from edge.audio.track import AudioTrack
from edge.errors import RecognizerClosed, RecognizerError, RecognizerRefused
from edge.logs import Repeats, get_logger

__all__ = ["Activity", "Standing", "Supervisor", "SupervisorSettings", "TranscriptListener"]

_log = get_logger("edge.asr.supervisor")

PRE_ROLL_MS = 1000.0
"""Quiet before the first sound that a recognizer gets when it opens again."""


class Supervisor:
    """Drives the recognizers of one track.

    Retryable failures are retried for as long as the track lives, with growing pauses and down the
    list of recognizers; a refusal strikes that recognizer for this track. ``listener.failed`` is
    called when all are struck. A better recognizer that comes back is used by new tracks, and by
    this one when its connection is next opened: it is not moved amid a talk.
    None of the methods may be called from ``listener``, but for ``share``.
    """

    def __init__(
        self,
        track: AudioTrack,
        choices: Sequence[Recognizer],
        breakers: Breakers,
        settings: SupervisorSettings,
        request: StreamRequest,
        listener: TranscriptListener,
        observer: RecognizerObserver | None = None,
        repeats: Repeats | None = None,
        on_message: Callable[[EngineMessage], None] | None = None,
    ) -> None:
        """``repeats`` takes what is logged of failures; the tracks of a connection share one.

        ``on_message`` is told what the service itself says, in audio times of the track, where a
        recognizer has messages; of others, and with an empty body, only that it is connected.
        """
        self._track = track
        self._choices = Choices(choices, breakers, settings, request)
        self._breakers = breakers
        self._settings = settings
        self._request = msgspec.structs.replace(request, verbatim=on_message is not None)
        self._on_message = on_message
        self._listener = listener
        self._observer = observer or NoObserver()
        self._turn_ends = TurnEnds()
        self._teller = Teller(listener, self._observer)
        self._repeats = repeats or Repeats(_log)
        self._task: asyncio.Task[None] | None = None
        self._is_over = False
        self._closings: set[asyncio.Task[None]] = set()
        """Connections that are being hung up; the next one does not wait for them."""
        self._link: Link | None = None
        self._permit: Permit | None = None
        """Of the connection that has not proved itself yet."""
        self._choice: Choice | None = None
        self._context: str | None = None
        self._uninterested: Link | None = None
        """The link that has no use for context."""
        self._finish_by_s: float | None = None
        self._idle = False
        """Whether the recognizer was closed because nothing was said."""
        self._sleeper: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Begin to connect; what the track holds by then is sent first. Later calls do nothing."""
        if self._task is None and not self._is_over:
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name=f"supervisor {self._request.track}"
            )

    def commit(self) -> None:
        """End the turn here: ask for the text of all that was said. Never blocks.

        What no recognizer has been given yet is ended in the same place once one has.
        """
        self._track.finish()
        if not self._owes_text():
            return
        self._turn_ends.add(self._track.end_ms)
        if self._link is not None:
            self._link.end_turns()

    def share(self, context: str) -> None:
        """What others of the session have just said, for recognizers that can use it.

        It replaces what was shared before, and is told to later connections too. Never blocks.
        """
        self._context = context
        if self._link is not None:
            self._tell_context(self._link)

    def standing(self) -> Standing:
        """What it does just now."""
        link, end_ms = self._link, self._track.end_ms
        return Standing(
            activity=self._activity(link),
            provider=self._choice.recognizer.name if self._choice else "",
            backlog_ms=max(0.0, end_ms - (link.position_ms if link else self._teller.mark_ms)),
            unsent_ms=link.unsent_ms if link else 0.0,
            unsettled_ms=max(0.0, end_ms - self._teller.mark_ms),
        )

    def _activity(self, link: Link | None) -> Activity:
        if self._finish_by_s is not None:
            return "finishing"
        if self._idle:
            return "idle"
        if link is None:
            return "connecting"
        return "live" if link.is_live else "catching_up"

    async def finish(self, deadline_s: float) -> None:
        """End the track: flush its audio, wait for the last finals, close.

        A connection that fails meanwhile is replaced, too. After ``deadline_s`` seconds whatever is
        still open is aborted. Cancelling it stops the waiting only; call ``abort`` then.
        """
        self._track.finish()
        task = self._task
        if task is None:
            return
        self._finish_by_s = time.monotonic() + deadline_s
        self._choices.hurry()
        if self._link is not None:
            self._link.finish(deadline_s)
        elif not self._owes_text():
            task.cancel()
        self._wake()
        await asyncio.wait((task,), timeout=deadline_s)
        if not task.done():
            self._repeats.note(
                "last transcripts not awaited any longer",
                track=self._request.track,
                deadline_s=deadline_s,
            )
        await self.abort()

    async def abort(self) -> None:
        """Close at once; no transcript follows. Safe at any time, any number of times."""
        self._is_over = True
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
            # A task that was cancelled holds its frames by their traceback, and they hold this.
            self._task = None
        if self._closings:
            await asyncio.wait(self._closings)

    async def _run(self) -> None:
        try:
            while not self._is_done():
                if self._idle:
                    await self._await_sound()
                    continue
                upcoming = self._choices.next(time.monotonic())
                if upcoming is None:
                    refusal = self._choices.refusal()
                    self._tell_failed(refusal or RecognizerRefused("no recognizer is set"))
                    return
                choice, wait_s = upcoming
                if wait_s > 0 or not await self._serve(choice):
                    await self._sleep(max(wait_s, 0.05))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            _log.exception("supervisor failed", track=self._request.track)
            self._tell_failed(RecognizerClosed(f"internal error: {type(error).__name__}"))

    async def _await_sound(self) -> None:
        """Sleep until something is said, or the track ends."""
        if not self._owes_text():
            alarm = self._track.await_sound(PRE_ROLL_MS, self._hear_sound)
            try:
                await self._sleep(None)
            finally:
                alarm.cancel()
        self._idle = not self._owes_text()

    def _hear_sound(self) -> None:
        self._teller.settle(self._track.end_ms - PRE_ROLL_MS)
        self._wake()

    async def _serve(self, choice: Choice) -> bool:
        """One connection from its opening to its end; False if none may be opened now."""
        async with self._breakers.turnstile(choice.service):
            permit = self._breakers.of(choice.service).acquire(time.monotonic())
            if permit is None:
                return False
            self._choice, self._permit = choice, permit
            link = Link(
                choice.recognizer,
                self._track,
                self._settings,
                self._turn_ends,
                self._on_transcript,
                self._observer,
                self._on_message,
            )
            try:
                error = await self._connect(link, choice.recognizer)
            except BaseException:
                permit.abandoned()
                self._leave(link)
                raise
        try:
            if error is None:
                error = await self._use(link)
            if error is not None:
                self._note_failure(choice, permit, error)
        finally:
            permit.abandoned()
            self._leave(link)
        return True

    async def _connect(self, link: Link, recognizer: Recognizer) -> RecognizerError | None:
        """Open a link where the last one left off; the error if that fails."""
        teller, limit_s = self._teller, self._settings.connect_timeout_s
        teller.begin(exact=recognizer.times == "exact")
        source = self._track.source_at(teller.mark_ms)
        request = msgspec.structs.replace(self._request, source=source)
        if self._finish_by_s is not None:
            left_s = self._finish_by_s - time.monotonic()
            limit_s = min(limit_s, max(left_s / 3, 0.1))
        try:
            await link.open(request, teller.mark_ms, limit_s)
        except RecognizerError as error:
            return error
        return None

    async def _use(self, link: Link) -> RecognizerError | None:
        """Let an open link run; the error that ended it."""
        self._link = link
        if self._context is not None:
            self._tell_context(link)
        if self._finish_by_s is not None:
            link.finish(self._finish_by_s - time.monotonic())
        stable = asyncio.get_running_loop().call_later(self._settings.stable_after_s, self._prove)
        try:
            error = await link.run()
        finally:
            stable.cancel()
        if link.settled_ms is not None:
            self._prove()
            self._teller.settle(link.settled_ms)
            self._forget()
            self._idle = self._finish_by_s is None and not self._owes_text()
        return error

    def _leave(self, link: Link) -> None:
        """Let go of a link; what it had begun to tell will be told by the next one."""
        self._link = None
        self._teller.interrupt(link.position_ms)
        link.release()
        closing = asyncio.get_running_loop().create_task(link.close())
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)

    def _prove(self) -> None:
        """The current connection is good: what failed before it no longer counts."""
        choice, permit, self._permit = self._choice, self._permit, None
        if choice is None or permit is None:
            return
        if choice.failures:
            self._repeats.note(
                "recognizer works again",
                "info",
                track=self._request.track,
                provider=choice.recognizer.name,
                failures=choice.failures,
            )
        self._choices.proved(choice)
        permit.succeeded()

    def _note_failure(self, choice: Choice, permit: Permit, error: RecognizerError) -> None:
        now_s = time.monotonic()
        provider = choice.recognizer.name
        self._observer.error(provider, error.code)
        self._choices.failed(choice, error, now_s)
        if error.retryable:
            permit.failed(now_s)
        self._repeats.note(
            f"recognizer failed: {provider} {error.code}",
            track=self._request.track,
            reason=str(error),
        )

    def _tell_context(self, link: Link) -> None:
        if self._context is None or link is self._uninterested or link.share(self._context):
            return
        self._uninterested = link
        self._repeats.note(
            f"recognizer uses no shared context: {link.provider}", track=self._request.track
        )

    def _on_transcript(self, link: Link, event: Interim | Final) -> None:
        if self._permit is not None:
            self._prove()
        try:
            if isinstance(event, Interim):
                self._teller.interim(link, event)
            else:
                self._teller.final(link, event)
                self._turn_ends.told(self._teller.mark_ms, link.ended_turns_ms)
                self._forget()
        except Exception:
            _log.exception("a transcript could not be handed on", track=self._request.track)

    def _tell_failed(self, error: RecognizerError) -> None:
        try:
            self._listener.failed(error)
        except Exception:
            _log.exception("a failure could not be handed on", track=self._request.track)

    def _forget(self) -> None:
        self._track.forget(self._teller.mark_ms - WARM_UP_MS)

    def _is_done(self) -> bool:
        """Whether the track has ended and nothing that was said lacks its final."""
        return self._finish_by_s is not None and self._link is None and not self._owes_text()

    def _owes_text(self) -> bool:
        """Whether something was said that has no final yet."""
        return self._track.speech_since(self._teller.mark_ms)

    async def _sleep(self, seconds: float | None) -> None:
        """Until that has passed or something happens."""
        loop = asyncio.get_running_loop()
        self._sleeper = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self._wake)
        try:
            await self._sleeper
        finally:
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)
