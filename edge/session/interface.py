"""The seams of a live session: what a client asks, what it gets, what its worker offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from edge.asr.transcript import Transcript
from edge.session.dump import Dumps
from edge.session.settings import SessionSettings
from edge.transport.interface import Close

if TYPE_CHECKING:
    from edge.session.live import LiveSession, LiveTrack


class SessionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asked for when its connection opened."""

    session_id: str | None = None
    provider: str | None = None
    """The one recognizer to use; None lets the gateway choose, with fail-over."""
    language: str | None = None
    labels: tuple[str, ...] = ()
    """For the recognizer's records."""
    mip_opt_out: bool | None = None
    """Whether audio stays out of the recognizer's training; None leaves it to the setting."""
    use_dispatcher: bool = False


class SpokenLine(msgspec.Struct, frozen=True, kw_only=True):
    """A transcript of one tag, with its times on the session's clock in milliseconds."""

    tag: str
    transcript: Transcript
    start_ms: float
    end_ms: float


class SessionOutlet(Protocol):
    """The client's side of a session; called on the event loop, must not block."""

    def transcript(self, line: SpokenLine) -> bool:
        """An interim or final transcript, as soon as it is known; whether it was sent."""
        ...

    def tag_failed(self, tag: str, code: str, message: str) -> None:
        """This tag gets no more transcripts; called once per tag."""
        ...


class Transcriber(Protocol):
    """What drives a track's recognizer: ``edge.asr.supervisor.Supervisor``."""

    def start(self) -> None: ...

    async def finish(self, deadline_s: float) -> None: ...

    async def abort(self) -> None: ...


class TrackHost(Protocol):
    """What a session needs of its worker to open and close tracks."""

    def open_track(self, track: LiveTrack, request: SessionRequest) -> Transcriber | None:
        """Attach a recognizer and the metronome; None when the worker is full."""
        ...

    def close_track(self, track: LiveTrack) -> None:
        """Forget a track that has finished."""
        ...

    def delivered(self, track: LiveTrack, transcript: Transcript, *, sent: bool) -> None:
        """A transcript has been handed on; ``sent`` says that it has gone to its client."""
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
    force_commit_s: float
    """Silence after which an open utterance is closed."""


class SessionHost(Protocol):
    """What a client protocol needs of its worker."""

    settings: SessionSettings
    offer: Offer
    dumps: Dumps

    def open_session(self, request: SessionRequest, outlet: SessionOutlet) -> LiveSession | None:
        """A new session, or None when the worker is full or draining."""
        ...

    def release(self, session: LiveSession, close: Close) -> None:
        """The client is gone: flush the session's recognizers, then forget it."""
        ...
