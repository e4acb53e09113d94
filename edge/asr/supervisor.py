"""Keeps one track's audio flowing to a recognizer that works, and its text flowing back.

Comes in: a track and its recognizers, best first. Goes out: interim and final transcripts in audio
time of the track; nothing said is lost or told twice while a recognizer drops and another takes
over, as long as the track still holds the audio since the last final. ``edge.session`` owns
supervisors; each owns one task.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from edge.asr.breaker import Breakers, Permit
from edge.asr.choice import Choice, Choices
from edge.asr.interface import Final, Interim, Recognizer, StreamRequest
from edge.asr.link import Link
from edge.asr.observer import NoObserver, RecognizerObserver
from edge.asr.settings import SupervisorSettings
from edge.asr.transcript import Transcript
from edge.audio.track import AudioTrack
from edge.errors import RecognizerClosed, RecognizerError, RecognizerRefused
from edge.logs import Repeats, get_logger

__all__ = ["Supervisor", "SupervisorSettings", "TranscriptListener"]

_log = get_logger("edge.asr.supervisor")

MOST_OPEN_ITEMS = 64
"""Items whose first interim's time is remembered."""


class TranscriptListener(Protocol):
    """What a supervisor tells its session; called on the event loop, must not block."""

    def interim(self, transcript: Transcript) -> None:
        """The text so far of something still being said."""
        ...

    def final(self, transcript: Transcript) -> None:
        """The finished text of something said; finals of one connection come in spoken order."""
        ...

    def failed(self, error: RecognizerError) -> None:
        """Every recognizer has refused for good; nothing follows. Called once at most."""
        ...


class Supervisor:
    """Drives the recognizers of one track.

    Retryable failures are retried for as long as the track lives, with growing pauses and down the
    list of recognizers; a refusal strikes that recognizer for this track. ``listener.failed`` is
    called when all are struck. None of the methods may be called from ``listener``.
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
    ) -> None:
        """``repeats`` takes what is logged of failures; the tracks of a connection share one."""
        self._track = track
        self._choices = Choices(choices, breakers, settings)
        self._breakers = breakers
        self._settings = settings
        self._request = request
        self._listener = listener
        self._observer = observer or NoObserver()
        self._repeats = repeats or Repeats(_log)
        self._task: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._permit: Permit | None = None
        self._choice: Choice | None = None
        self._mark_ms = 0.0
        """Audio before this has its final."""
        self._replayed_ms = 0.0
        """Where the current connection began."""
        self._first_heard_ms: dict[str, int] = {}
        """Unix ms of the first interim of each open item."""
        self._finishing = False

    def start(self) -> None:
        """Begin to connect; what the track holds by then is sent first. Later calls do nothing."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name=f"supervisor {self._request.track}"
            )

    async def finish(self, deadline_s: float) -> None:
        """End the track: flush its audio, wait for the last finals, close.

        After ``deadline_s`` seconds whatever is still open is aborted. Cancelling it stops the
        waiting only; call ``abort`` then.
        """
        self._track.finish()
        task = self._task
        if task is None:
            return
        self._finishing = True
        if self._link is not None:
            self._link.finish()
        elif not self._owes_text():
            task.cancel()
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
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _run(self) -> None:
        try:
            while (upcoming := self._choices.next(time.monotonic())) is not None:
                choice, wait_s = upcoming
                permit = None
                if wait_s <= 0:
                    permit = self._breakers.of(choice.recognizer.name).acquire(time.monotonic())
                if permit is None:
                    if self._finishing and not self._owes_text():
                        return
                    await asyncio.sleep(max(wait_s, 0.05))
                    continue
                if await self._serve(choice, permit):
                    return
            self._tell_failed(self._choices.refusal() or RecognizerRefused("no recognizer is set"))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            _log.exception("supervisor failed", track=self._request.track)
            self._tell_failed(RecognizerClosed(f"internal error: {type(error).__name__}"))

    async def _serve(self, choice: Choice, permit: Permit) -> bool:
        """One connection from its opening to its end; True when it was drained at the end."""
        link = Link(
            choice.recognizer, self._track, self._settings, self._on_transcript, self._observer
        )
        self._choice, self._permit = choice, permit
        self._replayed_ms = self._mark_ms
        try:
            error = await self._use(link)
            if error is not None:
                self._note_failure(choice, permit, error)
        finally:
            permit.abandoned()
            self._link = None
            self._first_heard_ms.clear()
            await link.close()
        return error is None

    async def _use(self, link: Link) -> RecognizerError | None:
        """Open a link and let it run; the error that ended it."""
        try:
            await link.open(self._request, self._mark_ms)
        except RecognizerError as error:
            return error
        self._link = link
        if self._finishing:
            link.finish()
        stable = asyncio.get_running_loop().call_later(self._settings.stable_after_s, self._prove)
        try:
            return await link.run()
        finally:
            stable.cancel()

    def _prove(self) -> None:
        """The current connection is good: what failed before it no longer counts."""
        choice, permit = self._choice, self._permit
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

    def _on_transcript(self, link: Link, event: Interim | Final) -> None:
        self._prove()
        try:
            if isinstance(event, Interim):
                self._take_interim(link, event)
            else:
                self._take_final(link, event)
        except Exception:
            _log.exception("a transcript could not be handed on", track=self._request.track)

    def _take_interim(self, link: Link, interim: Interim) -> None:
        if not interim.text.strip():
            return
        now_ms = time.time_ns() // 1_000_000
        if interim.item_id not in self._first_heard_ms:
            if len(self._first_heard_ms) >= MOST_OPEN_ITEMS:
                del self._first_heard_ms[next(iter(self._first_heard_ms))]
            self._first_heard_ms[interim.item_id] = now_ms
        self._observer.received(link.provider, True)
        self._listener.interim(
            Transcript(
                provider=link.provider,
                item_id=interim.item_id,
                text=interim.text,
                is_final=False,
                start_ms=self._mark_ms,
                end_ms=max(link.position_ms, self._mark_ms),
                timestamp_unix_ms=now_ms,
                confidence=interim.confidence,
                language=interim.language,
                speaker=interim.speaker,
            )
        )

    def _take_final(self, link: Link, final: Final) -> None:
        heard_ms = self._first_heard_ms.pop(final.item_id, None)
        start_ms, end_ms = link.audio_ms(final.start_ms), link.audio_ms(final.end_ms)
        link.cover(end_ms)
        if end_ms > self._mark_ms:
            self._mark_ms = end_ms
            self._track.forget(end_ms)
        if not final.text.strip() or end_ms <= self._replayed_ms:
            return
        self._observer.received(link.provider, False)
        self._listener.final(
            Transcript(
                provider=link.provider,
                item_id=final.item_id,
                text=final.text,
                is_final=True,
                start_ms=start_ms,
                end_ms=end_ms,
                timestamp_unix_ms=heard_ms or time.time_ns() // 1_000_000,
                confidence=final.confidence,
                language=final.language,
                speaker=final.speaker,
            )
        )

    def _tell_failed(self, error: RecognizerError) -> None:
        try:
            self._listener.failed(error)
        except Exception:
            _log.exception("a failure could not be handed on", track=self._request.track)

    def _owes_text(self) -> bool:
        """Whether something was said that has no final yet."""
        return self._track.speech_since(self._mark_ms)
