"""One worker's gateway: takes upgrades, carries sessions and tracks, drains them.

``edge.compose`` builds it and the server calls it; everything else of a worker hangs on it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from edge.asr.breaker import Breakers
from edge.asr.interface import StreamRequest
from edge.asr.registry import Recognizers, aliases
from edge.asr.settings import SupervisorSettings
from edge.asr.supervisor import Supervisor
from edge.asr.transcript import Transcript
from edge.audio.origin import MediaOrigin
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack
from edge.ingest.interface import (
    ClientProtocol,
    LeaveTaking,
    Refusal,
    UpgradeRequest,
    dispatch_asked,
)
from edge.logs import get_logger
from edge.session import traces
from edge.session.attachment import Attachment
from edge.session.dump import Dumps
from edge.session.interface import (
    Offer,
    Rights,
    SessionHost,
    SessionOutlet,
    SessionRequest,
    SpokenLine,
)
from edge.session.ledger import Ledger
from edge.session.live_track import LiveTrack
from edge.session.meters import Meters
from edge.session.metronome import Metronome
from edge.session.overview import TrackView, overview
from edge.session.playout import Playout
from edge.session.sessions import Sessions
from edge.session.settings import SessionSettings
from edge.session.stability import Stability
from edge.transport.interface import Close, Limits, Receiver

NO_DISPATCH = (
    "The dispatcher is asked for (useDispatcher, USE_DISPATCHER), but there is no way out for "
    "transcripts: set dispatch_local=on or another way of docs/dispatch.md"
)

_log = get_logger("edge.session.gateway")


class Counts(msgspec.Struct, frozen=True):
    """What a worker carries right now."""

    active: int
    """Sessions with a client."""
    detached: int
    """Sessions whose client is gone: its return, or their last finals, are awaited."""
    tracks: int


class Acceptance(msgspec.Struct, frozen=True):
    """An upgrade that is taken: who receives its messages, within which limits."""

    receiver: Receiver
    limits: Limits
    subprotocol: str | None = None
    """What is confirmed of the client's offer."""


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
        stability: Stability,
        ledger: Ledger,
        dispatches: bool = False,
    ) -> None:
        """``dispatches``: there is a way out for finals of sessions that ask for it."""
        self.settings = settings
        self.dumps = dumps
        self.stability = stability
        self.ledger = ledger
        self.offer = Offer(
            default_provider=recognizers.survey.default,
            available_providers=recognizers.survey.available,
            providers_priority=recognizers.survey.order,
            known_providers=recognizers.survey.known,
            aliases=aliases(),
            force_commit_s=supervision.force_commit_timeout_s,
            resume=settings.session_resume_enabled,
            dispatches=dispatches,
        )
        self._protocols = protocols
        self._leave_taking = [each for each in protocols if isinstance(each, LeaveTaking)]
        self._recognizers = recognizers
        self._supervision = supervision
        self._audio = audio
        self._meters = meters
        self._breakers = Breakers(supervision)
        meters.watch_dumps(dumps.counts)
        self._metronome = Metronome(self._track_failed)
        self._playout = Playout(self._track_failed)
        self.play = self._playout.add
        """Let a track that is due play when its turn among all tracks comes."""
        self._sessions = Sessions(settings, self, self._new_audio, meters)
        self._tracks = 0
        self._draining = False

    rights: Rights | None = None
    """Whoever is not asked for a credential may do anything."""

    async def start(self) -> None:
        """Acquire what all sessions share."""
        self.dumps.start()
        await self._recognizers.start()

    async def drain(self, deadline_s: float) -> None:
        """Take no more upgrades, flush all tracks, deliver their last finals.

        Returns within ``deadline_s``; sockets stay open for the caller to close.
        """
        self._draining = self.stability.is_draining = True
        began_s = time.monotonic()
        for protocol in self._leave_taking:
            protocol.draining(deadline_s)
        await self._sessions.drain(deadline_s)
        await self.ledger.flush(max(1.0, deadline_s - (time.monotonic() - began_s)))
        for protocol in self._leave_taking:
            await protocol.stop()

    async def stop(self) -> None:
        """Release everything, after the last socket has closed; what still waits is aborted."""
        await self._sessions.stop()
        self._metronome.stop()
        self._playout.stop()
        await self._recognizers.stop()
        await self.dumps.stop()
        await self.ledger.stop()

    def upgrade(
        self, request: UpgradeRequest, host: SessionHost | None = None
    ) -> Refusal | Acceptance:
        """Decide over a WebSocket upgrade; ``host`` is what its connection sees of this gateway."""
        if self._draining:
            return Refusal(503, "Draining")
        asked = dispatch_asked(request.query)
        dispatches = self.settings.use_dispatcher if asked is None else asked
        if dispatches and not self.offer.dispatches:
            return Refusal(400, NO_DISPATCH)
        protocol = next(each for each in self._protocols if each.matches(request))
        answer = protocol.accept(request, host or self)
        if isinstance(answer, Refusal):
            return answer
        receiver = self.stability.watched(answer)
        return Acceptance(receiver, protocol.limits, protocol.subprotocol)

    def counts(self) -> Counts:
        """What this worker carries."""
        return Counts(self._sessions.active, self._sessions.detached, self._tracks)

    def tracks(self) -> list[TrackView]:
        """What each of its tracks does just now."""
        return overview(self._metronome.members)

    def breakers(self) -> dict[str, bool]:
        """Whether the breaker of each recognizer that was tried is open."""
        return self._breakers.open_by_name()

    def has_room(self, session_id: str | None, speaker: str | None = None) -> bool:
        """Whether such a connection can be taken; coming back takes no room."""
        return self._sessions.has_room(session_id, speaker)

    def resumes(self, session_id: str | None, speaker: str | None = None) -> bool:
        """Whether such a connection would go on with tracks there are."""
        return self._sessions.known(session_id, speaker) is not None

    def problem(self, request: SessionRequest) -> str | None:
        """Why the recognizer of such a session would refuse it."""
        best = self._recognizers.choices(request.provider)[0]
        return best.problem(_stream_request("", request))

    def attach(self, request: SessionRequest, outlet: SessionOutlet) -> Attachment | None:
        """A client's place in its session, opened now if need be; None while draining."""
        asked = request.use_dispatcher
        asked = self.settings.use_dispatcher if asked is None else asked
        request = msgspec.structs.replace(request, use_dispatcher=asked and self.offer.dispatches)
        provider = request.provider or self.offer.default_provider
        attachment = self._sessions.attach(request, outlet, provider)
        if attachment is not None and attachment.request.use_dispatcher:
            _log.info(f"Using dispatcher for sessionId: {attachment.session.name}")
        return attachment

    def release(self, attachment: Attachment, close: Close) -> None:
        """A connection is over: its session waits for the client, or is flushed and forgotten."""
        self._sessions.release(attachment, close)

    def open_track(self, track: LiveTrack, request: SessionRequest) -> Supervisor | None:
        """Attach a recognizer and the metronome; None when the worker is full."""
        if self._tracks >= self.settings.max_tracks or self._draining:
            return None
        self._tracks += 1
        if request.quota is not None:
            request.quota.open(track)
        self._meters.track_opened(track.audio.stats)
        traces.track_opened(track, track.session_span)
        self._metronome.add(track, track.audio.intake.order, track.audio.tick)
        return Supervisor(
            track.audio,
            self._recognizers.choices(request.provider),
            self._breakers,
            self._supervision,
            _stream_request(track.tag, request),
            track,
            traces.observed(self._meters.recognizers, track),
            track.repeats,
            track.engine if track.owner and track.owner.on_message else None,
        )

    def close_track(self, track: LiveTrack) -> None:
        """Forget a track that has finished."""
        self._tracks -= 1
        if track.quota is not None:
            track.quota.close(track)
        self._metronome.remove(track)
        self._meters.track_closed(track.audio.stats)
        traces.track_closed(track)

    def delivered(self, track: LiveTrack, transcript: Transcript, *, sent: bool) -> None:
        """A transcript has been handed on; ``sent`` says that it has gone to its client."""
        if sent:
            self._meters.delivered(transcript.provider, not transcript.is_final)
        if transcript.is_final:
            behind_ms = max(0.0, track.audio.end_ms - transcript.end_ms)
            self._meters.final_latency(transcript.provider, behind_ms / 1000)
            traces.final_delivered(track, transcript, behind_ms / 1000, sent=sent)

    def caught_up(self, line: SpokenLine) -> None:
        """A final has gone to a client that was away when it came."""
        self._meters.delivered(line.transcript.provider, False)

    def _new_audio(self, origin: MediaOrigin) -> AudioTrack:
        return AudioTrack(self._audio, origin)

    def _track_failed(self, track: object, error: BaseException) -> None:
        if isinstance(track, LiveTrack):
            track.broken(error)


def _stream_request(track: str, request: SessionRequest) -> StreamRequest:
    """What a track of such a session asks of its recognizer."""
    return StreamRequest(
        track=track,
        language=request.language,
        labels=request.labels,
        mip_opt_out=request.mip_opt_out,
        custom=request.custom,
    )
