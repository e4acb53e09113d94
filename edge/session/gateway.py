"""One worker's gateway: takes upgrades, carries sessions and tracks, drains them.

``edge.compose`` builds it and the server calls it; everything else of a worker hangs on it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from edge.asr.breaker import Breakers
from edge.asr.interface import StreamRequest
from edge.asr.registry import Recognizers
from edge.asr.settings import SupervisorSettings
from edge.asr.supervisor import Supervisor
from edge.asr.transcript import Transcript
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack
from edge.ingest.interface import ClientProtocol, Refusal, UpgradeRequest
from edge.logs import get_logger
from edge.session.dump import Dumps
from edge.session.interface import Offer, SessionOutlet, SessionRequest
from edge.session.live import LiveSession, LiveTrack
from edge.session.meters import Meters
from edge.session.metronome import Metronome
from edge.session.settings import SessionSettings
from edge.transport.interface import Close, Receiver

_log = get_logger("edge.session.gateway")


class Counts(msgspec.Struct, frozen=True):
    """What a worker carries right now."""

    active: int
    """Sessions with a client."""
    detached: int
    """Sessions whose client is gone and whose last finals are still awaited."""
    tracks: int


class Acceptance(msgspec.Struct, frozen=True):
    """An upgrade that is taken: who receives its messages, and how long one may be."""

    receiver: Receiver
    max_message_bytes: int


class Gateway:
    """Sessions of one worker, and what they share.

    The last of ``protocols`` matches every path. All methods are for the event loop's thread.
    ``upgrade`` may be called between ``start`` and
    ``drain``; later calls are refused with 503.
    """

    def __init__(
        self,
        settings: SessionSettings,
        *,
        protocols: Sequence[ClientProtocol],
        recognizers: Recognizers,
        supervision: SupervisorSettings,
        audio: TrackSettings,
        dumps: Dumps,
        meters: Meters,
    ) -> None:
        self.settings = settings
        self.dumps = dumps
        self.offer = Offer(
            default_provider=recognizers.survey.default,
            available_providers=recognizers.survey.available,
            providers_priority=recognizers.survey.order,
            known_providers=recognizers.survey.known,
            force_commit_s=supervision.force_commit_timeout_s,
        )
        self._protocols = protocols
        self._recognizers = recognizers
        self._supervision = supervision
        self._audio = audio
        self._meters = meters
        self._breakers = Breakers(supervision)
        self._metronome = Metronome(self._tick_failed)
        self._active: set[LiveSession] = set()
        self._detached: set[LiveSession] = set()
        self._tracks = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._warned_of_dispatch = False

    async def start(self) -> None:
        """Acquire what all sessions share."""
        self.dumps.start()
        await self._recognizers.start()

    async def drain(self, deadline_s: float) -> None:
        """Take no more upgrades, flush all tracks, deliver their last finals.

        Returns within ``deadline_s``; sockets stay open for the caller to close.
        """
        self._draining = True
        sessions = [*self._active, *self._detached]
        endings = [
            asyncio.ensure_future(session.finish(min(deadline_s, self.settings.finish_deadline_s)))
            for session in sessions
        ]
        if endings:
            await asyncio.wait(endings, timeout=deadline_s)
        for ending in endings:
            ending.cancel()

    async def stop(self) -> None:
        """Release everything, after the last socket has closed; what still waits is aborted."""
        sessions = (*self._active, *self._detached)
        await asyncio.gather(*(session.abort() for session in sessions))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._metronome.stop()
        await self._recognizers.stop()
        await self.dumps.stop()

    def upgrade(self, request: UpgradeRequest) -> Refusal | Acceptance:
        """Decide over a WebSocket upgrade."""
        if self._draining:
            return Refusal(503, "Draining")
        if len(self._active) + len(self._detached) >= self.settings.max_sessions:
            return Refusal(503, "Overloaded")
        protocol = next(each for each in self._protocols if each.matches(request.path))
        answer = protocol.accept(request, self)
        if isinstance(answer, Refusal):
            return answer
        return Acceptance(answer, protocol.max_message_bytes)

    def counts(self) -> Counts:
        """What this worker carries."""
        return Counts(len(self._active), len(self._detached), self._tracks)

    def open_session(self, request: SessionRequest, outlet: SessionOutlet) -> LiveSession | None:
        """A new session, or None while draining."""
        if self._draining:
            return None
        if request.use_dispatcher and not self._warned_of_dispatch:
            self._warned_of_dispatch = True
            _log.warning("a client asked for dispatch, which this gateway does not do")
        session = LiveSession(
            request, outlet, self, self._new_audio, max_tags=self.settings.max_tags
        )
        self._active.add(session)
        self._meters.session_opened(request.provider or self.offer.default_provider)
        return session

    def release(self, session: LiveSession, close: Close) -> None:
        """The client is gone: flush the session's recognizers, then forget it."""
        self._active.discard(session)
        self._detached.add(session)
        task = asyncio.get_running_loop().create_task(self._retire(session, close))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def open_track(self, track: LiveTrack, request: SessionRequest) -> Supervisor | None:
        """Attach a recognizer and the metronome; None when the worker is full."""
        if self._tracks >= self.settings.max_tracks or self._draining:
            return None
        self._tracks += 1
        self._meters.track_opened(track.audio.stats)
        self._metronome.add(track, track.audio.tick)
        return Supervisor(
            track.audio,
            self._recognizers.choices(request.provider),
            self._breakers,
            self._supervision,
            StreamRequest(
                track=track.tag,
                language=request.language,
                labels=request.labels,
                mip_opt_out=request.mip_opt_out,
            ),
            track,
            self._meters.recognizers,
            track.repeats,
        )

    def close_track(self, track: LiveTrack) -> None:
        """Forget a track that has finished."""
        self._tracks -= 1
        self._metronome.remove(track)
        self._meters.track_closed(track.audio.stats)

    def delivered(self, track: LiveTrack, transcript: Transcript, *, sent: bool) -> None:
        """A transcript has been handed on; ``sent`` says that it has gone to its client."""
        if sent:
            self._meters.delivered(transcript.provider, not transcript.is_final)
        if transcript.is_final:
            behind_ms = max(0.0, track.audio.end_ms - transcript.end_ms)
            self._meters.final_latency(transcript.provider, behind_ms / 1000)

    def _new_audio(self) -> AudioTrack:
        return AudioTrack(self._audio)

    async def _retire(self, session: LiveSession, close: Close) -> None:
        try:
            await session.finish(self.settings.finish_deadline_s)
        finally:
            self._detached.discard(session)
            duration_s = time.monotonic() - session.opened_s
            self._meters.session_closed(duration_s, close.code)
            session.repeats.summarize()
            _log.info(
                "session ended",
                session=session.request.session_id,
                close_code=close.code,
                duration_s=round(duration_s, 3),
                interims=session.interims,
                finals=session.finals,
            )

    def _tick_failed(self, track: object, error: BaseException) -> None:
        if isinstance(track, LiveTrack):
            track.broken(error)
