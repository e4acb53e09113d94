"""``/transcribe``: media servers that send each participant's packets as JSON events.

The hot path is one native pass over an event and one call on the tag's track; every other shape of
message goes through ``edge.ingest.events``. Nothing a client sends closes its connection except
a message over the size limit.
"""

from __future__ import annotations

import asyncio
import time

from msgspec import structs

from _native.envelope import scan_media
from _native.intake import MediaIntake
from edge.audio.container import UnusableContainer
from edge.ingest.counts import IngestCounts
from edge.ingest.events import (
    BadEvent,
    ErrorEvent,
    Media,
    PeerInfo,
    Ping,
    Pong,
    SessionEnd,
    Start,
    decode_event,
    encode_message,
)
from edge.ingest.formats import announced, container_of
from edge.ingest.interface import Refusal, UpgradeRequest
from edge.ingest.media_answers import info_of, result_of
from edge.ingest.query import MediaQuery, parse_media_query
from edge.ingest.throttle import Throttle
from edge.logs import Repeats, get_logger
from edge.session.attachment import Attachment
from edge.session.interface import (
    CustomEndpoint,
    SessionHost,
    SessionRequest,
    SpokenLine,
    TagFailure,
)
from edge.session.live_track import LiveTrack
from edge.transport.interface import Close, Limits, Socket

PATH_END = "/transcribe"
MAX_MESSAGE_BYTES = 64 * 1024
EVENT_MS = 20.0
"""Audio that one event may bring; more (a long packet, a gap to fill) counts as more events."""
KEY_HEADER = "x-custom-openai-api-key"
"""The key of the service in ``openaiCustomUrl``."""
OPENING_EVENTS = 10.0
"""What opening a tag counts beside the event that does it: a recognizer is connected."""
REFUSAL_EVENTS = 250.0
"""What a container that cannot be used counts: all of it may have been searched for audio."""

_log = get_logger("edge.ingest.media")


class MediaProtocol:
    """Answers upgrades of any path that ends with ``/transcribe``."""

    limits = Limits(max_message_bytes=MAX_MESSAGE_BYTES)
    subprotocol: str | None = None

    def __init__(self, counts: IngestCounts) -> None:
        self.counts = counts

    def matches(self, request: UpgradeRequest) -> bool:
        """Whether the path ends with ``/transcribe``; a prefix is allowed."""
        return request.path.endswith(PATH_END)

    def accept(self, request: UpgradeRequest, host: SessionHost) -> MediaReceiver | Refusal:
        """Validate the query in the order media servers know; see docs/media-protocol.md."""
        query = parse_media_query(request.query)
        if isinstance(query, str):
            return Refusal(400, query)
        settings = host.settings
        if not settings.enable_transcribe:
            return Refusal(404, "Transcription endpoint disabled")
        dispatch = settings.use_dispatcher if query.use_dispatcher is None else query.use_dispatcher
        if not (query.finals or query.interims or dispatch):
            return Refusal(400, "No transcription output method specified")
        if not host.has_room(query.session_id):
            return Refusal(503, "Overloaded")
        if query.provider is not None:
            provider = host.offer.aliases.get(query.provider, query.provider)
            query = structs.replace(query, provider=provider)
        key = request.headers.get(KEY_HEADER, "")
        custom = CustomEndpoint(query.custom_url or "", key) if query.custom_url or key else None
        return MediaReceiver(query, host, self.counts, dispatch=dispatch, custom=custom)


class MediaReceiver:
    """One media server's connection: its session, its answers, its limits."""

    def __init__(
        self,
        query: MediaQuery,
        host: SessionHost,
        counts: IngestCounts,
        *,
        dispatch: bool,
        custom: CustomEndpoint | None = None,
    ) -> None:
        self._query = query
        self._host = host
        self._dumps = host.dumps
        self._counts = counts
        self._dispatch = dispatch
        self._custom = custom
        self._socket: Socket | None = None
        self._session: Attachment | None = None
        """Where messages go; None while there is none and once another connection is there."""
        self._attachment: Attachment | None = None
        self._intake: MediaIntake | None = None
        """Takes packets that nothing is remarkable about; the rest comes as messages."""
        self._throttle: Throttle | None = None
        self._repeats = Repeats(_log)
        self._ending: asyncio.Task[None] | None = None

    def opened(self, socket: Socket) -> None:
        """Check the provider, open or resume the session, introduce the gateway."""
        self._socket = socket
        request = SessionRequest(
            session_id=self._query.session_id,
            provider=self._query.provider,
            language=self._query.language,
            labels=self._query.labels,
            custom=self._custom,
            mip_opt_out=self._query.mip_opt_out,
            use_dispatcher=self._dispatch,
            container=container_of(self._query.encoding),
            terms=self._query,
        )
        resumes = self._host.resumes(self._query.session_id)
        problem = None if resumes else self._provider_problem() or self._host.problem(request)
        if problem is not None:
            socket.close(1002, problem)
            return
        attachment = self._host.attach(request, self)
        if attachment is None:
            socket.close(1013, "This worker takes no more sessions")
            return
        self._session = self._attachment = attachment
        self._throttle = Throttle(
            socket, self._host.settings.max_events_per_s, self._counts, self._repeats
        )
        if not self._dumps.messages:
            self._intake = MediaIntake(attachment.tracks)
            socket.hand_over(self._intake, self._taken)
        if isinstance(terms := attachment.request.terms, MediaQuery):
            self._query = terms
        if self._query.info:
            socket.send_text(encode_message(info_of(self._host, attachment.request)))
        self._host.stability.welcomed(self, self._query.session_id or "")
        attachment.catch_up()

    def message(self, data: bytes, is_text: bool) -> None:
        """Take one event; text and binary frames alike may hold JSON."""
        session = self._session
        if session is None:
            return
        now_s = time.monotonic()
        if self._dumps.messages:
            self._dumps.incoming(self._query.session_id, data)
        self._spend(1.0, now_s)
        scanned = scan_media(data)
        if scanned is None:
            self._other(session, data, now_s)
            return
        tag, chunk, timestamp, payload = scanned
        self._packet(session, tag, chunk, timestamp, payload, now_s)

    def closed(self, close: Close) -> None:
        """Whatever the reason: the session decides whether the client is waited for."""
        self._socket = None
        self._repeats.summarize()
        if self._throttle is not None:
            self._throttle.close()
            self._throttle = None
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        self._session = None
        if self._attachment is not None:
            self._host.release(self._attachment, close)
            self._attachment = None

    @property
    def is_open(self) -> bool:
        """Whether what is sent now can still reach the client."""
        return self._socket is not None and self._socket.is_open

    def deleted(self) -> None:
        """The session was deleted over HTTP."""
        self._session = None
        if self._socket is not None:
            self._socket.close(4004, "The session was deleted")

    def command(self, op: str, body: bytes) -> bytes | None:
        """Commands are for speakers of their own."""
        return None

    def superseded(self) -> None:
        """A newer connection has the session: take nothing more, and say so."""
        self._session = None
        if self._socket is not None:
            self._socket.close(4009, "Superseded by a newer connection of this session")

    def transcript(self, line: SpokenLine) -> bool:
        """Send a result if the client asked for its kind; record it if finals are recorded."""
        is_final = line.transcript.is_final
        wanted = self._query.finals if is_final else self._query.interims
        recorded = is_final and self._dumps.transcripts
        if not (wanted or recorded):
            return False
        message = encode_message(result_of(line, self._query.times))
        sent = wanted and self._socket is not None and self._socket.send_text(message)
        if recorded:
            self._dumps.final(self._query.session_id, message)
        return sent

    def record(self, line: SpokenLine) -> bool:
        """Record a final that no client is there for; whether it has to be sent later."""
        is_final = line.transcript.is_final
        if is_final and self._dumps.transcripts:
            message = encode_message(result_of(line, self._query.times))
            self._dumps.final(self._query.session_id, message)
        return is_final and self._query.finals

    def missed(self, line: SpokenLine) -> bool:
        """Send a final that came while the client was away; whether the connection took it."""
        message = encode_message(result_of(line, self._query.times))
        return self._socket is not None and self._socket.send_text(message)

    def tag_failed(self, failure: TagFailure) -> None:
        """Tell the client, if it understands, that this tag is over."""
        self._repeats.note(f"tag refused: {failure.code}", reason=failure.message)
        self._host.stability.error(self)
        if self._query.errors and self._socket is not None:
            error = ErrorEvent(code=failure.code, message=failure.message, tag=failure.tag)
            self._socket.send_text(encode_message(error))

    def _provider_problem(self) -> str | None:
        provider = self._query.provider
        if provider is None:
            return None
        known, available = self._host.offer.known_providers, self._host.offer.available_providers
        if provider not in known:
            return f"Invalid provider: {provider}. Valid providers are: {', '.join(known)}"
        if provider not in available:
            return (
                f"Provider '{provider}' is not available. "
                f"Available providers: {', '.join(available)}"
            )
        return None

    def _taken(self) -> float:
        """The intake has taken packets: count them, and let tracks play that are due.

        Returns the seconds of audio until the next batch of a track is complete.
        """
        intake, throttle = self._intake, self._throttle
        assert intake is not None and throttle is not None
        packets, size, events, rest_s = intake.settle()
        self._counts.audio_packets += packets
        self._counts.audio_bytes += size
        for track in intake.due:
            self._host.play(track)
            rest_s = min(rest_s, track.audio.batch_ms / 1000)
        intake.due.clear()
        now_s = time.monotonic()
        throttle.spend(events, now_s)
        if intake.crowded:
            tracks = self._session.tracks.values() if self._session else ()
            throttle.wait_for(intake.crowded, now_s, tracks)
            intake.crowded.clear()
        return rest_s

    def _packet(
        self,
        session: Attachment,
        tag: str,
        chunk: int | None,
        timestamp: int | None,
        payload: bytes,
        now_s: float,
    ) -> None:
        track = session.tracks.get(tag) or self._open_track(session, tag, now_s)
        if track is None:
            self._counts.refused_packets += 1
            return
        self._counts.audio_packets += 1
        self._counts.audio_bytes += len(payload)
        audio = track.audio
        before_ms, before = audio.end_ms, audio.stats.received
        try:
            track.packet(chunk, timestamp, payload, now_s)
        except UnusableContainer as error:
            session.refuse(tag, "bad_format", f"this is no audio of the format announced: {error}")
            self._spend(REFUSAL_EVENTS, now_s)
        except Exception as error:
            track.broken(error)
        brought = max((audio.end_ms - before_ms) / EVENT_MS, audio.stats.received - before)
        if brought > 1.0:
            self._spend(brought - 1.0, now_s)
        if audio.crowding >= 1.0 and self._throttle is not None:
            self._throttle.wait_for((track,), now_s, session.tracks.values())

    def _open_track(self, session: Attachment, tag: str, now_s: float) -> LiveTrack | None:
        track = session.track(tag)
        if track is not None:
            self._spend(OPENING_EVENTS, now_s)
        return track

    def _other(self, session: Attachment, data: bytes, now_s: float) -> None:
        try:
            event = decode_event(data)
        except BadEvent as problem:
            self._counts.bad_events += 1
            self._repeats.note(f"bad event: {problem}")
            return
        match event:
            case Media(payload=b""):
                self._counts.empty_payloads += 1
            case Media(tag, chunk, timestamp, payload):
                self._packet(session, tag, chunk, timestamp, payload, now_s)
            case Start():
                self._start(session, event, now_s)
            case Ping():
                self._pong(event)
            case SessionEnd():
                self._end(session)
            case PeerInfo():
                self._introduced(event)
            case None:
                self._counts.ignored_events += 1

    def _introduced(self, peer: PeerInfo) -> None:
        self._repeats.note(
            "client introduced itself",
            "info",
            application=peer.application,
            version=peer.version,
            region=peer.region,
        )

    def _start(self, session: Attachment, start: Start, now_s: float) -> None:
        form = announced(start, self._query.encoding)
        if isinstance(form, str):
            session.refuse(start.tag, "bad_format", form)
            return
        if start.tag not in session.tracks:
            self._spend(OPENING_EVENTS, now_s)
        session.restart(start.tag, form.pcm, container=form.container)

    def _pong(self, ping: Ping) -> None:
        if self._socket is not None:
            pong = Pong() if ping.id is None else Pong(id=ping.id)
            self._socket.send_text(encode_message(pong))

    def _end(self, session: Attachment) -> None:
        if self._ending is None:
            loop = asyncio.get_running_loop()
            self._ending = loop.create_task(self._finish(session))

    async def _finish(self, session: Attachment) -> None:
        await session.finish(self._host.settings.finish_deadline_s)
        self._ending = None
        if self._socket is not None and not session.tracks:
            self._socket.close(1000, "Session ended")

    def _spend(self, events: float, now_s: float) -> None:
        if self._throttle is not None:
            self._throttle.spend(events, now_s)
