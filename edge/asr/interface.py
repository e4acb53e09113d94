"""The contract between a track and any recognizer.

Comes in: PCM (or Opus packets) in the form the recognizer asked for. Goes out: interim and final
transcripts with audio times. The supervisor is the only caller; recognizers never see tracks,
sockets or sessions.

A recognizer is one module in ``edge.asr`` that defines a ``Recognizer`` subclass, plus one line in
``edge.asr.registry``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import msgspec

from edge.errors import RecognizerError

Source = Literal["opus", "ogg", "pcm"]
"""How a track's audio comes in: bare Opus packets, Opus packets in Ogg, or uncoded."""


class AudioWanted(msgspec.Struct, frozen=True):
    """The form of audio a recognizer takes."""

    encoding: Literal["pcm16", "opus", "ogg"] = "pcm16"
    """``pcm16``: mono 16-bit little-endian. ``opus``: packets as they came, nothing decoded.
    ``ogg``: the same packets in pages of one logical Ogg stream (RFC 7845)."""
    rate_hz: int = 24000
    """Sample rate of pcm16; one of 8000, 12000, 16000, 24000, 48000. 48000 of the others."""


class CustomEndpoint(msgspec.Struct, frozen=True):
    """A service that the client itself names, with its own key for it."""

    url: str
    key: str

    def __repr__(self) -> str:
        """Neither belongs in a log: an address may hold a key too."""
        return "CustomEndpoint(***)"


class StreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What one track asks of a recognizer when its stream opens."""

    track: str
    """Name of the track, unique in this worker; for logs and message ids only."""
    language: str | None = None
    """Language hint as the client gave it (``lang``), unchanged."""
    source: Source = "opus"
    """How the track's audio comes in; the stream was opened for what ``wants_for`` said of it."""
    labels: tuple[str, ...] = ()
    """The client's ``tag`` parameters: labels for the service's records."""
    mip_opt_out: bool | None = None
    """The client's ``deepgram_mip_opt_out``; None leaves it to the setting."""
    custom: CustomEndpoint | None = None
    """The client's own service, for a recognizer that takes one."""
    verbatim: bool = False
    """Whether the service's own messages are wanted, from a recognizer that has them."""
    is_behind: Callable[[], bool] | None = None
    """Whether audio that has come is still to be sent: if none comes, it is not for want of any."""


class Interim(msgspec.Struct, frozen=True, kw_only=True):
    """The text so far of an utterance that is still open."""

    item_id: str
    text: str
    confidence: float | None = None
    language: str | None = None
    speaker: int | None = None
    """Who of several on one track said it, where the service tells them apart."""


class Final(msgspec.Struct, frozen=True, kw_only=True):
    """The finished text of an utterance; a blank one only tells how far audio is dealt with.

    Times are milliseconds of audio since this stream's first sample. Finals may overlap, and come
    in another than the spoken order.
    """

    item_id: str
    text: str
    start_ms: float
    end_ms: float
    dealt_ms: float | None = None
    """All audio before this has its text, none of it will be needed again; None is ``end_ms``.
    Earlier than that while an item spoken before still waits for its text, or where the end is a
    guess."""
    confidence: float | None = None
    language: str | None = None
    speaker: int | None = None


class EngineMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What the service itself said, for clients that speak its language; beside other events.

    It comes before the ``Interim`` or ``Final`` that is made of it.
    """

    body: bytes
    """The JSON object as it came; empty where a recognizer has no messages of its own to give."""
    kind: str
    """``Connected``, or what happened to a turn: Flux's ``TurnInfo.event``."""
    turn: int = 0
    """The service's number of the turn, from 0 with each connection."""
    start_ms: float = 0.0
    """Where the turn's audio begins, like ``Final.start_ms``."""
    end_ms: float = 0.0
    """Up to where it has been heard."""
    is_blank: bool = True
    """Whether it holds no words."""
    provider: str = ""
    """Name of the recognizer; set on the way."""


class StreamEnded(msgspec.Struct, frozen=True, kw_only=True):
    """The stream is over and emits nothing more; ``error`` is None after a wanted close."""

    error: RecognizerError | None = None


StreamEvent = Interim | Final | EngineMessage | StreamEnded
Emit = Callable[[StreamEvent], None]
"""Called on the event loop, in order, never after ``StreamEnded``. It must not block."""


class RecognizerStream(ABC):
    """One open connection to a recognizer for one track. Not safe to share between tracks.

    A service may stop to answer without closing. Its stream is replaced, and the audio replayed,
    when ``turn_open`` holds and nothing has been heard for ``silent_limit_s`` seconds; without such
    a limit the service is asked by ``probe`` first. A stream that overrides nothing is not judged.
    """

    silent_limit_s: float | None = None
    """How long silence in an open turn proves the service dead; None if it is quiet by design."""
    heard_s: float = 0.0
    """``time.monotonic()`` when the service's newest message came, whatever it said."""

    @property
    def turn_open(self) -> bool:
        """Whether the service owes something: speech has begun, or text or an answer is due."""
        return False

    def probe(self) -> bool:
        """Ask the service for a sign of life; False if there is no way to ask. Never blocks."""
        return False

    @abstractmethod
    def send(self, audio: bytes) -> None:
        """Queue audio; never blocks and never raises. Order is kept.

        ``audio`` is a whole number of samples, one Opus packet, or whole Ogg pages, as
        ``wants_for`` said. A stream that has failed drops it: the supervisor still holds it and
        will replay it.
        """

    def send_packets(self, packets: Sequence[bytes]) -> None:
        """Queue a batch of Opus packets, as ``send`` would each; for streams that want ``opus``.

        Those that can write a batch at once override it. ``packets`` is theirs to keep.
        """
        for packet in packets:
            self.send(packet)

    @property
    @abstractmethod
    def backlog_ms(self) -> float:
        """Audio queued here and not yet handed to the network or the engine, in milliseconds."""

    @abstractmethod
    def commit(self) -> None:
        """Ask for a final of what was sent so far; never blocks. A no-op if nothing is open."""

    def share(self, context: str) -> bool:
        """Tell what others of the session have just said; whether the service can use it.

        ``context`` replaces what was shared before. Never blocks.
        """
        return False

    @abstractmethod
    async def drain(self) -> None:
        """Flush what was sent and return when its last final has been emitted.

        The caller puts a deadline around it; cancelling it leaves the stream open.
        """

    @abstractmethod
    async def close(self) -> None:
        """Release everything; ``StreamEnded`` has been emitted when it returns. Idempotent."""


class Recognizer(ABC):
    """A way to open streams; one instance per worker, shared by all its tracks."""

    name: ClassVar[str]
    """The name clients use in ``provider=``."""
    times: ClassVar[Literal["exact", "estimated"]]
    """Whether finals carry measured or estimated audio times."""
    has_messages: ClassVar[bool] = False
    """Whether its streams emit ``EngineMessage`` where that is wanted."""
    counts: msgspec.Struct | None = None
    """Integers that only grow, of what is worth knowing beside transcripts and errors."""

    @property
    @abstractmethod
    def wants(self) -> AudioWanted:
        """The audio its streams take, whatever comes in."""

    def wants_for(self, source: Source) -> AudioWanted:
        """The audio a stream takes for this source, if that makes a difference."""
        return self.wants

    def problem(self, request: StreamRequest) -> str | None:
        """Why such a request would always be refused, as far as that is known beforehand."""
        return None

    def service_of(self, request: StreamRequest) -> str:
        """The service that a stream would use; each one's failures are counted by themselves.

        There are only so many of them, whatever clients ask for.
        """
        return self.name

    @abstractmethod
    async def open(self, request: StreamRequest, emit: Emit) -> RecognizerStream:
        """Connect and return a stream ready for audio.

        Raises ``RecognizerError`` (see its subclasses for what may be retried). The caller puts a
        deadline around it; cancelling it leaves nothing open.
        """

    async def start(self) -> None:  # noqa: B027
        """Acquire what all streams share (pools, local connections). Called once per worker."""

    async def stop(self) -> None:  # noqa: B027
        """Release what ``start`` acquired, after all streams have closed."""
