"""The recorder's socket: chunks of one role of a meeting up, an answer to each frame down.

docs/recorder-protocol.md is for the authors of clients. Frames of a socket are dealt with one after
the other; other sockets, of the same role too, never wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable

import msgspec

from edge.errors import EdgescribeError, ObjectError, SessionDeleted, StoreError
from edge.ingest import meeting_frames as frames
from edge.ingest.counts import IngestCounts
from edge.ingest.interface import Refusal, UpgradeRequest
from edge.ingest.meeting_frames import Frame, FrameRefused, Sound
from edge.ingest.meeting_live import LiveRole
from edge.ingest.meeting_url import MeetingUrl, is_meeting_path, parse_meeting_url
from edge.ingest.throttle import Throttle
from edge.logs import Repeats, get_logger
from edge.meeting.book import CAPTURES, INGEST, PEOPLE
from edge.meeting.desk import Chunk, Desk, Taken
from edge.meeting.meetings import Meetings
from edge.meeting.people import capture, capture_problem, tell
from edge.meeting.records import ROLES, Utterance
from edge.meeting.sequence import ChunkRefused
from edge.meeting.status import Ingests, ingest_status
from edge.session.interface import SessionHost, SpokenLine
from edge.transport.interface import Close, Limits, Socket

MAX_MESSAGE_BYTES = 256 * 1024
MOST_WAITING = 32
"""Frames that wait for the object store before the socket is left unread."""
FEW_WAITING = 8
LEAVING = (1000, 1001, 1005)
"""Closes by which a client says that it has finished."""
STOP_WITHIN_S = 2.0
TAKEN_BACK_WITHIN_S = 2.0
"""How long the newer socket of a role may take to go."""
LOOK_S = 0.05
LOOK_EVERY_S = 1.0
"""How often an older socket that sends looks whether the newer one is still there."""

_log = get_logger("edge.ingest.meeting")


class MeetingProtocol:
    """Answers upgrades below ``/v1/audio/ws``; owns the work of its sockets."""

    limits = Limits(max_message_bytes=MAX_MESSAGE_BYTES)
    subprotocol: str | None = None

    def __init__(self, counts: IngestCounts, meetings: Meetings) -> None:
        self._counts = counts
        self._meetings = meetings
        self._works: set[asyncio.Task[None]] = set()

    def matches(self, request: UpgradeRequest) -> bool:
        """Whether it is a path of recorders."""
        return is_meeting_path(request.path)

    def accept(self, request: UpgradeRequest, host: SessionHost) -> MeetingReceiver | Refusal:
        """Validate path and query; 400 says what is wrong, 503 that the worker is full."""
        url = parse_meeting_url(request.path, request.query)
        if isinstance(url, str):
            return _refusal(400, url)
        provider = url.provider.lower()
        provider = host.offer.aliases.get(provider, provider)
        if provider and provider not in host.offer.available_providers:
            available = ", ".join(host.offer.available_providers)
            return _refusal(400, f"provider is one of {available}")
        if not host.has_room(url.session, url.role):
            return msgspec.structs.replace(_refusal(503, "Overloaded"), retry_after_s=5)
        url = msgspec.structs.replace(url, provider=provider)
        return MeetingReceiver(url, host, self._meetings, self._counts, self._keep)

    def draining(self, deadline_s: float) -> None:
        """Chunks are stored until the sockets are closed."""

    async def stop(self) -> None:
        """Finish what sockets had sent, a bounded time."""
        if self._works:
            await asyncio.wait(self._works, timeout=STOP_WITHIN_S)
            for work in self._works:
                work.cancel()
            await asyncio.gather(*self._works, return_exceptions=True)

    def _keep(self, work: asyncio.Task[None]) -> None:
        self._works.add(work)
        work.add_done_callback(self._works.discard)


class MeetingReceiver:
    """One recorder's connection."""

    def __init__(
        self,
        url: MeetingUrl,
        host: SessionHost,
        meetings: Meetings,
        counts: IngestCounts,
        keep: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self._url = url
        self._host = host
        self._meetings = meetings
        self._counts = counts
        self._keep = keep
        self._desk: Desk
        self._live: LiveRole | None = None
        self._look_s = 0.0
        self._is_told = False
        """Whether it is written that the meeting's recognizer is not there."""
        self._is_unheard = False
        """Whether chunks of it were stored while a newer socket had the role heard."""
        self._socket: Socket | None = None
        self._close: Close | None = None
        self._waiting: deque[tuple[bytes, bool, float]] = deque()
        self._is_held = False
        self._nudged = asyncio.Event()
        self._throttle: Throttle | None = None
        self._repeats = Repeats(_log)

    def opened(self, socket: Socket) -> None:
        """Nothing is said before the client speaks."""
        self._socket = socket
        self._desk = self._meetings.desks.enter(self._url.session, self._url.role)
        self._throttle = Throttle(
            socket, self._host.settings.max_events_per_s, self._counts, self._repeats
        )
        self._host.stability.welcomed(self, f"{self._url.session}/{self._url.role}")
        self._keep(asyncio.get_running_loop().create_task(self._work()))

    def message(self, data: bytes, is_text: bool) -> None:
        """A frame; it is answered in its turn."""
        now_s = time.monotonic()
        self._waiting.append((data, is_text, now_s))
        self._nudged.set()
        if self._throttle is not None:
            self._throttle.spend(1, now_s)
        if len(self._waiting) >= MOST_WAITING and self._socket:
            # The throttle resumes a socket, too.
            self._is_held = True
            self._socket.pause()

    def closed(self, close: Close) -> None:
        """What was sent before is still stored."""
        self._close = close
        self._socket = None
        if self._throttle is not None:
            self._throttle.close()
        self._nudged.set()

    # Work

    async def _work(self) -> None:
        try:
            while self._waiting or self._close is None:
                if not self._waiting:
                    self._nudged.clear()
                    await self._nudged.wait()
                    continue
                await self._answer(*self._waiting.popleft())
                if self._is_held and len(self._waiting) <= FEW_WAITING and self._socket:
                    self._is_held = False
                    self._socket.resume()
        finally:
            self._meetings.desks.leave(self._desk)
            await self._leave()
            self._repeats.summarize()

    async def _leave(self) -> None:
        close = self._close or Close(1001, "", by_peer=False)
        left = close.by_peer and close.code in LEAVING
        if left:
            await self._take_back()
        if self._live is not None:
            await self._live.end(close, left=left)

    async def _answer(self, data: bytes, is_text: bool, arrived_s: float) -> None:
        try:
            if is_text:
                await self._text(frames.parse(data), arrived_s)
            else:
                await self._chunk(frames.parse_binary(data, time.time() * 1000), arrived_s)
        except FrameRefused as refusal:
            self._fault(refusal.code, str(refusal), refusal.seq)
        except Exception as error:
            _log.error("a recorder's frame failed", exc_info=error)
            self._fault("internal", "the gateway failed on this frame; send it again")

    async def _text(self, frame: Frame, arrived_s: float) -> None:
        match frame.type:
            case "chunk":
                sound = frames.check_chunk(frame, self._url.session, self._url.role)
                await self._chunk(sound, arrived_s)
            case "hello" | "status" | "capture_status":
                await self._stored(frame)
            case "ping":
                self._send(frames.Pong(round(time.time() * 1000), self._url.role))
            case "close":
                await self._finish(frames.reason_of(frame))
            case _:
                raise FrameRefused("bad_type", "type is not one of this protocol's")

    async def _stored(self, frame: Frame) -> None:
        """Frames that look into the meeting's records."""
        try:
            if frame.type == "hello":
                await self._hello(frame)
            elif frame.type == "status":
                status = self._ingests(await self._others())
                own = msgspec.structs.asdict(getattr(status, self._url.role))
                self._send(frames.Status(**own, ingest_by_stream=status))
            else:
                await self._capture(frame)
        except EdgescribeError as error:
            raise _refused(error, None) from error

    async def _hello(self, frame: Frame) -> None:
        frames.check_role(frame, self._url.role)
        told = frame.told()
        await self._meetings.book.change(
            self._url.session, PEOPLE, lambda people: tell(people, told)
        )
        status = self._ingests(await self._others())
        await self._begin()
        self._send(
            frames.Ready(
                session_id=self._url.session,
                stream_role=self._url.role,
                ingest=getattr(status, self._url.role),
                ingest_by_stream=status,
            )
        )

    async def _capture(self, frame: Frame) -> None:
        frames.check_role(frame, self._url.role)
        payload = frame.payload
        if not isinstance(payload, dict):
            raise FrameRefused("bad_payload", "payload is an object")
        if problem := capture_problem(payload):
            raise FrameRefused("bad_payload", problem)
        changed = await self._meetings.book.change(
            self._url.session, CAPTURES, lambda all_: capture(all_, self._url.role, payload)
        )
        self._send(frames.CaptureAck(self._url.role, changed.value.of(self._url.role)))

    async def _chunk(self, sound: Sound, arrived_s: float) -> None:
        try:
            taken = await self._take(sound, arrived_s)
        except (ChunkRefused, ObjectError, StoreError) as error:
            raise _refused(error, sound.seq) from error
        ingest = taken.ingest
        self._counts.audio_packets += 1
        self._send(
            frames.Ack(
                stream_role=self._url.role,
                seq=sound.seq,
                status=taken.status,
                key=taken.key if taken.status == "stored" else msgspec.UNSET,
                last_seq=ingest.last_seq,
                missing_count=ingest.missing_chunks,
                duplicate_count=ingest.duplicate_chunks,
            )
        )

    async def _take(self, sound: Sound, arrived_s: float) -> Taken:
        """Put a chunk down, and let the recognizer have it."""
        desk = self._desk
        if await desk.has(sound.seq):
            # Said before its audio is looked at: what is held already need not come whole.
            return await desk.repeat(sound.seq)
        pcm = sound.pcm()
        chunk = Chunk(seq=sound.seq, pcm=pcm, timestamp_ms=sound.timestamp_ms)
        await self._begin()
        taken = await desk.take(chunk, self._live.sent_seq if self._live else 0)
        if taken.status == "stored":
            self._counts.audio_bytes += len(pcm)
            self._meetings.windows.chunk_stored(self._url.session, self._url.role)
            if self._live is not None:
                self._is_unheard = not self._live.is_open
                self._live.stored(sound.seq, pcm, arrived_s)
        return taken

    async def _begin(self) -> None:
        """Have the role recognized as it is spoken, by this socket from now on."""
        if self._live is not None and not await self._is_free(self._live):
            return
        provider = self._url.provider
        with contextlib.suppress(StoreError):
            people = await self._meetings.book.read(self._url.session, PEOPLE)
            provider = provider or people.provider
        known = self._meetings.recognition(provider)
        if not known.enabled or known.mode != "realtime":
            return
        offer = self._host.offer
        provider = offer.aliases.get(provider.lower(), provider.lower())
        if provider and provider not in offer.available_providers:
            self._unavailable(provider)
            return
        asked = self._url.use_dispatcher
        live = LiveRole(self._host, self._meetings, self._desk, provider, self._tell, asked)
        if problem := live.begin():
            self._repeats.note("a meeting is not recognized", reason=problem)
            return
        self._live = live

    def _unavailable(self, provider: str) -> None:
        """The meeting's recognizer was taken from the gateway after it had been chosen."""
        if self._is_told:
            return
        self._is_told = True
        self._meetings.progress.state(
            self._url.session,
            self._url.role,
            "error",
            f"the recognizer {provider} is not available",
        )

    async def _is_free(self, live: LiveRole) -> bool:
        """Whether the newer socket has gone that had taken the role over from this one."""
        now_s = time.monotonic()
        if live.is_open or now_s < self._look_s:
            return False
        self._look_s = now_s + LOOK_EVERY_S
        with contextlib.suppress(StoreError):
            return not await self._meetings.is_fed(self._url.session, self._url.role)
        return False

    async def _finish(self, reason: str) -> None:
        await self._take_back()
        if self._live is not None:
            await self._live.finish()
        self._send(frames.Closing(reason, self._url.role))
        if self._socket is not None:
            self._socket.close(1000, reason)
        if self._live is not None:
            await self._live.end(Close(1000, reason, by_peer=True), left=True)

    async def _take_back(self) -> None:
        """Have what is unheard recognized, if the newer socket goes as this one does."""
        give_up_s = time.monotonic() + TAKEN_BACK_WITHIN_S
        while self._is_unheard:
            self._look_s = 0.0
            await self._begin()
            if time.monotonic() > give_up_s or (self._live and self._live.is_open):
                return
            await asyncio.sleep(LOOK_S)

    async def _others(self) -> dict[str, object]:
        """The ingest records of all roles."""
        found: dict[str, object] = {self._url.role: await self._desk.status()}
        for role in ROLES:
            if role != self._url.role:
                found[role] = await self._meetings.book.read(self._url.session, INGEST[role])
        return found

    def _ingests(self, records: dict[str, object]) -> Ingests:
        session = self._url.session
        return Ingests(
            **{role: ingest_status(session, role, records[role]) for role in ROLES}  # type: ignore[arg-type]
        )

    def _tell(self, line: SpokenLine, said: Utterance | None) -> bool:
        """Pass on what was said, to a client that wants to hear it."""
        if not self._url.transcripts or not line.transcript.text:
            return False
        return self._send(
            frames.Heard(
                stream_role=self._url.role,
                text=line.transcript.text,
                is_final=line.transcript.is_final,
                start_ms=round(line.start_ms),
                end_ms=round(line.end_ms),
                utterance_id=said.utterance_id if said else msgspec.UNSET,
            )
        )

    def _fault(self, code: str, detail: str, seq: int | None = None) -> None:
        self._host.stability.error(self)
        self._counts.bad_events += 1
        self._send(
            frames.Fault(detail=detail, code=code, seq=msgspec.UNSET if seq is None else seq)
        )

    def _send(self, frame: msgspec.Struct) -> bool:
        return self._socket is not None and self._socket.send_text(frames.encode(frame))


def _refused(error: Exception, seq: int | None) -> FrameRefused:
    """What a client is told of a store's failure: never what is inside."""
    match error:
        case FrameRefused():
            return error
        case ChunkRefused():
            return FrameRefused(error.code, str(error), seq)
        case SessionDeleted():
            return FrameRefused("deleted", "the meeting was deleted", seq)
        case ObjectError():
            _log.warning("a chunk could not be stored", reason=str(error))
            detail = "the object store does not take the chunk; send it again"
            return FrameRefused("objects_unavailable", detail, seq)
        case _:
            _log.warning("a meeting's records cannot be reached", reason=str(error))
            return FrameRefused("store_unavailable", "the store does not answer; try again", seq)


class _Detail(msgspec.Struct, frozen=True):
    detail: str


def _refusal(status: int, detail: str) -> Refusal:
    return Refusal(status, frames.encode(_Detail(detail)).decode())
