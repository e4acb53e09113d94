"""Who plays a track: feeds, one for each recognizer, and alarms that wait for sound."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from _native.track import NEVER
from edge.audio.packets import PacketRenderer
from edge.audio.renderer import Renderer
from edge.audio.ring import ReplayRing
from edge.audio.steps import CLOCK_HZ, StepKind
from edge.audio.timeline import Timeline

if TYPE_CHECKING:
    from edge.audio.track import AudioTrack

_PCM = StepKind.PCM
_SAMPLES_PER_MS = CLOCK_HZ // 1000
_MOST_UNPLAYED = CLOCK_HZ // 5
"""Steps that a live feed lets gather before it plays them, in samples."""


class SoundAlarm:
    """Waits for sound in a feed's place; made by ``AudioTrack.await_sound``."""

    __slots__ = ("_alarm", "_heard_ms", "_keep_ms", "_track")

    due = 0
    """Always: each step may be the one."""

    def __init__(self, track: AudioTrack, keep_ms: float, alarm: Callable[[], None]) -> None:
        self._track = track
        self._keep_ms = keep_ms
        self._alarm = alarm
        self._heard_ms = track.end_ms

    def cancel(self) -> None:
        """Wait no longer. Idempotent."""
        self._track.leave_live(self)

    def note(self) -> None:
        """Steps were added to the track."""
        track = self._track
        if track.speech_since(self._heard_ms):
            self.cancel()
            self._alarm()
        else:
            track.forget(track.end_ms - self._keep_ms)

    def shed(self, keep: int) -> int:
        """Nothing is owed to anybody."""
        return 0

    def flush(self) -> None:
        """Nothing was played, there is nothing to hand over."""

    def meet_pcm(self) -> None:
        """Sound is sound."""


class Feed:
    """Plays a track to one recognizer: first what is kept, in slices, then batch by batch.

    The steps of a batch are played together when it is complete, and none of the next one's: what a
    decoder needs is then fetched into the nearest caches once, not for each packet. Opened by
    ``AudioTrack.open_feed``.
    The recognizer's own clock starts at the feed's first sample; ``audio_ms`` maps it to the
    track's.
    """

    __slots__ = (
        "_batch",
        "_closed",
        "_cursor",
        "_is_live",
        "_lead",
        "_on_form_changed",
        "_places",
        "_position",
        "_pumping",
        "_renderer",
        "_ring",
        "_start",
        "_track",
        "due",
        "form_changed",
    )

    def __init__(
        self,
        track: AudioTrack,
        ring: ReplayRing,
        renderer: Renderer | PacketRenderer,
        from_ms: float,
        batch: int,
        on_form_changed: Callable[[], None] | None,
    ) -> None:
        self._track = track
        self._ring = ring
        self._renderer = renderer
        self._cursor, self._start = ring.find(math.floor(from_ms * _SAMPLES_PER_MS))
        self._position = self._start
        """Where the step at the cursor begins."""
        self._batch = batch
        self.due = NEVER
        """End of the track's audio at which a live feed plays what has come since it last did."""
        self._lead = self._start
        """Position on the track's axis minus position on the recognizer's."""
        self._places = Timeline()
        self._places.mark(0, self._start)
        self._is_live = False
        self._pumping = False
        self._closed = False
        self._on_form_changed = on_form_changed
        self.form_changed = False
        """Whether it has come to audio that it cannot deliver; see ``AudioTrack.open_feed``."""

    @property
    def start_ms(self) -> float:
        """Where the feed began: at or before the ``from_ms`` asked for, if that was still kept."""
        return self._start / _SAMPLES_PER_MS

    @property
    def delivered_ms(self) -> float:
        """The audio millisecond up to which audio was handed over."""
        return (self._position - self._renderer.waiting) / _SAMPLES_PER_MS

    @property
    def played_ms(self) -> float:
        """Like ``delivered_ms``, and what waits for the rest of its batch."""
        return self._position / _SAMPLES_PER_MS

    def audio_ms(self, stream_ms: float) -> float:
        """The audio millisecond of a time on the recognizer's clock.

        The two run together unless the track had to drop audio that this feed had not played yet.
        """
        return self._places.map_ms(stream_ms)

    def pump(self, limit_ms: float) -> bool:
        """Play about ``limit_ms`` more of what is kept; True when the feed has caught up.

        It is live from then on. Decoding takes about 1 ms per second of audio: callers with other
        work to do ask for a second or two at a time. A feed that was closed, or whose form changed,
        has nothing left to play: True.
        """
        if self._is_live or self._closed or self.form_changed:
            return True
        ring = self._ring
        budget = limit_ms * _SAMPLES_PER_MS
        self._pumping = True
        while self._pumping:
            if self._cursor < ring.first:
                self._pass_over_dropped()
            if self._cursor == ring.count:
                if self._track.source == "pcm" and self.meet_pcm():
                    break
                self._is_live = True
                self._await_batch()
                self._track.go_live(self)
                break  # its last batch may have paused it
            if budget <= 0:
                break
            if ring.step(self._cursor).kind is _PCM and self.meet_pcm():
                break
            budget -= self._play_next()
        self._pumping = False
        return self._is_live or self._closed or self.form_changed

    def pause(self) -> None:
        """Leave live, or end the running ``pump``, so that new audio waits in the track."""
        self._pumping = False
        if self._is_live:
            self._is_live = False
            self._track.leave_live(self)

    def close(self) -> None:
        """Deliver nothing more. Idempotent."""
        self.pause()
        self._closed = True
        self._on_form_changed = None
        self._renderer.stop()

    def meet_pcm(self) -> bool:
        """What follows is PCM: true if that is the end of this feed."""
        if isinstance(self._renderer, Renderer):
            return False
        self.flush()
        self.pause()
        self._renderer.flush()
        self.form_changed = True
        if self._on_form_changed is not None:
            self._on_form_changed()
        return True

    def note(self) -> None:
        """Steps were added to the track while this feed is live."""
        ring = self._ring
        while self._is_live and ring.end >= self.due and self._cursor < ring.count:
            if not self._play_packets():
                self._play_next()
            self._await_batch()

    def shed(self, keep: int) -> int:
        """Pass over the oldest audio that is due, so that ``keep`` samples are left; how much."""
        ring = self._ring
        if self._cursor < ring.first:
            self._pass_over_dropped()
        passed = 0
        while ring.end - self._position - passed > keep:
            passed += ring.step(self._cursor).samples
            self._cursor += 1
        if passed:
            self._position += passed
            self._lead += passed
            self._places.mark(self._position - self._lead, self._position)
        return passed

    def give_up(self, keep_ms: float) -> None:
        """Pass over what is kept but for the newest ``keep_ms``: there is no time to play it."""
        passed = self.shed(round(keep_ms) * _SAMPLES_PER_MS)
        self._track.stats.shed_ms += passed // _SAMPLES_PER_MS

    def _play_packets(self) -> bool:
        """Play packets up to the end of the batch in one go; False if it has to be step by step."""
        ring, renderer = self._ring, self._renderer
        number = self._cursor
        if number < ring.first:
            return False
        packets, samples = ring.packets(number, self._batch - renderer.waiting)
        if not packets:
            return False
        played = renderer.play_packets(packets, samples)
        if played < len(packets):
            samples = sum(ring.step(number + index).samples for index in range(played))
        self._cursor = number + played
        self._position += samples
        ring.mark_run(number, played)
        if renderer.waiting >= self._batch:
            renderer.flush()
        return played > 0

    def _play_next(self) -> int:
        """Play the step at the cursor; returns its samples."""
        ring = self._ring
        if self._cursor < ring.first:
            self._pass_over_dropped()
        number = self._cursor
        step = ring.step(number)
        self._cursor = number + 1
        self._position += step.samples
        sound = self._renderer.play(step)
        ring.mark_played(number, step, sound)
        return step.samples

    def _await_batch(self) -> None:
        wanted = self._batch - self._renderer.waiting
        self.due = self._position + (wanted if wanted < _MOST_UNPLAYED else _MOST_UNPLAYED)

    def flush(self) -> None:
        """Play all that is there, if live, and hand over a partial batch."""
        ring = self._ring
        while self._is_live and self._cursor < ring.count:
            if not self._play_packets():
                self._play_next()
        self._renderer.flush()
        self._await_batch()

    def _pass_over_dropped(self) -> None:
        self._lead += self._ring.start - self._position
        self._cursor, self._position = self._ring.first, self._ring.start
        self._places.mark(self._position - self._lead, self._position)
