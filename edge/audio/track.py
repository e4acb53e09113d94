"""A track: one speaker's packets in, audio for any number of recognizers out, now or again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Literal

from _native.track import NEVER, PacketIntake, PacketOrder, next_wake, waking
from edge.audio.container import Container, ContainerIntake, UnusableContainer
from edge.audio.feed import Feed, SoundAlarm
from edge.audio.lead import Lead
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
    "PacketOrder",
    "Source",
    "TrackStats",
    "UnusableContainer",
    "next_wake",
    "waking",
]

Source = Literal["opus", "ogg", "pcm"]
"""How a track's audio comes in: bare Opus packets, Opus packets in a container, or uncoded."""
Encoding = Literal["pcm16", "opus", "ogg"]
"""What a feed delivers; see ``AudioTrack.open_feed``."""

_PCM = StepKind.PCM
UNDECODED_BATCHES = 2
"""Batches of packets are so much longer: to hand one on costs nearly all that a packet does which
is not decoded. Services advise 20 to 250 ms at once."""
_SAMPLES_PER_MS = CLOCK_HZ // 1000
EXCUSED_S = 5.0
"""A sender that was kept waiting counts as ahead for so long."""


class AudioTrack:
    """Orders and times a speaker's packets and plays them to feeds.

    *Audio milliseconds* are the track's own axis: what was put out since its first sample,
    including concealment and silence. ``timeline`` maps them to the session's clock. Steps are
    kept for replay until ``forget`` releases them or too many are kept; without a feed nothing is
    decoded. All methods belong to one thread; ``now_s`` is a monotonic clock's time.
    """

    __slots__ = (
        "_container",
        "_excused_s",
        "_lead",
        "_live",
        "_ring",
        "_sequencer",
        "_source",
        "_stats",
        "batch_ms",
        "intake",
    )

    def __init__(self, settings: TrackSettings, origin: MediaOrigin | None = None) -> None:
        """``origin`` says where the connection's timestamps lie on the session's clock."""
        self._stats = TrackStats()
        self._sequencer = Sequencer(settings, self._stats, origin)
        self._ring = ReplayRing(settings.replay_ms, self._stats)
        self.batch_ms = settings.asr_batch_ms
        """Milliseconds that a feed opened from now on hands over at once."""
        self._live: tuple[Feed | SoundAlarm, ...] = ()
        self._source: Source = "opus"
        self._container: ContainerIntake | None = None
        self._excused_s = -math.inf
        self._lead = Lead(time.monotonic())
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

    @property
    def crowding(self) -> float:
        """What no feed has come to, as a share of 5 s or of half of what can be kept.

        From 1.0 on a sender that can wait should: what cannot be kept any more is dropped.
        """
        return self._ring.crowding

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
            feed.note()
        live = self._live
        if len(live) == 1:
            self.intake.due = live[0].due
        else:
            self._set_due()

    def shed(self, keep_ms: float) -> None:
        """Let the feeds pass over what is due, but for the newest ``keep_ms``: it came too late."""
        passed = max(
            (feed.shed(round(keep_ms) * _SAMPLES_PER_MS) for feed in self._live), default=0
        )
        self._stats.shed_ms += passed // _SAMPLES_PER_MS

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
                feed.meet_pcm()

    def expect(self, ms: int) -> None:
        """Packets come many at a time, up to ``ms`` of them: a pause that long is no silence.

        Until the next ``restart``, which says that they come one by one again.
        """
        self._sequencer.expect(ms * _SAMPLES_PER_MS)

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
        """Do what time alone brings about; owed within 40 ms from ``intake.order.wake_s`` on.

        Missing packets are given up, silence is made up for a sender that has stopped, and a batch
        that nothing completes is handed over.
        """
        if now_s >= self._sequencer.wake_s:
            self._wake(now_s)

    def excuse(self, now_s: float) -> None:
        """The sender is being kept waiting: what it does not send now is no silence.

        To be called more often than silence is made up.
        """
        self._excused_s = now_s
        self._sequencer.excuse(now_s)

    def is_excused(self, now_s: float) -> bool:
        """Whether its sender was kept waiting lately: it is ahead of real time."""
        return now_s - self._excused_s < EXCUSED_S

    def is_ahead(self, now_s: float) -> bool:
        """Whether its sender is well ahead of real time, which ``time.monotonic`` tells."""
        excused = self.is_excused(now_s)
        return self._lead.is_ahead(now_s, self.end_ms, excused=excused) or excused

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
        batch_ms = self.batch_ms if encoding == "pcm16" else UNDECODED_BATCHES * self.batch_ms
        if encoding == "pcm16":
            renderer = Renderer(rate_hz, batch_ms, deliver)
        elif encoding == "opus":
            renderer = PacketRenderer(batch_ms, deliver_packets or one_by_one(deliver))
        else:
            renderer = PacketRenderer(batch_ms, as_ogg(deliver))
        return Feed(
            self, self._ring, renderer, from_ms, batch_ms * _SAMPLES_PER_MS, on_form_changed
        )

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
            feed.flush()
        self._set_due()

    def go_live(self, feed: Feed) -> None:
        """A feed has caught up: it plays what comes from now on."""
        self._live = (*self._live, feed)
        if self._sequencer.wake_s == math.inf:
            feed.flush()  # nothing is coming that would complete the batch
        self._set_due()

    def leave_live(self, feed: Feed | SoundAlarm) -> None:
        """A feed will come back for what comes from now on, or not; unknown ones are fine."""
        self._live = tuple(other for other in self._live if other is not feed)
        self._set_due()
