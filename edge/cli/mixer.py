"""A dump's messages to the tracks of a mixdown, as a connection takes them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from _native.envelope import scan_media
from edge.audio.container import UnusableContainer
from edge.audio.mixdown import Mixdown, MixedTrack
from edge.audio.origin import MediaOrigin, SessionTime
from edge.demo.replay import BadDump, read_dump
from edge.ingest.events import BadEvent, Media, PeerInfo, Start, decode_event
from edge.ingest.formats import announced, container_of

_MOST_BEFORE = 48000 * 3600
"""A time this long before the first packet's is damaged: it is not where the recording begins."""


class Mixed(msgspec.Struct, kw_only=True):
    """What went into a recording."""

    duration_s: float = 0.0
    tags: int = 0
    packets: int = 0
    lost: int = 0
    corrupt: int = 0
    bad_events: int = 0
    """Messages that are no event."""
    refused: dict[str, str] = msgspec.field(default_factory=dict)
    """Why a tag was left out, by tag."""


def first_time(path: Path) -> int:
    """Where a dump's recording begins, in 48 kHz samples. Raises ``BadDump``.

    That is the earliest timestamp of its first connection; those after it may count from anywhere.
    """
    earliest: int | None = None
    has_audio = False
    for line in read_dump(path):
        event = _event(line.data)
        if isinstance(event, PeerInfo) and has_audio:
            break
        if not isinstance(event, Media) or not event.payload:
            continue
        has_audio = True
        at = event.timestamp
        if at is not None and (earliest is None or earliest - _MOST_BEFORE < at < earliest):
            earliest = at
    if not has_audio:
        raise BadDump(f"{path} holds no audio: no media event with a payload")
    return earliest or 0


class Mixer:
    """Plays dumps into a mixdown; ``encoding`` is that of tags which announce none."""

    def __init__(self, mixdown: Mixdown, rate_hz: int, encoding: str) -> None:
        self._mixdown = mixdown
        self._rate_hz = rate_hz
        self._encoding = encoding
        self._origin = MediaOrigin()
        self._tracks: dict[str, MixedTrack] = {}
        self._refused: dict[str, str] = {}
        self._mixed = Mixed()
        self._now_s = 0.0

    def mix(self, path: Path) -> Mixed:
        """Play a whole dump. Raises ``BadDump``."""
        for line in read_dump(path):
            self._now_s = max(self._now_s, line.timestamp / 1000)
            self._take(_event(line.data))
        for track in self._tracks.values():
            track.audio.finish()
            stats = track.audio.stats
            self._mixed.packets += stats.received
            self._mixed.lost += stats.lost
            self._mixed.corrupt += stats.corrupt
        self._mixed.tags = len(self._tracks)
        self._mixed.duration_s = self._mixdown.duration_s
        return self._mixed

    def _take(self, event: Media | Start | PeerInfo | BadEvent | None) -> None:
        match event:
            case Media(payload=b""):
                pass
            case Media():
                self._packet(event)
            case Start():
                self._start(event)
            case PeerInfo() if self._tracks:
                self._reconnected()
            case BadEvent():
                self._mixed.bad_events += 1

    def _packet(self, media: Media) -> None:
        if media.tag in self._refused:
            return
        audio = self._track(media.tag).audio
        try:
            audio.packet(media.chunk, media.timestamp, media.payload, self._now_s)
        except UnusableContainer as error:
            self._refuse(media.tag, str(error))

    def _start(self, start: Start) -> None:
        form = announced(start, self._encoding)
        if isinstance(form, str):
            self._refuse(start.tag, form)
            return
        self._refused.pop(start.tag, None)
        self._track(start.tag).audio.restart(form.pcm, container=form.container)

    def _track(self, tag: str) -> MixedTrack:
        track = self._tracks.get(tag)
        if track is None:
            track = self._tracks[tag] = MixedTrack(self._mixdown, self._rate_hz, self._origin)
            if container := container_of(self._encoding):
                track.audio.restart(container=container)
        return track

    def _refuse(self, tag: str, reason: str) -> None:
        self._refused[tag] = reason
        self._mixed.refused[tag] = reason

    def _reconnected(self) -> None:
        """A media server introduces itself on each connection: numbers and times begin anew."""
        heard_ms = now_ms = 0.0
        for track in self._tracks.values():
            audio = track.audio
            heard_ms = max(heard_ms, audio.timeline.map_ms(audio.end_ms))
            now_ms = max(now_ms, audio.session_now_ms(self._now_s) or 0.0)
        if not heard_ms:
            return
        self._origin = MediaOrigin(self._origin, SessionTime(heard_ms, now_ms, self._now_s))
        for track in self._tracks.values():
            track.audio.rejoin(self._origin)


def _event(text: str) -> Media | Start | PeerInfo | BadEvent | None:
    data = text.encode(errors="replace")
    scanned = scan_media(data)
    if scanned is not None:
        return Media(*scanned)
    try:
        event = decode_event(data)
    except BadEvent as problem:
        return problem
    return event if isinstance(event, Media | Start | PeerInfo) else None
