"""What the doors for other systems' clients have in common: a session, its tracks, its limits.

A door speaks a protocol that somebody else has designed, and feeds the same sessions and tracks as
our own ones: each is one module with a ``ClientProtocol`` and a subclass of ``Caller``.
docs/front-doors.md is for their users.
"""

from __future__ import annotations

import asyncio
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Coroutine, Mapping

from edge.audio.container import UnusableContainer
from edge.ingest.counts import IngestCounts
from edge.ingest.interface import Refusal
from edge.ingest.listen import LEAVING
from edge.ingest.throttle import Throttle
from edge.ingest.voice import Voice
from edge.logs import Repeats, get_logger
from edge.session.attachment import Attachment
from edge.session.interface import SessionHost, SessionRequest, SpokenLine, TagFailure
from edge.session.live_track import LiveTrack
from edge.transport.interface import Close, Socket

CLOSES = {"overloaded": 1013, "quota": 4029}
"""What a connection is closed with that gets no transcripts any more; whatever else is 1011."""
EVENT_MS = 80.0
"""Audio that one event may bring."""
OPENING_MS = 10 * EVENT_MS
"""What opening a track counts beside the message that does it."""

_log = get_logger("edge.ingest.door")


def provider_of(
    model: str, theirs: re.Pattern[str], known: Collection[str], aliases: Mapping[str, str]
) -> str | None:
    """The recognizer that a client's model stands for: ours by its name, any for one of ``theirs``.

    None leaves the choice to the gateway. Raises ``LookupError`` for a model that is neither.
    """
    name = aliases.get(model.lower(), model.lower())
    if name in known:
        return name
    if not model or theirs.fullmatch(model):
        return None
    raise LookupError(model)


Crowd = set["Caller"]
"""A door's open connections; there may be as many as sessions, with or without one."""


class Caller(ABC):
    """One connection of a door: the receiver of its socket and the outlet of its session."""

    def __init__(self, host: SessionHost, counts: IngestCounts, crowd: Crowd) -> None:
        self._host = host
        self._crowd = crowd
        self._counts = counts
        self._socket: Socket | None = None
        self._attachment: Attachment | None = None
        self._throttle: Throttle | None = None
        self._is_named = False
        """Whether the client named its session, and so can come back to it."""
        self._takes = False
        """Whether audio is taken: not before there is a session, nor once it ends or is lost."""
        self._repeats = Repeats(_log)
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard_s = 0.0
        self._looking: asyncio.TimerHandle | None = None

    # The socket's side

    def opened(self, socket: Socket) -> None:
        """The upgrade is done."""
        self._socket = socket
        self._crowd.add(self)
        self._throttle = Throttle(
            socket, self._host.settings.max_events_per_s, self._counts, self._repeats
        )
        self.begin()

    def message(self, data: bytes, is_text: bool) -> None:
        """One whole message."""
        self._heard_s = time.monotonic()
        if self._throttle is not None:
            self._throttle.spend(1.0, self._heard_s)
        self.take(data, is_text)

    def closed(self, close: Close) -> None:
        """Who leaves has finished; who is lost otherwise may come back, if the session has a name
        of the client's."""
        self._socket = None
        self._takes = False
        self._crowd.discard(self)
        self._repeats.summarize()
        if self._looking is not None:
            self._looking.cancel()
        if self._throttle is not None:
            self._throttle.close()
        for task in self._tasks:
            task.cancel()
        if self._attachment is not None:
            if not self._is_named or (close.by_peer and close.code in LEAVING):
                self._attachment.ended = True
            self._host.release(self._attachment, close)
            self._attachment = None

    @abstractmethod
    def begin(self) -> None:
        """The connection is open: greet the client."""

    @abstractmethod
    def take(self, data: bytes, is_text: bool) -> None:
        """Take one message."""

    @abstractmethod
    def fail(self, failure: TagFailure) -> None:
        """Tell the client in its own words that nothing more will be heard, and close."""

    # The session's side

    @property
    def is_open(self) -> bool:
        """Whether what is sent now can still reach the client."""
        return self._socket is not None and self._socket.is_open

    @abstractmethod
    def transcript(self, line: SpokenLine) -> bool:
        """Tell what was said; whether it was sent."""

    def record(self, line: SpokenLine) -> bool:
        """These clients are not told what they missed: the session's log has it."""
        return False

    def missed(self, line: SpokenLine) -> bool:
        """Never called: ``record`` keeps none."""
        return True

    def superseded(self) -> None:
        """A newer connection speaks as this speaker: take nothing more, and say so."""
        self._takes = False
        self.close(4009, "Superseded by a newer connection of this session")

    def deleted(self) -> None:
        """The session was deleted: take nothing more, and say so."""
        self._takes = False
        self.close(4004, "The session was deleted")

    def command(self, op: str, body: bytes) -> bytes | None:
        """What an admin of the session asks: ends the turn that is open; nothing else is known."""
        if self._attachment is None or op != "end_turn":
            return None
        for track in self._attachment.tracks.values():
            if track.transcriber:
                track.transcriber.commit()
        return b""

    def tag_failed(self, failure: TagFailure) -> None:
        """No recognizer will hear this client, or the worker is full."""
        self._host.stability.error(self)
        self._repeats.note(f"speaker refused: {failure.code}", reason=failure.message)
        self._takes = False
        if self._attachment is not None:
            self._attachment.ended = True
        self.fail(failure)

    # What doors use

    def attach(self, request: SessionRequest, *, is_named: bool) -> bool:
        """Open the session, or go on with it; if that cannot be, ``fail`` is called."""
        self._is_named = is_named
        problem = self._host.problem(request)
        attachment = None if problem else self._host.attach(request, self)
        if attachment is None:
            code = "recognizer_failed" if problem else "overloaded"
            message = problem or "This worker takes no more sessions"
            self.fail(TagFailure(request.speaker or "", code, message))
            return False
        self._attachment = attachment
        self._takes = True
        self._host.stability.welcomed(self, request.session_id or "")
        attachment.catch_up()
        return self._takes

    def feed(self, voice: Voice, data: bytes) -> bool:
        """Hand audio to its track; False when it is not taken. Raises ``UnusableContainer``."""
        attachment = self._attachment
        if not self._takes or attachment is None:
            self._counts.refused_packets += 1
            return False
        is_new = voice.tag not in attachment.tracks
        track = voice.track(attachment)
        if track is None:
            self._counts.refused_packets += 1
            return False
        now_s = time.monotonic()
        before_ms = voice.sent_ms
        try:
            packets = voice.feed(track, data, now_s)
        except UnusableContainer:
            raise
        except Exception as error:
            track.broken(error)
            return False
        self._counts.audio_packets += packets
        self._counts.audio_bytes += len(data)
        self.spend(track, voice.sent_ms - before_ms + is_new * OPENING_MS, now_s)
        return True

    def spend(self, track: LiveTrack, brought_ms: float, now_s: float) -> None:
        """Count what a message brought, and read no further while its track has enough to play."""
        throttle = self._throttle
        if throttle is None:
            return
        if (events := brought_ms / EVENT_MS - 1.0) > 0.0:
            throttle.spend(events, now_s)
        if track.audio.crowding >= 1.0:
            tracks = self._attachment.tracks.values() if self._attachment else ()
            throttle.wait_for((track,), now_s, tracks)

    def stream_ms(self, voice: Voice, session_ms: float) -> float:
        """How much audio a client had sent by a time of a ``SpokenLine``."""
        if self._attachment is None:
            return session_ms
        return max(0.0, voice.stream_ms(self._attachment.client_ms(session_ms)))

    def send(self, message: bytes) -> bool:
        """Send one text; whether the connection took it."""
        return self._socket is not None and self._socket.send_text(message)

    def close(self, code: int, reason: str) -> None:
        """Begin to close, after all that was sent."""
        if self._socket is not None:
            self._socket.close(code, reason)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Do something that takes time; it is cancelled when the connection is over."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """The client has said all: flush its tracks, wait for the last finals."""
        self._takes = False
        if self._attachment is not None:
            await self._attachment.finish(self._host.settings.finish_deadline_s)

    def watch(self, limit_s: float) -> None:
        """Call ``idle`` when the client sends nothing for so long."""
        if self._looking is not None:
            self._looking.cancel()
        self._heard_s = time.monotonic()
        self._look(limit_s)

    def _look(self, limit_s: float) -> None:
        left_s = self._heard_s + limit_s - time.monotonic()
        if left_s <= 0:
            self._looking = None
            self.idle()
        else:
            self._looking = asyncio.get_running_loop().call_later(left_s, self._look, limit_s)

    def idle(self) -> None:
        """The client has been silent for too long."""
        self.close(1008, "Nothing was sent for too long")


def full(
    host: SessionHost, crowd: Crowd, session_id: str | None, speaker: str | None
) -> Refusal | None:
    """The refusal of a connection that there is no room for."""
    if host.has_room(session_id, speaker) and len(crowd) < host.settings.max_sessions:
        return None
    return Refusal(503, "Overloaded", retry_after_s=5)
