"""One client connection's place in a session: the tags it speaks for, and its way out again."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from edge.asr.interface import EngineMessage
from edge.audio.container import Container
from edge.audio.origin import MediaOrigin
from edge.audio.pcm import PcmFormat
from edge.session.interface import SessionOutlet, SessionRequest

if TYPE_CHECKING:
    from edge.session.live import LiveSession
    from edge.session.live_track import LiveTrack


Flushed = Callable[[], Coroutine[None, None, None]]


class Attachment:
    """What a client protocol talks to: made by ``SessionHost.attach``, given back by ``release``.

    A session has one of them as a rule, none while its client is away, and several when clients
    share it; each has tags of its own.
    """

    __slots__ = ("ended", "on_message", "origin", "outlet", "session", "tracks")

    def __init__(self, session: LiveSession, outlet: SessionOutlet, origin: MediaOrigin) -> None:
        self.session = session
        self.outlet = outlet
        self.origin = origin
        """The time base of this connection's timestamps."""
        self.tracks: dict[str, LiveTrack] = {}
        """Tags that have sent something over this connection."""
        self.on_message: Callable[[EngineMessage], None] | None = None
        """Told what the recognizers' services say themselves; to be set before tracks open."""
        self.ended = False
        """Whether the client has ended its session: it will not come back to it."""

    @property
    def request(self) -> SessionRequest:
        """What is in force: what the session's first connection asked for."""
        return self.session.request

    def track(self, tag: str) -> LiveTrack | None:
        """The running track of a tag, opened now if need be; None while the tag is refused."""
        return self.tracks.get(tag) or self.session.open_track(self, tag)

    def restart(
        self, tag: str, pcm: PcmFormat | None = None, *, container: Container | None = None
    ) -> None:
        """A usable format was announced: lift a refusal, open the tag or restart it with that."""
        self.session.refused.pop(tag, None)
        if track := self.track(tag):
            track.audio.restart(pcm, container=container)

    def refuse(self, tag: str, code: str, message: str) -> None:
        """Take no more audio of a tag and say so once; a running track is closed."""
        self.session.refuse(self, tag, code, message)

    def catch_up(self) -> None:
        """Send what a client missed while it was away, oldest first."""
        self.session.catch_up(self)

    async def stored(self) -> None:
        """Wait until all that the session's tracks said is in the log."""
        await self.session.stored()

    async def settled(self) -> None:
        """Wait until what was said for this client over another worker is in the log, or is lost.

        A few seconds at most while the store answers; ends with the session.
        """
        await self.session.settled()

    def flush(self, deadline_s: float) -> Flushed:
        """Flush this connection's tracks now; call the answer to await their last finals.

        The connection goes on: with the next audio its tags open again.
        """
        return self.session.flush_of(self, deadline_s)

    def discard(self) -> None:
        """Let this connection's tracks end without a word; its tags open again as after a flush."""
        self.session.discard_of(self)

    def client_ms(self, session_ms: float) -> float:
        """A time of a ``SpokenLine`` on the clock of this connection's timestamps."""
        return self.session.client_ms(self, session_ms)

    async def finish(self, deadline_s: float) -> None:
        """The client has ended its session: flush this connection's tags, await their last finals.

        Waits at most ``deadline_s`` seconds. Cancelling it stops the waiting, not the flushing.
        Tracks that open meanwhile go on.
        """
        self.ended = True
        await self.session.finish_of(self, deadline_s)
