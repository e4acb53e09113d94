"""What each track of a worker does just now, for those who look for the reason of something.

Comes in: live tracks. Goes out: one ``TrackView`` each, without a word of what was said. Asked for
by hand, never on the way of audio.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from edge.asr.supervisor import Activity, Supervisor
from edge.session.live_track import LiveTrack

MOST_TRACKS = 2000
"""Of one worker; those that are furthest behind come first."""


class TrackView(msgspec.Struct, frozen=True, kw_only=True):
    """One track."""

    session: str
    tag: str
    state: Activity | None
    """None: its recognizer is gone, the track ends."""
    provider: str
    """The recognizer that hears it, or was tried last; empty before the first."""
    has_client: bool
    """False: its connection was lost, and the client's return is awaited."""
    age_s: float
    since_packet_s: float | None
    """Since the last packet came; None before the first."""
    audio_ms: int
    """Audio of the track so far, silence put in included."""
    backlog_ms: int
    """Audio that has come and was not handed to the recognizer yet."""
    unsent_ms: int
    """Audio that was handed over and has not left for the service yet."""
    unsettled_ms: int
    """Audio since the last final."""
    pending_packets: int
    """Packets that nothing has played, or that wait for one that is missing."""
    packets: int
    reordered: int
    """Packets that came after a later one: the jitter of the network."""
    late: int
    """Packets that came too late to be played."""
    lost: int
    corrupt: int
    silence_ms: int
    overflow_dropped_ms: int
    shed_ms: int


def overview(tracks: Iterable[object]) -> list[TrackView]:
    """The live ones among ``tracks``, those with the most backlog first."""
    now_s = time.monotonic()
    views = [_view(track, now_s) for track in tracks if isinstance(track, LiveTrack)]
    views.sort(key=lambda view: view.backlog_ms, reverse=True)
    return views[:MOST_TRACKS]


def _view(track: LiveTrack, now_s: float) -> TrackView:
    audio, stats = track.audio, track.audio.stats
    transcriber = track.transcriber
    standing = transcriber.standing() if isinstance(transcriber, Supervisor) else None
    packet_s = audio.last_packet_s
    return TrackView(
        session=track.session_name,
        tag=track.tag,
        state=standing.activity if standing else None,
        provider=standing.provider if standing else "",
        has_client=track.owner is not None,
        age_s=round(now_s - track.opened_s, 3),
        since_packet_s=None if packet_s is None else round(now_s - packet_s, 3),
        audio_ms=round(audio.end_ms),
        backlog_ms=round(standing.backlog_ms) if standing else 0,
        unsent_ms=round(standing.unsent_ms) if standing else 0,
        unsettled_ms=round(standing.unsettled_ms) if standing else 0,
        pending_packets=audio.pending,
        packets=stats.received,
        reordered=stats.reordered,
        late=stats.late,
        lost=stats.lost,
        corrupt=stats.corrupt,
        silence_ms=stats.silence_ms,
        overflow_dropped_ms=stats.overflow_dropped_ms,
        shed_ms=stats.shed_ms,
    )
