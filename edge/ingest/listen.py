"""The plain socket: one speaker's samples up, the recognizer's own messages down.

Pages that were written for a proxy of Deepgram Flux keep working: they send 16-bit samples at
16 kHz in frames of any size, and read JSON. docs/listen-protocol.md is for their authors.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from uuid import uuid4

import msgspec

from edge.errors import SessionDeleted, StoreError
from edge.ingest.counts import IngestCounts
from edge.ingest.interface import Refusal, UpgradeRequest
from edge.ingest.listen_audio import CHUNK_MS, FORMAT, SAMPLE_BYTES, Gathering, SampleClock
from edge.ingest.listen_log import LogReader
from edge.ingest.listen_messages import Resumed, encode_message
from edge.ingest.listen_query import ListenQuery, parse_listen_query
from edge.ingest.listen_turns import Said, Teller, Turns, said
from edge.ingest.settings import ListenSettings, serves
from edge.ingest.throttle import Throttle
from edge.logs import Repeats, get_logger
from edge.session.attachment import Attachment
from edge.session.entries import FinalEntry
from edge.session.interface import (
    EngineMessage,
    SessionHost,
    SessionRequest,
    SpokenLine,
    TagFailure,
)
from edge.transport.interface import Close, Limits, Socket

MAX_MESSAGE_BYTES = 256 * 1024
"""8 s of audio at once."""
NO_RECOGNIZER = "Failed to connect to AI model"
LOG_PATIENCE_S = 5.0
"""What a speaker says now is told after so long, though the log has not been told."""
LEAVING = (1000, 1001, 1005)
"""Closes by which a client says that it has finished; browsers send no code unless told to."""

_log = get_logger("edge.ingest.listen")


class CloseStream(msgspec.Struct, frozen=True, tag="CloseStream"):
    """The one text a client may send: it will send no more audio, and waits for the last final."""


_text_decoder = msgspec.json.Decoder(CloseStream)


class ListenTerms(msgspec.Struct, frozen=True):
    """What lives as long as a speaker's tracks."""

    turns: Turns


class ListenProtocol:
    """Answers upgrades of the paths that are set; stateless but for its counts."""

    limits = Limits(max_message_bytes=MAX_MESSAGE_BYTES)
    subprotocol: str | None = None

    def __init__(self, counts: IngestCounts, settings: ListenSettings) -> None:
        self._counts = counts
        self._settings = settings

    def matches(self, request: UpgradeRequest) -> bool:
        """Whether the path is one of those that are set."""
        return serves(self._settings, request.path)

    def accept(self, request: UpgradeRequest, host: SessionHost) -> ListenReceiver | Refusal:
        """Validate the query; 400 says what is wrong, 503 that the worker is full."""
        query = parse_listen_query(request.query)
        if isinstance(query, str):
            return Refusal(400, query)
        if host.rights is not None and not host.rights.speak:
            return Refusal(403, "This credential may not speak: it has no scope ingest")
        if query.provider is not None:
            provider = host.offer.aliases.get(query.provider, query.provider)
            if provider not in host.offer.known_providers:
                known = ", ".join(host.offer.known_providers)
                return Refusal(400, f"Invalid provider: {provider}. Valid providers are: {known}")
            query = msgspec.structs.replace(query, provider=provider)
        if not host.has_room(query.session, query.speaker):
            return Refusal(503, "Overloaded", retry_after_s=5)
        return ListenReceiver(query, host, self._counts)


class ListenReceiver:
    """One page's connection."""

    def __init__(self, query: ListenQuery, host: SessionHost, counts: IngestCounts) -> None:
        self._query = query
        self._session_id = query.session or str(uuid4())
        self._host = host
        self._counts = counts
        self._socket: Socket | None = None
        self._attachment: Attachment | None = None
        self._takes = False
        """Whether audio is taken: not before there is a session, nor once it ends or is lost."""
        self._teller = Teller(Turns())
        self._clock = SampleClock()
        self._gathering = Gathering(self._play)
        self._repeats = Repeats(_log)
        self._throttle: Throttle | None = None
        self._ending: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        """Tells the client of the log."""
        self._held: list[Callable[[], object]] | None = None
        """What is to be told once the client has been told what it missed."""
        self._held_finals: set[Said] = set()

    def opened(self, socket: Socket) -> None:
        """Open the session, or go on with it, and connect its recognizer before audio comes."""
        self._socket = socket
        request = SessionRequest(
            session_id=self._session_id,
            speaker=self._query.speaker,
            provider=self._query.provider,
            language=self._query.language,
            use_dispatcher=self._query.use_dispatcher,
            terms=ListenTerms(Turns()),
        )
        provider = self._query.provider
        is_absent = provider is not None and provider not in self._host.offer.available_providers
        if is_absent or self._host.problem(request) is not None:
            socket.close(1011, NO_RECOGNIZER)
            return
        attachment = self._host.attach(request, self)
        if attachment is None:
            socket.close(1013, "This worker takes no more sessions")
            return
        self._attachment = attachment
        self._throttle = Throttle(
            socket, self._host.settings.max_events_per_s, self._counts, self._repeats
        )
        if isinstance(terms := attachment.request.terms, ListenTerms):
            self._teller = Teller(Turns() if attachment.session.is_shared else terms.turns)
        attachment.on_message = self._engine
        self._host.stability.welcomed(self, f"{self._session_id}/{self._query.speaker}")
        self._send(self._teller.greet())
        if self._query.log:
            self._held = []
            self._reading = asyncio.get_running_loop().create_task(self._read_log())
        self._later(attachment.catch_up)
        if socket.is_open:
            self._begin(socket, attachment)

    def _begin(self, socket: Socket, attachment: Attachment) -> None:
        attachment.restart(self._query.speaker, FORMAT)
        track = attachment.tracks.get(self._query.speaker)
        if track is None:
            return  # refused, and closed for it
        track.audio.batch_ms = min(track.audio.batch_ms, CHUNK_MS)
        self._takes = True
        socket.hand_over(self._gathering.intake, self._gathering.taken)

    def message(self, data: bytes, is_text: bool) -> None:
        """A frame of audio that did not come the short way, or a text."""
        if is_text:
            self._text(data)
        else:
            self._gathering.put(data)

    def closed(self, close: Close) -> None:
        """Who leaves has finished; who is lost otherwise may come back."""
        self._gathering.flush()
        self._gathering.close()
        self._socket = None
        self._takes = False
        self._repeats.summarize()
        if self._throttle is not None:
            self._throttle.close()
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        self._release_held()
        if self._attachment is not None:
            if close.by_peer and close.code in LEAVING:
                self._attachment.ended = True
            self._host.release(self._attachment, close)
            self._attachment = None

    @property
    def is_open(self) -> bool:
        """Whether what is sent now can still reach the client."""
        return self._socket is not None and self._socket.is_open

    def superseded(self) -> None:
        """A newer connection speaks for this speaker: take nothing more, and say so."""
        self._takes = False
        self._close(4009, "Superseded by a newer connection of this speaker")

    def command(self, op: str, body: bytes) -> bytes | None:
        """What an admin of the session asks: ends the turn that is open; nothing else is known."""
        if self._attachment is None:
            return None
        if op != "end_turn":
            return b"of a speaker on a plain socket only the turn can be ended"
        for track in self._attachment.tracks.values():
            if track.transcriber:
                track.transcriber.commit()
        return b""

    def deleted(self) -> None:
        """The session was deleted: nothing more of it is kept."""
        self._end(4004, "The session has been deleted")

    def transcript(self, line: SpokenLine) -> bool:
        """Send what is new of a turn."""
        if self._held is not None and line.transcript.is_final:
            self._held_finals.add(said(line))
        tell = self._teller.final if line.transcript.is_final else self._teller.interim
        return self._later(lambda: self._send(tell(line)))

    def record(self, line: SpokenLine) -> bool:
        """A turn goes on, or ends, while no client is there: the end is told later."""
        if not line.transcript.is_final:
            self._teller.unheard(line)
            return False
        self._teller.keep(line)
        return True

    def missed(self, line: SpokenLine) -> bool:
        """Send the end of a turn that came while the client was away; whether it was taken."""
        messages = list(self._teller.missed(line))
        return not messages or self._send(messages)

    def resumed(self, message: Resumed) -> None:
        """Where in its log the session is told on."""
        if self._socket is not None:
            self._socket.send_text(encode_message(message))

    def logged(self, entry: FinalEntry, epoch: str, offset: int) -> None:
        """A turn of this speaker is in the log; what was said here is told from here."""
        if (entry.item_id, entry.timestamp_unix_ms) in self._held_finals:
            self._release_held()
        self._send(self._teller.logged(entry, epoch, offset))

    def tag_failed(self, failure: TagFailure) -> None:
        """There is no recognizer any more, or no room for one."""
        self._host.stability.error(self)
        self._repeats.note(f"speaker refused: {failure.code}", reason=failure.message)
        if failure.code == "overloaded":
            self._end(1013, "This worker carries as many tracks as it may")
        elif failure.code == "quota":
            self._end(4029, failure.message)
        elif self._teller.is_connected:
            self._end(1011, "The AI model is gone")
        else:
            self._end(1011, NO_RECOGNIZER)

    def _engine(self, message: EngineMessage) -> None:
        self._later(lambda: self._send(self._teller.engine(message)))

    def _play(self, chunks: list[bytes]) -> None:
        attachment, throttle = self._attachment, self._throttle
        if not self._takes or attachment is None or throttle is None:
            self._counts.refused_packets += len(chunks)
            return
        track = attachment.track(self._query.speaker)
        if track is None:
            self._counts.refused_packets += len(chunks)
            return
        now_s = time.monotonic()
        for chunk in chunks:
            at = self._clock.place(len(chunk) // SAMPLE_BYTES, now_s)
            self._counts.audio_packets += 1
            self._counts.audio_bytes += len(chunk)
            try:
                track.packet(None, at, chunk, now_s)
            except Exception as error:
                track.broken(error)
                return
        throttle.spend(len(chunks), now_s)
        if track.audio.crowding >= 1.0:
            throttle.wait_for((track,), now_s, (track,))

    def _text(self, data: bytes) -> None:
        try:
            _text_decoder.decode(data)
        except msgspec.DecodeError:
            self._counts.bad_events += 1
            self._close(1003, "Send audio as binary frames; the only text is CloseStream")
            return
        if self._ending is None and self._attachment is not None:
            self._gathering.flush()
            self._takes = False
            self._ending = asyncio.get_running_loop().create_task(self._finish(self._attachment))

    async def _read_log(self) -> None:
        reader = LogReader(self._host.ledger, self._session_id, self._query.speaker)
        patience = asyncio.get_running_loop().call_later(LOG_PATIENCE_S, self._release_held)
        try:
            await reader.run(self._query.resume, self, self._release_held)
        except SessionDeleted:
            self.deleted()
        except StoreError as error:
            self._repeats.note("the log cannot be told", reason=str(error))
            self.resumed(Resumed(recovered=False, epoch="", offset=0))
        except Exception as error:
            _log.error("the log could not be told", exc_info=error)
        finally:
            patience.cancel()
            self._release_held()

    def _later(self, tell: Callable[[], object]) -> bool:
        """Tell now, or after what the client missed; whether it was, or will be, told."""
        if self._held is None:
            return bool(tell())
        self._held.append(tell)
        return True

    def _release_held(self) -> None:
        held, self._held = self._held, None
        self._held_finals.clear()
        for tell in held or ():
            tell()

    async def _finish(self, attachment: Attachment) -> None:
        await attachment.finish(self._host.settings.finish_deadline_s)
        self._ending = None
        self._close(1000, "Session ended")

    def _end(self, code: int, reason: str) -> None:
        self._takes = False
        if self._attachment is not None:
            self._attachment.ended = True
        self._close(code, reason)

    def _close(self, code: int, reason: str) -> None:
        if self._socket is not None:
            self._socket.close(code, reason)

    def _send(self, messages: Iterable[bytes]) -> bool:
        """Send messages; whether there were any and the connection took all."""
        sent = False
        for message in messages:
            sent = self._socket is not None and self._socket.send_text(message)
        return sent
