"""A track: one speaker's packets in, audio for any number of recognizers out, now or again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from _native.track import NEVER, PacketIntake
from edge.audio.container import Container, ContainerIntake, UnusableContainer
from edge.audio.origin import MediaOrigin
from edge.audio.packets import DeliverPackets, PacketRenderer, as_ogg, one_by_one
from edge.audio.pcm import PcmFormat
from edge.audio.renderer import Deliver, Renderer
from edge.audio.ring import ReplayRing
from edge.audio.sequencer import Sequencer
from edge.audio.settings import TrackSettings
from edge.audio.stats import TrackStats
from edge.audio.steps import CLOCK_HZ, Step, StepKind
from edge.audio.timeline import Timeline

__all__ = [
    "AudioTrack",
    "Container",
    "Deliver",
    "DeliverPackets",
    "Encoding",
    "Feed",
    "Source",
    "TrackStats",
    "UnusableContainer",
]

Source = Literal["opus", "ogg", "pcm"]
"""How a track's audio comes in: bare Opus packets, Opus packets in a container, or uncoded."""
Encoding = Literal["pcm16", "opus", "ogg"]
"""What a feed delivers; see ``AudioTrack.open_feed``."""

_PCM = StepKind.PCM
_SAMPLES_PER_MS = CLOCK_HZ // 1000
_MOST_UNPLAYED = CLOCK_HZ // 5
"""Steps that a live feed lets gather before it plays them, in samples."""


class AudioTrack:
    """Orders and times a speaker's packets and plays them to feeds.

    *Audio milliseconds* are the track's own axis: what was put out since its first sample,
    including concealment and silence. ``timeline`` maps them to the session's clock. Steps are
    kept for replay until ``forget`` releases them or too many are kept; without a feed nothing is
    decoded. All methods belong to one thread; ``now_s`` is a monotonic clock's time.
    """

    __slots__ = (
        "_batch_ms",
        "_container",
        "_live",
        "_ring",
        "_sequencer",
        "_source",
        "_stats",
        "intake",
    )

    def __init__(self, settings: TrackSettings, origin: MediaOrigin | None = None) -> None:
        """``origin`` says where the connection's timestamps lie on the session's clock."""
        self._stats = TrackStats()
        self._sequencer = Sequencer(settings, self._stats, origin)
        self._ring = ReplayRing(settings.replay_ms, self._stats)
        self._batch_ms = settings.asr_batch_ms
        self._live: tuple[Feed | SoundAlarm, ...] = ()
        self._source: Source = "opus"
        self._container: ContainerIntake | None = None
        self.intake = PacketIntake(self._sequencer, self._ring)
        """The short way in, for whoever reads packets natively; ``play_due`` is then owed."""

    @property
    def source(self) -> Source:
        """How the audio comes in now. What is kept may have come in another way."""
        return self._source

    def source_at(self, at_ms: float) -> Source:
        """How the audio from ``at_ms`` on came in: what a feed that begins there will meet first.

        Audio that came in packets is told apart by ``source`` only.
        """
        ring = self._ring
        number, _ = ring.find(math.floor(at_ms * _SAMPLES_PER_MS))
        for later in range(number, ring.count):
            kind = ring.step(later).kind
            if kind is not StepKind.SILENCE:
                packets: Source = "opus" if self._source == "pcm" else self._source
                return "pcm" if kind is _PCM else packets
        return self._source

    @property
    def stats(self) -> TrackStats:
        """Counts since the track opened; the same object every time."""
        return self._stats

    @property
    def timeline(self) -> Timeline:
        """From audio milliseconds to session milliseconds (media timestamp / 48, as a rule)."""
        return self._sequencer.timeline

    @property
    def end_ms(self) -> float:
        """Where the track's audio ends, in audio milliseconds."""
        return self._ring.end / _SAMPLES_PER_MS

    @property
    def last_packet_s(self) -> float | None:
        """When the last real packet came; late, doubled and empty ones don't count."""
        return self._sequencer.last_packet_s

    @property
    def pending(self) -> int:
        """Packets that nothing has played yet: kept for a feed, or waiting for a missing one."""
        return self._ring.unplayed_packets + self._sequencer.held_packets

    def speech_since(self, from_ms: float) -> bool:
        """Whether a packet with sound was put out after ``from_ms``; DTX packets don't count."""
        return self._sequencer.speech_end > from_ms * _SAMPLES_PER_MS

    def packet(
        self, chunk: int | None, timestamp: int | None, payload: bytes, now_s: float
    ) -> None:
        """Take a packet: its number, its media time in 48 kHz samples, its bytes.

        Of a sender that announced a container each payload is a piece of it. Bad input is bridged
        or dropped, and counted; only a container that turns out to be none, or to hold no Opus,
        raises ``UnusableContainer``.
        """
        if self._container is not None:
            self._take_piece(self._container, chunk, timestamp, payload, now_s)
            return
        self._keep(self._sequencer.push(chunk, timestamp, payload, now_s))

    def play_due(self) -> None:
        """Let the feeds play whose batch is complete; owed when ``intake`` has reached ``due``."""
        for feed in self._live:
            feed._note()
        self._set_due()

    def restart(self, pcm: PcmFormat | None = None, *, container: Container | None = None) -> None:
        """The sender announced a new source under this tag: its numbers start anywhere.

        It sends Opus packets, PCM of this format, or Opus in a container, from its beginning or
        from anywhere; what came before is played first.
        """
        self._keep(self._sequencer.restart(pcm))
        self._container = ContainerIntake(container) if container else None
        self._sequencer.in_pieces = container is not None
        self._sequencer.expect(0)
        self._source = "pcm" if pcm else "ogg" if container == "ogg" else "opus"
        if pcm is not None:
            for feed in self._live:
                feed._meet_pcm()

    def await_sound(self, keep_ms: float, alarm: Callable[[], None]) -> SoundAlarm:
        """Call ``alarm`` once, at the next packet with sound; until then only ``keep_ms`` is kept.

        For a track that no feed plays: what comes meanwhile is forgotten, not counted as overflow.
        """
        waiting = SoundAlarm(self, keep_ms, alarm)
        self._live = (*self._live, waiting)
        self._set_due()
        return waiting

    def rejoin(self, origin: MediaOrigin) -> None:
        """The sender goes on over another connection: its numbers start anywhere.

        Decoders and the session's clock go on; ``origin`` places the timestamps to come on it.
        """
        self._keep(self._sequencer.rejoin(origin))
        if self._container is not None:
            self._container.rejoin()

    def session_now_ms(self, now_s: float) -> float | None:
        """What the session's clock says by this track's last packet; None before the first."""
        return self._sequencer.now_ms(now_s)

    def tick(self, now_s: float) -> None:
        """Do what time alone brings about; to be called every 20 ms, nearly free when idle.

        Missing packets are given up, silence is made up for a sender that has stopped, and a batch
        that nothing completes is handed over.
        """
        if now_s >= self._sequencer.wake_s:
            self._wake(now_s)

    def finish(self) -> None:
        """Play what waits for missing packets and hand over partial batches."""
        self._keep(self._sequencer.flush())
        self._flush()

    def forget(self, until_ms: float) -> None:
        """Audio before ``until_ms`` will not be needed again."""
        self._ring.forget(math.floor(until_ms * _SAMPLES_PER_MS))

    def open_feed(
        self,
        rate_hz: int,
        from_ms: float,
        deliver: Deliver,
        encoding: Encoding = "pcm16",
        *,
        deliver_packets: DeliverPackets | None = None,
        on_form_changed: Callable[[], None] | None = None,
    ) -> Feed:
        """Play from ``from_ms`` on, or from the oldest audio kept, in the form of ``encoding``.

        * ``pcm16``: each call of ``deliver`` brings a batch of mono 16-bit little-endian samples
          at ``rate_hz``, whatever came in.
        * ``opus``: each call of ``deliver_packets`` brings the packets of a batch, in order;
          without it ``deliver`` is called once for each. Packets are as they came; silence is
          silent packets, a loss one packet with empty frames (``edge.audio.packets``).
          ``rate_hz`` is not looked at, nothing is decoded.
        * ``ogg``: each call of ``deliver`` brings whole pages with such packets, of one logical
          stream that begins with its headers.

        PCM is never encoded: an ``opus`` or ``ogg`` feed ends where the track's audio becomes PCM.
        It has delivered what came before, ``form_changed`` is true from then on, and
        ``on_form_changed`` is called once; the rest is for a ``pcm16`` feed from
        ``delivered_ms`` on. ``source_at`` says beforehand what a feed will meet.

        All are called from ``packet``, ``tick``, ``finish``, ``restart`` and ``Feed.pump``; they
        may pause or close the feed, not pump it. Nothing is played before ``Feed.pump`` is called.
        Raises ``BadArgument`` for a rate that Opus does not know.
        """
        renderer: Renderer | PacketRenderer
        if encoding == "pcm16":
            renderer = Renderer(rate_hz, self._batch_ms, deliver)
        elif encoding == "opus":
            renderer = PacketRenderer(self._batch_ms, deliver_packets or one_by_one(deliver))
        else:
            renderer = PacketRenderer(self._batch_ms, as_ogg(deliver))
        batch = self._batch_ms * _SAMPLES_PER_MS
        return Feed(self, self._ring, renderer, from_ms, batch, on_form_changed)

    def _take_piece(
        self,
        container: ContainerIntake,
        chunk: int | None,
        timestamp: int | None,
        piece: bytes,
        now_s: float,
    ) -> None:
        sequencer = self._sequencer
        longest, faults = container.longest_piece, container.faults
        packets = container.read(chunk, timestamp, piece, sequencer.clock)
        if container.longest_piece != longest:
            sequencer.expect(container.longest_piece)
        self._stats.container_faults += container.faults - faults
        for number, at, packet in packets:
            self._keep(sequencer.push(number, at, packet, now_s))

    def _wake(self, now_s: float) -> None:
        was_idle = self._sequencer.is_idle
        self._keep(self._sequencer.tick(now_s))
        if self._sequencer.is_idle != was_idle or self._sequencer.wake_s == math.inf:
            self._flush()

    def _keep(self, steps: Sequence[Step]) -> None:
        ring, intake = self._ring, self.intake
        for step in steps:
            ring.append(step)
            if ring.end >= intake.due:
                self.play_due()

    def _set_due(self) -> None:
        self.intake.due = min((feed.due for feed in self._live), default=NEVER)

    def _flush(self) -> None:
        for feed in self._live:
            feed._flush()
        self._set_due()

    def _go_live(self, feed: Feed) -> None:
        self._live = (*self._live, feed)
        if self._sequencer.wake_s == math.inf:
            feed._flush()  # nothing is coming that would complete the batch
        self._set_due()

    def _leave_live(self, feed: Feed | SoundAlarm) -> None:
        self._live = tuple(other for other in self._live if other is not feed)
        self._set_due()


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
        self._track._leave_live(self)

    def _note(self) -> None:
        track = self._track
        if track.speech_since(self._heard_ms):
            self.cancel()
            self._alarm()
        else:
            track.forget(track.end_ms - self._keep_ms)

    def _flush(self) -> None:
        pass

    def _meet_pcm(self) -> None:
        pass


class Feed:
    """Plays a track to one recognizer: first what is kept, in slices, then batch by batch.

    The steps of a batch are played together when it is complete: what a decoder needs is then
    fetched into the nearest caches once, not for each packet. Opened by ``AudioTrack.open_feed``.
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
                if self._track.source == "pcm" and self._meet_pcm():
                    break
                self._is_live = True
                self._await_batch()
                self._track._go_live(self)
                break  # its last batch may have paused it
            if budget <= 0:
                break
            if ring.step(self._cursor).kind is _PCM and self._meet_pcm():
                break
            budget -= self._play_next()
        self._pumping = False
        return self._is_live or self._closed or self.form_changed

    def pause(self) -> None:
        """Leave live, or end the running ``pump``, so that new audio waits in the track."""
        self._pumping = False
        if self._is_live:
            self._is_live = False
            self._track._leave_live(self)

    def close(self) -> None:
        """Deliver nothing more. Idempotent."""
        self.pause()
        self._closed = True
        self._on_form_changed = None
        self._renderer.stop()

    def _meet_pcm(self) -> bool:
        """What follows is PCM: true if that is the end of this feed."""
        if isinstance(self._renderer, Renderer):
            return False
        self._flush()
        self.pause()
        self._renderer.flush()
        self.form_changed = True
        if self._on_form_changed is not None:
            self._on_form_changed()
        return True

    def _note(self) -> None:
        """Steps were added to the track while this feed is live."""
        if self._ring.end >= self.due:
            self._play_newest()

    def _play_newest(self) -> None:
        ring = self._ring
        while self._is_live and self._cursor < ring.count:
            if not self._play_packets():
                self._play_next()
        self._await_batch()

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
        self._cursor, self._position = number + played, self._position + samples
        ring.mark_run(number, played)
        renderer.flush_if_full()
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
        self.due = self._ring.end + min(self._batch - self._renderer.waiting, _MOST_UNPLAYED)

    def _flush(self) -> None:
        self._play_newest()
        if self._is_live:
            self._renderer.flush()
            self._await_batch()

    def _pass_over_dropped(self) -> None:
        self._lead += self._ring.start - self._position
        self._cursor, self._position = self._ring.first, self._ring.start
        self._places.mark(self._position - self._lead, self._position)
