"""Packets as they arrive become steps in the order of their numbers, on the clock of their times.

No sockets, no timers, no decoder: packets and the time of day come in, steps go out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from _native.opus import InvalidPacket, packet_has_fec, packet_samples
from _native.track import PacketOrder
from edge.audio.numbering import Numbering
from edge.audio.origin import MediaOrigin
from edge.audio.pcm import PcmFormat, PcmIntake
from edge.audio.settings import TrackSettings
from edge.audio.stats import TrackStats
from edge.audio.steps import CLOCK_HZ, Step, StepKind, bare_step, whole_ms
from edge.audio.timeline import Timeline

_PACKET = StepKind.PACKET
_FRAME = CLOCK_HZ // 50
_SAMPLES_PER_MS = CLOCK_HZ // 1000
# Decoders conceal and recover in units of 2.5 ms (RFC 6716 section 2.1.4).
_CODEC_UNIT = CLOCK_HZ // 400
_MAX_CONCEAL = CLOCK_HZ * 120 // 1000
# A long silence is cut up, so that a replay can begin inside it.
_SILENCE_STEP = CLOCK_HZ // 10
# Silence is whole milliseconds: whole samples at every rate. What is left over stays owed.
_TOLERANCE = _SAMPLES_PER_MS
# No pause is that long: the timestamp is damaged, or the sender's clock is another one.
_ABSURD_GAP = CLOCK_HZ * 3600
_DTX_BYTES = 2
# A tick that comes this late says that the whole worker stood still, not that the sender paused.
_STALL_S = 0.1


class _Arrival(msgspec.Struct, frozen=True, gc=False):
    """A packet on its way to its place; ``samples`` is 0 if it is corrupt."""

    chunk: int | None
    timestamp: int | None
    payload: bytes
    samples: int
    arrived_s: float


class Sequencer(PacketOrder):
    """One track's order and clock.

    Each method that returns steps returns those that are now due, in playing order. ``now_s`` is a
    monotonic clock's time.
    """

    __slots__ = (
        "_concealed",
        "_held",
        "_idle",
        "_idle_after_s",
        "_max_gap",
        "_offset",
        "_origin",
        "_pcm",
        "_piece",
        "_postponed",
        "_reorder_packets",
        "_reorder_wait_s",
        "_returning",
        "_silence",
        "_slack",
        "timeline",
    )

    def __init__(
        self, settings: TrackSettings, stats: TrackStats, origin: MediaOrigin | None = None
    ) -> None:
        self._reorder_packets = settings.reorder_packets
        self._reorder_wait_s = settings.reorder_wait_ms / 1000
        self._idle_after_s = settings.idle_fill_after_ms / 1000
        self.patience_s = self._idle_after_s
        """How long after a packet its sender counts as stopped."""
        self._max_gap = settings.max_gap_fill_ms * _SAMPLES_PER_MS
        self.stats = stats
        self._pcm: PcmIntake | None = None
        """How payloads are read if they are not Opus packets."""
        self.numbers = Numbering()
        self._held: dict[int, _Arrival] = {}
        """Packets that overtook a missing one, by position."""
        self.clock = 0
        """Media time of the end of what was put out."""
        self.anchored = False
        """Whether a timestamp has ever set the clock."""
        self._origin = origin or MediaOrigin()
        self._offset = 0
        """Session time minus media time."""
        self._returning = True
        """Whether the next timestamp may be on another time base than those before."""
        self.frame = _FRAME
        """Length of the last packet."""
        self._piece = 0
        """Samples that packets bring together, where they do not come one by one."""
        self._concealed = 0
        """Samples concealed since the last good packet."""
        self._idle = 0
        """Samples of silence made up since the last packet."""
        self._silence = 0
        self._slack = 0
        """Samples by which timestamps are ahead of what was put out: too few to act on."""
        self._postponed = False
        self.unsettled = False
        """Whether the next packet needs more than a look at its number and its time."""
        self.timeline = Timeline()
        self.end = 0
        """Samples put out so far."""
        self.speech_end = 0
        """Where the last packet that carried sound ends."""
        self.last_packet_s: float | None = None
        """When the last packet came that was put out or held."""
        self.wake_s = math.inf
        """When ``tick`` has something to do next."""

    @property
    def is_idle(self) -> bool:
        """Whether silence has been made up since the last packet."""
        return self._idle > 0

    @property
    def held_packets(self) -> int:
        """Good packets waiting for one they overtook."""
        return sum(1 for packet in self._held.values() if packet.samples)

    def push(
        self, chunk: int | None, timestamp: int | None, payload: bytes, now_s: float
    ) -> Sequence[Step]:
        """Take a packet: its number, its media time in 48 kHz samples, its bytes.

        Without a number it is next in order; without a time it follows the one before.
        """
        self.stats.received += 1
        pcm = self._pcm
        try:
            samples = packet_samples(payload) if pcm is None else pcm.measure(payload)
        except InvalidPacket:
            samples = 0
        numbers = self.numbers
        if (
            timestamp != self.clock
            or chunk != numbers.expected
            or self.unsettled
            or not (samples and self.anchored)
        ):
            return self._take(_Arrival(chunk, timestamp, payload, samples, now_s))
        if chunk is not None:
            numbers.expected = chunk + 1
        if samples == self.frame:
            samples = self.frame  # one int for all kept steps, not one each
        else:
            self._set_frame(samples)
        self.clock += samples
        self.end += samples
        if len(payload) > _DTX_BYTES:
            self.speech_end = self.end
        self.last_packet_s = now_s
        self.wake_s = now_s + self.patience_s
        return (Step(_PACKET, samples, payload),)

    def restart(self, pcm: PcmFormat | None = None) -> Sequence[Step]:
        """The sender announced a new source of Opus or PCM: its numbers may be anything."""
        steps = self.flush()
        self.numbers.release()
        if pcm != (self._pcm and self._pcm.format):
            self._pcm = PcmIntake(pcm) if pcm else None
            self._concealed = 0
            self._set_frame(_FRAME)
            self._settle()
        return steps

    def expect(self, samples: int) -> None:
        """Packets come many at a time, up to so many samples of them: time for the next is longer.

        0 says that they come one by one again.
        """
        self._piece = samples
        self._set_frame(self.frame)
        self._settle()

    def rejoin(self, origin: MediaOrigin) -> Sequence[Step]:
        """Packets come over another connection now: their numbers and their time base are new."""
        steps = self.flush()
        self.numbers.release()
        self._origin, self._returning = origin, True
        self._settle()
        return steps

    def now_ms(self, now_s: float) -> float | None:
        """What the session's clock says, going by the last packet; None before the first."""
        if self.last_packet_s is None:
            return None
        last_ms = self.timeline.map_ms((self.end - self._idle) / _SAMPLES_PER_MS)
        return last_ms + 1000 * (now_s - self.last_packet_s)

    def flush(self) -> Sequence[Step]:
        """Give up waiting for missing packets."""
        steps: list[Step] = []
        while self._held:
            self._give_up(steps)
        self._settle()
        return steps

    def excuse(self, now_s: float) -> None:
        """The sender is not silent, it is not being read; unless it was silent before."""
        if self.last_packet_s is not None and not (self._held or self._idle):
            self.last_packet_s = now_s
            self.wake_s = now_s + self.patience_s

    def tick(self, now_s: float) -> Sequence[Step]:
        """Do what is due by ``now_s``; worth calling only when ``wake_s`` has come."""
        if now_s - self.wake_s > _STALL_S and not self._postponed:
            # Packets that came meanwhile are still to be read.
            self._postponed = True
            return ()
        self._postponed = False
        steps: list[Step] = []
        if self._held:
            self._expire(now_s, steps)
            self._settle()
        elif self.last_packet_s is not None:
            self._fill_idle(now_s, self.last_packet_s, steps)
        return steps

    def _take(self, packet: _Arrival) -> Sequence[Step]:
        steps: list[Step] = []
        if not packet.payload:
            self.stats.empty += 1
        elif packet.chunk is None:
            while self._held:
                self._give_up(steps)
            self.numbers.release()
            self._accept(packet)
            self._play(packet, 0, steps)
        else:
            self._place(packet, packet.chunk, steps)
        self._settle()
        return steps

    def _place(self, packet: _Arrival, chunk: int, steps: list[Step]) -> None:
        numbers, stats = self.numbers, self.stats
        if numbers.expected is None:
            numbers.restart_at(chunk)
        assert numbers.expected is not None
        ahead = numbers.distance(chunk, numbers.expected)
        if ahead is None or numbers.is_restart(chunk, ahead, stats.received):
            while self._held:
                self._give_up(steps)
            numbers.restart_at(chunk)
            stats.restarts += 1
            ahead = 0
        position = numbers.position + ahead
        if position in self._held or (ahead < 0 and numbers.was_played(position)):
            stats.duplicate += 1
            return
        if ahead < 0:
            stats.late += 1
            return
        self._accept(packet)
        if self._held and position < max(self._held):
            stats.reordered += 1
        self._held[position] = packet
        self._release(steps)
        while len(self._held) > self._reorder_packets:
            self._give_up(steps)
        self._expire(packet.arrived_s, steps)

    def _accept(self, packet: _Arrival) -> None:
        self.last_packet_s = packet.arrived_s
        if not packet.samples:
            self.stats.corrupt += 1

    def _release(self, steps: list[Step]) -> None:
        """Play what is held as far as no number is missing."""
        numbers = self.numbers
        while (packet := self._held.pop(position := numbers.position, None)) is not None:
            self._advance(position, packet, 0, steps)

    def _give_up(self, steps: list[Step]) -> None:
        """Take the packets missing before the first held one as lost."""
        position = min(self._held)
        lost = position - self.numbers.position
        self.stats.lost += lost
        self._advance(position, self._held.pop(position), lost, steps)
        self._release(steps)

    def _expire(self, now_s: float, steps: list[Step]) -> None:
        while self._held and self._waited_until_s() <= now_s:
            self._give_up(steps)

    def _waited_until_s(self) -> float:
        return min(packet.arrived_s for packet in self._held.values()) + self._reorder_wait_s

    def _advance(self, position: int, packet: _Arrival, lost: int, steps: list[Step]) -> None:
        assert packet.chunk is not None
        self.numbers.advance(position, packet.chunk)
        self._play(packet, lost, steps)

    def _play(self, packet: _Arrival, lost: int, steps: list[Step]) -> None:
        """Put out a packet and before it whatever fills the time that is missing."""
        if self._returning and packet.timestamp is not None:
            self._rebase(packet.timestamp, packet.arrived_s)
        owed = self._owed(packet.timestamp, lost)
        self._fill_gap(owed, lost, packet, steps)
        if packet.timestamp is not None:
            self._set_clock(packet.timestamp)
        self._idle = 0
        if packet.samples:
            self._set_frame(packet.samples)
            self._concealed = 0
            self._put_out(packet, steps)
        elif self._pcm:
            self._be_silent(whole_ms(self.frame), steps)
        elif self._concealed + self.frame <= _MAX_CONCEAL:
            self._conceal(self.frame, steps)
        else:
            self._be_silent(self.frame, steps)

    def _put_out(self, packet: _Arrival, steps: list[Step]) -> None:
        if self._pcm is None:
            step = Step(_PACKET, packet.samples, packet.payload)
            has_sound = len(packet.payload) > _DTX_BYTES
        else:
            step = self._pcm.step(packet.payload)
            has_sound = step.payload.count(0) < len(step.payload)
        steps.append(step)
        self._move(step.samples)
        if has_sound:
            self.speech_end = self.end

    def _rebase(self, timestamp: int, now_s: float) -> None:
        """Go on counting in the time base of a new connection, from the same session time."""
        offset = self._origin.offset(timestamp, now_s)
        if self.anchored:
            self.clock += self._offset - offset
        self._offset = offset
        self._returning = False

    def _set_clock(self, timestamp: int) -> None:
        """What is put out next has this media time."""
        slack = self._slack + timestamp - self.clock
        if not self.anchored or abs(slack) >= _TOLERANCE:
            self.stats.jumps += self.anchored
            self.timeline.mark(self.end, timestamp + self._offset)
            slack = 0
        self.anchored = True
        self._slack = slack
        self.clock = timestamp

    def _owed(self, timestamp: int | None, lost: int) -> int:
        """Samples missing before a packet, negative when there are too many already."""
        if timestamp is None or not self.anchored:
            return max(0, lost * self.frame - self._idle)
        return timestamp - self.clock + self._slack

    def _fill_gap(self, owed: int, lost: int, packet: _Arrival, steps: list[Step]) -> None:
        """Bridge lost packets first, then be silent, and recover the last one last.

        Of PCM nothing is known that could bridge a loss: it is silent.
        """
        frame = self.frame
        loss = 0
        if self._pcm is None:
            loss = max(0, min(lost * frame, owed)) // _CODEC_UNIT * _CODEC_UNIT
        recovered = 0
        if loss and packet.samples and packet_has_fec(packet.payload):
            recovered = min(frame, loss)
        concealed = min(loss - recovered, max(0, _MAX_CONCEAL - self._concealed))
        bridged = recovered + concealed
        silence = 0
        if owed < _ABSURD_GAP:
            room = self._max_gap - self._idle - bridged
            silence = whole_ms(max(0, min(owed - bridged, room)))
        if lost:
            silent_frames = (self._idle + silence + _TOLERANCE - 1) // frame
            self._count_loss(lost, concealed, recovered, silent_frames)
        while concealed > 0:
            self._conceal(min(frame, concealed), steps)
            concealed -= frame
        if silence:
            self._be_silent(silence, steps)
        if recovered:
            steps.append(Step(StepKind.FEC, recovered, packet.payload))
            self._move(recovered)

    def _count_loss(self, lost: int, concealed: int, recovered: int, silent_frames: int) -> None:
        stats = self.stats
        frames = -(-concealed // self.frame)
        stats.concealed += frames
        lost -= frames
        if recovered:
            stats.recovered_fec += 1
            lost -= 1
        silenced = min(lost, silent_frames)
        stats.silenced += silenced
        stats.skipped += lost - silenced

    def _fill_idle(self, now_s: float, since_s: float, steps: list[Step]) -> None:
        """Be silent for as long as the sender has been, in whole frames of 20 ms.

        A packet arrives when its sound is over, so the last packet's length is still open.
        """
        span = max(self.frame, self._piece)
        passed = round((now_s - since_s) * CLOCK_HZ) - span
        wanted = min(passed, self._max_gap) // _FRAME * _FRAME
        if wanted > self._idle:
            self._be_silent(wanted - self._idle, steps)
            self._idle = wanted
            self.unsettled = True
        if self._idle + _FRAME > self._max_gap:
            self.wake_s = math.inf
        else:
            self.wake_s = since_s + (span + self._idle + _FRAME) / CLOCK_HZ

    def _be_silent(self, samples: int, steps: list[Step]) -> None:
        self._move(samples)
        self._silence += samples
        self.stats.silence_ms = self._silence // _SAMPLES_PER_MS
        while samples > 0:
            steps.append(bare_step(StepKind.SILENCE, min(samples, _SILENCE_STEP)))
            samples -= _SILENCE_STEP

    def _conceal(self, samples: int, steps: list[Step]) -> None:
        steps.append(bare_step(StepKind.CONCEAL, samples))
        self._concealed += samples
        self._move(samples)

    def _set_frame(self, samples: int) -> None:
        self.frame = samples
        span = max(samples, self._piece)
        self.patience_s = self._idle_after_s + (span - _FRAME) / CLOCK_HZ

    def _move(self, samples: int) -> None:
        self.end += samples
        self.clock += samples

    def _settle(self) -> None:
        """Choose between the short and the long way for the next packet, and the next tick."""
        self.unsettled = bool(
            self._held or self._idle or self._concealed or self._pcm or self._returning
        )
        if self._held:
            self.wake_s = self._waited_until_s()
        elif self.last_packet_s is not None:
            self.wake_s = self.last_packet_s + self.patience_s
