"""Spans of sessions, tracks, recognizer connections and finals (``edge.tracing``).

Called on the event loop, never for a packet; while nobody takes spans it does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge import tracing
from edge.asr.observer import RecognizerObserver
from edge.asr.transcript import Transcript
from edge.tracing import Span

if TYPE_CHECKING:
    from edge.session.live import LiveSession
    from edge.session.live_track import LiveTrack


def session_opened(session: LiveSession, provider: str) -> None:
    """A session began, with this recognizer as its first choice."""
    session.span = tracing.begin("session", session=session.name, provider=provider)


def session_ended(session: LiveSession) -> None:
    """A session is over, its last finals included."""
    session.span.note(interims=session.interims, finals=session.finals)
    session.span.end()


def track_opened(track: LiveTrack, session: Span) -> None:
    """A tag has its recognizer."""
    track.span = tracing.begin("track", session, tag=track.tag)


def track_closed(track: LiveTrack) -> None:
    """A track has finished."""
    stats = track.audio.stats
    track.span.note(
        packets=stats.received, lost_packets=stats.lost, audio_ms=round(track.audio.end_ms)
    )
    track.span.end()


def final_delivered(
    track: LiveTrack, transcript: Transcript, behind_s: float, *, sent: bool
) -> None:
    """A final came ``behind_s`` after its utterance's last audio: as long is its span."""
    if not tracing.is_on():
        return
    span = tracing.begin(
        "final",
        track.span,
        began_s_ago=behind_s,
        provider=transcript.provider,
        is_sent=sent,
        audio_ms=round(transcript.end_ms - transcript.start_ms),
    )
    span.end()


def observed(observer: RecognizerObserver, track: LiveTrack) -> RecognizerObserver:
    """``observer``, and spans of this track's recognizer connections if anybody takes them."""
    return _Traced(observer, track.span) if tracing.is_on() else observer


class _Traced:
    """A connection's span is from its opening to its end; one that did not open is as long as 0."""

    def __init__(self, observer: RecognizerObserver, track: Span) -> None:
        self._observer = observer
        self._track = track
        self._open: list[tuple[str, Span]] = []
        """Those that are open, the oldest first: one may be hung up while the next is used."""

    def connected(self, provider: str, seconds: float) -> None:
        self._observer.connected(provider, seconds)
        span = tracing.begin(
            "recognizer connection",
            self._track,
            began_s_ago=seconds,
            provider=provider,
            opening_ms=round(seconds * 1000),
        )
        self._open.append((provider, span))

    def error(self, provider: str, code: str) -> None:
        self._observer.error(provider, code)
        opened = [span for name, span in self._open if name == provider]
        if opened:
            opened[-1].fail(code)
            return
        span = tracing.begin("recognizer connection", self._track, provider=provider)
        span.fail(code)
        span.end()

    def received(self, provider: str, is_interim: bool) -> None:
        self._observer.received(provider, is_interim)

    def audio_sent(self, provider: str, size: int) -> None:
        self._observer.audio_sent(provider, size)

    def connection_opened(self, provider: str) -> None:
        self._observer.connection_opened(provider)

    def connection_closed(self, provider: str) -> None:
        self._observer.connection_closed(provider)
        for index, (name, span) in enumerate(self._open):
            if name == provider:
                del self._open[index]
                span.end()
                return
