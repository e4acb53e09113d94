"""A live track: one tag's audio, its recognizer, and where what it says goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.asr.interface import EngineMessage
from edge.asr.transcript import Transcript
from edge.errors import RecognizerError
from edge.logs import Repeats
from edge.session.attachment import Attachment
from edge.session.interface import Quota, Transcriber
from edge.tracing import NO_SPAN, Span

if TYPE_CHECKING:
    from edge.session.live import LiveSession


class LiveTrack:
    """One tag's audio and recognizer; the listener of its supervisor."""

    __slots__ = (
        "_hears",
        "_session",
        "audio",
        "intake",
        "is_ahead",
        "opened_s",
        "others_said",
        "owner",
        "packet",
        "span",
        "tag",
        "transcriber",
        "writer",
    )

    def __init__(self, session: LiveSession, owner: Attachment, tag: str) -> None:
        self._session = session
        self.owner: Attachment | None = owner
        """The connection that feeds it; None when that is gone and no other has sent for it."""
        self.tag = tag
        self.audio = session.new_audio(owner.origin)
        if container := session.request.container:
            self.audio.restart(container=container)
        self._hears: Callable[[EngineMessage], None] | None = None
        self.packet = self.audio.packet
        self.is_ahead = self.audio.is_ahead
        self.intake = self.audio.intake
        self.opened_s = time.monotonic()
        self.others_said = ""
        """The newest words of the other tags, where recognizers are told of them."""
        self.writer = session.writer_for(tag)
        self.transcriber: Transcriber | None = None
        self.span: Span = NO_SPAN
        """From when it has a recognizer until it has finished."""

    @property
    def repeats(self) -> Repeats:
        """What its session logs of failures."""
        return self._session.repeats

    @property
    def session_name(self) -> str:
        """Of its session, in the store."""
        return self._session.name

    @property
    def session_span(self) -> Span:
        """Of its session."""
        return self._session.span

    def must_wait(self, now_s: float, crowding: float = 1.0) -> bool:
        """Whether its sender is ahead and more of its audio waits to be played than may.

        What a recognizer that fails does not take makes it wait no longer than time needs to come
        up with it. A tag that is closed makes nobody wait.
        """
        is_open = self.transcriber is not None
        return is_open and self.audio.crowding >= crowding and self.is_ahead(now_s)

    def interim(self, transcript: Transcript) -> None:
        """An utterance of this tag has new text so far."""
        self._session.deliver(self, transcript)

    def final(self, transcript: Transcript) -> None:
        """An utterance of this tag is finished."""
        self._session.deliver(self, transcript)

    def engine(self, message: EngineMessage) -> None:
        """What this tag's recognizer says in its own words; who was there last hears it, too."""
        if target := self._session.audience(self):
            self._hears = target.on_message
        if self._hears is not None:
            self._hears(message)

    def failed(self, error: RecognizerError) -> None:
        """No recognizer will take this tag."""
        self._session.fail(self, str(error))

    @property
    def heard_ms(self) -> float:
        """Audio that it has taken."""
        return self.audio.end_ms

    @property
    def quota(self) -> Quota | None:
        """What its audio counts against."""
        return self._session.request.quota

    def stop(self, message: str) -> None:
        """Take no more audio: its credential's is used up."""
        self._session.refuse(self.owner, self.tag, "quota", message)

    def broken(self, error: BaseException) -> None:
        """A fault of ours on this tag's way; the other tags go on."""
        self.repeats.note("a track broke", "error", tag=self.tag, exc_info=error)
        self._session.fail(self, "The gateway failed on this tag")
