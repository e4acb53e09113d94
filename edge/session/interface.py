"""The seams of a live session: what a client asks, what it gets, what its worker offers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from edge.asr.interface import CustomEndpoint as CustomEndpoint
from edge.asr.interface import EngineMessage as EngineMessage
from edge.asr.transcript import Transcript as Transcript
from edge.audio.container import Container
from edge.session.dump import Dumps
from edge.session.settings import SessionSettings
from edge.session.stability import Stability
from edge.transport.interface import Close

if TYPE_CHECKING:
    from edge.session.attachment import Attachment
    from edge.session.ledger import Ledger
    from edge.session.live_track import LiveTrack

_endpoint_id = re.compile(r"([0-9a-fA-F]+)-")


@lru_cache(maxsize=1024)
def participant_id(tag: str) -> str:
    """Whose tag it is: the hexadecimal part in front of the first dash, else the whole tag."""
    endpoint = _endpoint_id.match(tag)
    return endpoint[1] if endpoint else tag


class Measured(msgspec.Struct, frozen=True):
    """What a client protocol knows of a transcript that the session does not."""

    start_ms: float
    end_ms: float
    latency_ms: int | None = None
    """From the arrival of the audio that ends it."""
    model: str | None = None
    """The recognizer's."""


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection may do, where it had to show a credential for it."""

    speak: bool
    listen: bool
    administer: bool


class Metered(Protocol):
    """A track whose audio is counted."""

    @property
    def heard_ms(self) -> float:
        """Audio that it has taken."""
        ...

    def stop(self, message: str) -> None:
        """Take no more, and tell its client why."""
        ...


class Quota(Protocol):
    """How much a credential may use."""

    def problem(self) -> str | None:
        """Why no further track may be opened."""
        ...

    def open(self, track: Metered) -> None:
        """A track's audio counts from now on."""
        ...

    def close(self, track: Metered) -> None:
        """A track has ended."""
        ...


class SessionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asked for when its connection opened."""

    session_id: str | None = None
    speaker: str | None = None
    """Who speaks over the connection, where it is one person: a newer connection of the same
    speaker takes the place of the older one, those of others stay. None: a media server, which
    speaks for everybody."""
    provider: str | None = None
    """The one recognizer to use; None lets the gateway choose, with fail-over."""
    language: str | None = None
    labels: tuple[str, ...] = ()
    """For the recognizer's records."""
    custom: CustomEndpoint | None = None
    """A recognizer's service that the client brings itself."""
    mip_opt_out: bool | None = None
    """Whether audio stays out of the recognizer's training; None leaves it to the setting."""
    use_dispatcher: bool | None = None
    """Whether its finals go to the dispatcher; None leaves it to the setting."""
    quota: Quota | None = None
    """What its tracks count against."""
    container: Container | None = None
    """What tags send that announce no format of their own; None: bare Opus packets."""
    terms: msgspec.Struct | None = None
    """What else its protocol agreed with the client; in force again when the client comes back."""
    measure: Callable[[LiveTrack, Transcript], Measured] | None = None
    """Where a transcript lies on the client's own clock, which is then the session's."""
    covers: Callable[[str, float], int | None] | None = None
    """The last audio frame of the client that a final covers which ends so many milliseconds into
    a track's audio; where the client numbers its frames."""


class SpokenLine(msgspec.Struct, frozen=True, kw_only=True):
    """A transcript of one tag, with its times on the session's clock in milliseconds."""

    tag: str
    transcript: Transcript
    start_ms: float
    end_ms: float
    turn: int = 0
    """Grows with each turn of the tag, whatever connection and worker it was said to."""
    latency_ms: int | None = None
    """From the arrival of the audio that ends it, where that was measured."""
    model: str | None = None
    """The recognizer's model, where it is known."""


class TagFailure(msgspec.Struct, frozen=True):
    """A tag that gets no more transcripts; told once per tag."""

    tag: str
    code: str
    message: str


class SessionOutlet(Protocol):
    """A connection's side of a session; called on the event loop, must not block."""

    @property
    def is_open(self) -> bool:
        """Whether what is sent now can still reach the client."""
        ...

    def transcript(self, line: SpokenLine) -> bool:
        """An interim or final transcript, as soon as it is known; whether it was sent."""
        ...

    def record(self, line: SpokenLine) -> bool:
        """A transcript while no client is there; whether the client wants it when it is back."""
        ...

    def missed(self, line: SpokenLine) -> bool:
        """A final that came while no client was there; False when this one is going, too."""
        ...

    def tag_failed(self, failure: TagFailure) -> None:
        """This tag gets no more transcripts."""
        ...

    def superseded(self) -> None:
        """Another connection has taken the session over: take nothing more, and close."""
        ...

    def deleted(self) -> None:
        """The session was deleted: take nothing more, and close with 4004."""
        ...

    def command(self, op: str, body: bytes) -> bytes | None:
        """Do what a client of another worker asks; the answer, empty when done, None: not mine."""
        ...


@runtime_checkable
class Feeding(Protocol):
    """An outlet that hands audio to its tracks later than it took it from its client."""

    async def fed(self) -> None:
        """Return when all that the client had sent by now is in its tracks; a few seconds at most.

        Tracks are ended after that, so that what comes later has to go to ``Attachment.track``.
        """
        ...

    async def written(self) -> None:
        """Return when what follows from all that was said is written down; a few seconds at most.

        Called when tracks have ended and what they said is in the log.
        """
        ...


class Transcriber(Protocol):
    """What drives a track's recognizer: ``edge.asr.supervisor.Supervisor``."""

    def start(self) -> None: ...

    def commit(self) -> None: ...

    def share(self, context: str) -> None: ...

    async def finish(self, deadline_s: float) -> None: ...

    async def abort(self) -> None: ...


class TrackHost(Protocol):
    """What a session needs of its worker to open and close tracks."""

    ledger: Ledger
    """Where what is said gets written down."""

    def open_track(self, track: LiveTrack, request: SessionRequest) -> Transcriber | None:
        """Attach a recognizer and the metronome; None when the worker is full."""
        ...

    def close_track(self, track: LiveTrack) -> None:
        """Forget a track that has finished."""
        ...

    def delivered(self, track: LiveTrack, transcript: Transcript, *, sent: bool) -> None:
        """A transcript has been handed on; ``sent`` says that it has gone to its client."""
        ...

    def caught_up(self, line: SpokenLine) -> None:
        """A final has gone to a client that was away when it came."""
        ...


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What this gateway can do for a client, as far as clients may know."""

    default_provider: str
    """The recognizer of clients that do not name one."""
    available_providers: tuple[str, ...]
    """Recognizers that can be named, in order of preference."""
    providers_priority: tuple[str, ...]
    """Those that serve a client which names none, the first fail-over first."""
    known_providers: tuple[str, ...]
    """All recognizers there is code for."""
    aliases: Mapping[str, str]
    """Other names for them."""
    force_commit_s: float
    """Silence after which an open utterance is closed."""
    resume: bool
    """Whether a client that is lost may come back to its session."""
    dispatches: bool = False
    """Whether there is a way out for finals of sessions that ask for dispatch."""


class SessionHost(Protocol):
    """What a client protocol needs of its worker."""

    settings: SessionSettings
    offer: Offer
    dumps: Dumps
    ledger: Ledger
    stability: Stability
    """Told how connections fare; their receivers name them."""

    @property
    def rights(self) -> Rights | None:
        """What the connection may do; None where nobody has to show anything."""
        ...

    def has_room(self, session_id: str | None, speaker: str | None = None) -> bool:
        """Whether a connection of this session and speaker can be taken."""
        ...

    def resumes(self, session_id: str | None, speaker: str | None = None) -> bool:
        """Whether a connection of this session and speaker would go on with tracks there are."""
        ...

    def problem(self, request: SessionRequest) -> str | None:
        """Why the recognizer of such a session would refuse it; its name has been checked."""
        ...

    def attach(self, request: SessionRequest, outlet: SessionOutlet) -> Attachment | None:
        """Open a session, or go on with the one of that id and what was asked for at its opening.

        A client that the session has is told ``superseded``. None while the worker drains.
        """
        ...

    def play(self, track: LiveTrack) -> None:
        """Let a track that is due play when its turn among all tracks comes."""
        ...

    def release(self, attachment: Attachment, close: Close) -> None:
        """The connection is over, whatever the reason; called once for each attachment."""
        ...
