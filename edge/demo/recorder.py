"""The client side of ``/v1/audio/ws``: what an interview recorder's desktop client sends and hears.

One socket carries one role of a meeting: chunks of one second of 16 kHz mono 16-bit samples,
numbered from 1, each answered by an ack once it is stored. Frames are those of
``docs/recorder-protocol.md``.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import msgspec
from msgspec import UNSET, UnsetType
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from _native.resample import Resampler
from edge.demo.client import (
    CONNECT_TIMEOUT_S,
    WEBSOCKET_SCHEMES,
    Disconnected,
    Unreachable,
    close_reason,
    connected,
)
from edge.demo.speech import Speech
from edge.errors import EdgescribeError

Role = Literal["mixed", "teacher", "students"]
ROLES: tuple[Role, ...] = ("mixed", "teacher", "students")
PATH = "/v1/audio/ws/"
RATE_HZ = 16000
CHUNK_BYTES = 2 * RATE_HZ
ANSWER_WITHIN_S = 10.0
CLOSE_WITHIN_S = 15.0
"""A gateway may take 10 s to hear its recognizer out before it closes."""


class Refused(EdgescribeError):
    """The gateway answered with an ``error`` frame; the message is the gateway's."""


class Unanswered(EdgescribeError):
    """The gateway did not answer in time; the message says what was waited for."""


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="hello"):
    """The first frame; a name that is not given changes nothing."""

    meeting_id: str
    stream_role: Role
    sample_rate: int = RATE_HZ
    channels: int = 1
    format: str = "pcm_s16le"
    capture_mode: str = "dual_stream"
    interviewer_name: str | UnsetType = UNSET
    teams_interviewer_name: str | UnsetType = UNSET
    teams_participants: tuple[str, ...] | UnsetType = UNSET


class Chunk(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="chunk"):
    """One second of samples; one that is ``final`` may be shorter."""

    meeting_id: str
    stream_role: Role
    seq: int
    timestamp_ms: int
    sample_rate: int = RATE_HZ
    channels: int = 1
    format: str = "pcm_s16le"
    content_b64: bytes
    final: bool | UnsetType = UNSET


class Capture(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of ``capture_status``; what is not given is not changed."""

    capture_state: str | UnsetType = UNSET
    recover_attempts: int | UnsetType = UNSET
    last_recover_at: str | UnsetType | None = UNSET
    last_recover_error: str | UnsetType | None = UNSET
    echo_suppressed_chunks: int | UnsetType = UNSET
    echo_suppression_recent_rate: float | UnsetType = UNSET


class CaptureStatus(msgspec.Struct, frozen=True, tag_field="type", tag="capture_status"):
    """How the capture of a role fares."""

    stream_role: Role
    payload: Capture


class AskStatus(msgspec.Struct, frozen=True, tag_field="type", tag="status"):
    """Asks what is stored."""

    stream_role: Role


class Close(msgspec.Struct, frozen=True, tag_field="type", tag="close"):
    """Ends the stream."""

    reason: str


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway holds of a role."""

    last_seq: int = 0
    received_chunks: int = 0
    duplicate_chunks: int = 0
    missing_chunks: int = 0
    bytes_stored: int = 0


class ServerFrame(Stored, frozen=True, kw_only=True):
    """Any frame of a gateway; members of other frames keep their defaults.

    ``status`` of an ack is ``stored`` or ``duplicate``.
    """

    type: str = ""
    ingest: Stored = Stored()
    seq: int | None = None
    status: str = ""
    key: str | None = None
    missing_count: int = 0
    duplicate_count: int = 0
    reason: str = ""
    detail: str = ""
    code: str | None = None
    text: str = ""
    is_final: bool = False
    start_ms: int | float | None = None
    end_ms: int | float | None = None


OnFrame = Callable[[ServerFrame], None]
"""Told every frame of the gateway as it comes."""

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(ServerFrame)


def recorder_url(
    address: str,
    *,
    session_id: str | None = None,
    role: Role | None = None,
    query: Mapping[str, str] | None = None,
) -> tuple[str, str, Role]:
    """The address of a role's socket, and the session and role it is of.

    ``address`` is a base (``http`` becomes ``ws``) or the whole address of a socket; what that
    names is kept unless it is given here. Without either the session is a new one and the role
    ``mixed``. Raises ``Unreachable`` for what is no such address.
    """
    problem = Unreachable(
        f"{address!r} is not a gateway's address; use http://HOST:PORT"
        f" or ws://HOST:PORT{PATH}SESSION/ROLE"
    )
    try:
        parts = urlsplit(address if "://" in address else f"ws://{address}")
        scheme, host, _ = WEBSOCKET_SCHEMES.get(parts.scheme), parts.hostname, parts.port
    except ValueError:
        raise problem from None
    base, found, named = parts.path.rstrip("/").partition(PATH.rstrip("/"))
    given_id, _, given_role = named.strip("/").partition("/")
    wanted = role or (given_role.strip().lower() or "mixed")
    known: Role | None = next((each for each in ROLES if each == wanted), None)
    if scheme is None or not host or known is None or (named and not found):
        raise problem
    session = session_id or unquote(given_id) or f"edgescribe-{secrets.token_hex(6)}"
    pairs = {**(query or {}), **dict(parse_qsl(parts.query, keep_blank_values=True))}
    path = base + PATH + quote(session, safe="") + ("" if known == "mixed" else f"/{known}")
    return urlunsplit((scheme, parts.netloc, path, urlencode(pairs), "")), session, known


def chunks_of(speech: Speech) -> Iterator[bytes]:
    """A recording as chunks; the last one holds what is left and may be shorter than a second."""
    resampler = Resampler(speech.rate_hz, RATE_HZ)
    pcm = resampler.process(speech.pcm) + resampler.flush()
    # What comes out late is cut off in front, so that seconds of the file and of the chunks agree.
    pcm = pcm[2 * resampler.delay_samples :]
    for start in range(0, len(pcm), CHUNK_BYTES):
        yield pcm[start : start + CHUNK_BYTES]


class Recorder:
    """One open socket of a role, made by ``connect``.

    ``on_frame`` is called in the listening task. A frame that refuses something fails the waits
    from then on, as does the end of the connection.
    """

    def __init__(
        self, socket: ClientConnection, session_id: str, role: Role, on_frame: OnFrame
    ) -> None:
        self.session_id = session_id
        self.role = role
        self.last_seq = 0
        """The number of the chunk that was sent last, or that the gateway had before."""
        self.acks = 0
        self.missing_count = 0
        """As the last ack said it."""
        self.refused: ServerFrame | None = None
        """The first error frame."""
        self.pending: dict[int, float] = {}
        """When each chunk that has no ack yet was sent, ``time.perf_counter``."""
        self.latest_ack_s = 0.0
        """How long the newest ack took; ``on_frame`` is called after it is set."""
        self.slowest_ack_s = 0.0
        self._socket = socket
        self._on_frame = on_frame
        self._latest: dict[str, ServerFrame] = {}
        self._changed = asyncio.Event()
        self._has_ended = False

    async def hello(
        self,
        *,
        interviewer_name: str | UnsetType = UNSET,
        participants: tuple[str, ...] | UnsetType = UNSET,
    ) -> ServerFrame:
        """Introduce the client and wait for ``ready``: numbers go on after what is stored."""
        await self.say_hello(interviewer_name=interviewer_name, participants=participants)
        ready = await self._answer("ready")
        self.last_seq = max(self.last_seq, ready.ingest.last_seq)
        return ready

    async def say_hello(
        self,
        *,
        interviewer_name: str | UnsetType = UNSET,
        participants: tuple[str, ...] | UnsetType = UNSET,
    ) -> None:
        """Introduce the client and wait for nothing."""
        self._latest.pop("ready", None)
        await self._send(
            Hello(
                meeting_id=self.session_id,
                stream_role=self.role,
                interviewer_name=interviewer_name,
                teams_participants=participants,
            )
        )

    async def chunk(self, pcm: bytes, seq: int | None = None) -> int:
        """Send a chunk, the next one unless its number is given; returns its number.

        One that is shorter than a second is marked as the last.
        """
        if seq is None:
            seq = self.last_seq + 1
        self.last_seq = max(self.last_seq, seq)
        self.pending[seq] = time.perf_counter()
        frame = Chunk(
            meeting_id=self.session_id,
            stream_role=self.role,
            seq=seq,
            timestamp_ms=time.time_ns() // 1_000_000,
            content_b64=pcm,
            final=len(pcm) < CHUNK_BYTES or UNSET,
        )
        await self._send(frame)
        return seq

    async def capture_status(self, payload: Capture) -> None:
        """Tell how the capture fares; the answer is not awaited."""
        await self._send(CaptureStatus(self.role, payload))

    async def status(self) -> ServerFrame:
        """What the gateway holds of this role."""
        self._latest.pop("status", None)
        await self._send(AskStatus(self.role))
        return await self._answer("status")

    def check(self) -> None:
        """Raise ``Refused`` if the gateway refused something, ``Disconnected`` if it has closed."""
        if self.refused is not None:
            raise Refused(f"the gateway answered: {self.refused.detail}")
        if self._has_ended:
            raise self._disconnected()

    async def all_acked(self, within_s: float = ANSWER_WITHIN_S) -> None:
        """Wait until every chunk that was sent has its ack."""
        await self.until(lambda: not self.pending, "an ack of each chunk", within_s)

    async def room(self, most: int) -> None:
        """Wait until fewer than ``most`` chunks wait for their ack."""
        await self.until(lambda: len(self.pending) < most, "acks", ANSWER_WITHIN_S)

    async def until(
        self, condition: Callable[[], bool], what: str, within_s: float = ANSWER_WITHIN_S
    ) -> None:
        """Wait until something holds, looking again after each frame; ``what`` is for errors."""
        try:
            async with asyncio.timeout(within_s):
                while not condition():
                    self.check()
                    await self._changed.wait()
        except TimeoutError:
            raise Unanswered(
                f"waited {within_s:g} s for {what}, which the gateway did not send"
            ) from None

    async def close(self, reason: str = "client-close") -> None:
        """Say that the stream ends, and wait until the gateway has closed."""
        await self._send(Close(reason))
        await self.until(lambda: self._has_ended, "the connection's end", CLOSE_WITHIN_S)
        if self._socket.close_code != 1000:
            raise self._disconnected()

    async def listen(self) -> None:
        """Take frames until the connection ends."""
        try:
            while True:
                self._take(await self._socket.recv())
        except ConnectionClosed:
            pass
        finally:
            self._has_ended = True
            self._tell()

    def _take(self, data: str | bytes) -> None:
        try:
            frame = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        match frame.type:
            case "ack":
                self.acks += 1
                self.missing_count = frame.missing_count
                self._settle(frame)
            case "error":
                self.refused = self.refused or frame
                self._settle(frame)
            case "ready" | "status":
                self._latest[frame.type] = frame
        self._on_frame(frame)
        self._tell()

    def _settle(self, frame: ServerFrame) -> None:
        sent_s = self.pending.pop(frame.seq, None) if frame.seq is not None else None
        if sent_s is not None and frame.type == "ack":
            self.latest_ack_s = time.perf_counter() - sent_s
            self.slowest_ack_s = max(self.slowest_ack_s, self.latest_ack_s)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _send(self, frame: msgspec.Struct) -> None:
        await self._socket.send(_encode(frame), text=True)

    async def _answer(self, kind: str) -> ServerFrame:
        await self.until(lambda: kind in self._latest, f"{kind!r}", ANSWER_WITHIN_S)
        return self._latest[kind]

    def _disconnected(self) -> Disconnected:
        return Disconnected(f"the gateway closed the connection: {close_reason(self._socket)}")


@asynccontextmanager
async def connect(
    address: str,
    *,
    session_id: str | None = None,
    role: Role | None = None,
    query: Mapping[str, str] | None = None,
    on_frame: OnFrame = lambda frame: None,
    timeout_s: float = CONNECT_TIMEOUT_S,
) -> AsyncIterator[Recorder]:
    """Open a role's socket for the length of the block; arguments as for ``recorder_url``.

    Raises ``Unreachable`` where it does not open, ``Disconnected`` when it breaks off.
    """
    url, session, known = recorder_url(address, session_id=session_id, role=role, query=query)
    async with connected(url, timeout_s=timeout_s) as socket:
        recorder = Recorder(socket, session, known, on_frame)
        listening = asyncio.create_task(recorder.listen())
        try:
            yield recorder
        finally:
            listening.cancel()
            await asyncio.wait([listening])
