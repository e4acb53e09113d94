"""What holds for every schedule of packets: nothing is lost from the books, or from the audio."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.audio.sequencer import Sequencer
from edge.audio.settings import TrackSettings
from edge.audio.stats import TrackStats
from edge.audio.steps import Step, StepKind
from edge.audio.track import AudioTrack
from tests.audio.support.packets import label, silk, speech

GARBAGE = b"\xff\xff"
RATES_HZ = (8000, 12000, 16000, 24000, 48000)
FATES = ("sent", "sent", "sent", "sent", "lost", "lost", "doubled", "corrupt", "empty", "dtx")
LENGTHS_MS = (10, 20, 40, 60)


@dataclass(frozen=True)
class Sent:
    """One packet as it arrives, ``delay_ms`` later than its neighbours."""

    number: int
    timestamp: int
    payload: bytes
    arrives_ms: int


@st.composite
def schedules(draw: st.DrawFn, *, speech_payloads: bool = True) -> list[Sent]:
    """A sender's packets with pauses, after a network that loses, delays, doubles and damages."""
    ms = draw(st.sampled_from(LENGTHS_MS))
    fec = draw(st.booleans())
    number = draw(st.sampled_from([0, 7, 65_520, 1_000_000]))
    media_ms = draw(st.integers(0, 10_000))
    fates = draw(st.lists(st.sampled_from(FATES), max_size=80))
    delays_ms = draw(st.lists(st.integers(0, 120), min_size=80, max_size=80))
    pauses_ms = draw(st.dictionaries(st.integers(0, 79), st.sampled_from([30, 400, 5000])))
    recorded = speech(80, ms=ms, loss_percent=30 if fec else 0) if speech_payloads else ()
    packets = []
    for index, fate in enumerate(fates):
        media_ms += pauses_ms.get(index, 0) + ms
        number += 1
        payload = recorded[index] if speech_payloads else silk(index, ms=ms, fec=fec)
        payload = {"corrupt": GARBAGE, "empty": b"", "dtx": payload[:1]}.get(fate, payload)
        delay_ms = delays_ms[index] if delays_ms[index] > 90 else 0
        if fate != "lost":
            packets.append(Sent(number, media_ms * 48, payload, media_ms + delay_ms))
        if fate == "doubled":
            packets.append(Sent(number, media_ms * 48, payload, media_ms + delay_ms + 25))
    return sorted(packets, key=lambda packet: packet.arrives_ms)


@st.composite
def numberings(draw: st.DrawFn) -> tuple[bool, int | None]:
    """Whether packets have timestamps, and where their numbers wrap (0: they have none)."""
    return draw(st.booleans()), draw(st.sampled_from([None, 1 << 16, 0]))


def number_on_the_wire(number: int, wrap: int | None) -> int | None:
    return None if wrap == 0 else number if wrap is None else number % wrap


def lost_is_accounted_for(stats: TrackStats) -> bool:
    filled = stats.recovered_fec + stats.concealed + stats.silenced + stats.skipped
    return stats.lost == filled


class Ears:
    """What a feed delivered: only how much."""

    def __init__(self, track: AudioTrack, rate_hz: int, from_ms: float) -> None:
        self.size = 0
        self.rate_hz = rate_hz
        self.feed = track.open_feed(rate_hz, from_ms, self._hear)

    def _hear(self, batch: bytes) -> None:
        self.size += len(batch)

    @property
    def heard_ms(self) -> float:
        return self.size * 1000 / (2 * self.rate_hz)


@settings(max_examples=150, deadline=None)
@given(
    schedule=schedules(),
    numbering=numberings(),
    rate_hz=st.sampled_from(RATES_HZ),
    opened_at=st.integers(0, 80),
    paused=st.tuples(st.integers(0, 80), st.integers(0, 80)),
    replays=st.lists(st.floats(-100, 8000), max_size=3),
    kept_ms=st.sampled_from([1000, 30_000]),
)
def test_every_packet_every_number_and_every_sample_is_accounted_for(
    schedule: list[Sent],
    numbering: tuple[bool, int | None],
    rate_hz: int,
    opened_at: int,
    paused: tuple[int, int],
    replays: list[float],
    kept_ms: int,
) -> None:
    timed, wrap = numbering
    track = AudioTrack(TrackSettings(replay_ms=kept_ms))
    stats = track.stats
    ears: Ears | None = None
    now_ms = schedule[0].arrives_ms if schedule else 0
    for index, packet in enumerate(schedule):
        while now_ms + 20 <= packet.arrives_ms:
            now_ms += 20
            track.tick(now_ms / 1000)
        if index == opened_at:
            ears = Ears(track, rate_hz, 0)
        if ears and index == paused[0]:
            ears.feed.pause()
        elif ears and not paused[0] < index < paused[1]:
            ears.feed.pump(500)
        track.packet(
            number_on_the_wire(packet.number, wrap),
            packet.timestamp if timed else None,
            packet.payload,
            packet.arrives_ms / 1000,
        )
        accounted = stats.decoded + stats.corrupt + stats.late + stats.duplicate + stats.empty
        assert stats.received == index + 1 == accounted + stats.unplayed + track.pending
        assert lost_is_accounted_for(stats)
    if ears is None:
        ears = Ears(track, rate_hz, 0)
    assert ears.feed.pump(math.inf)
    track.finish()
    assert track.pending == 0
    assert ears.feed.delivered_ms == track.end_ms
    assert ears.feed.audio_ms(ears.heard_ms) == track.end_ms
    if not stats.overflow_dropped_ms:
        assert ears.heard_ms == track.end_ms - ears.feed.start_ms
    for from_ms in replays:
        again = Ears(track, rate_hz, from_ms)
        again.feed.pump(math.inf)
        track.finish()
        assert again.heard_ms == track.end_ms - again.feed.start_ms


@settings(max_examples=300, deadline=None)
@given(schedule=schedules(speech_payloads=False), numbering=numberings())
def test_packets_come_out_in_order_and_at_their_time(
    schedule: list[Sent], numbering: tuple[bool, int | None]
) -> None:
    timed, wrap = numbering
    stats = TrackStats()
    sequencer = Sequencer(TrackSettings(), stats)
    steps: list[Step] = []
    now_ms = schedule[0].arrives_ms if schedule else 0
    for packet in schedule:
        while now_ms + 20 <= packet.arrives_ms:
            now_ms += 20
            if now_ms / 1000 >= sequencer.wake_s:
                steps += sequencer.tick(now_ms / 1000)
        steps += sequencer.push(
            number_on_the_wire(packet.number, wrap),
            packet.timestamp if timed else None,
            packet.payload,
            packet.arrives_ms / 1000,
        )
    steps += sequencer.flush()

    sent = {label(packet.payload): packet for packet in schedule if len(packet.payload) > 2}
    played = []
    position = 0
    for step in steps:
        if step.kind is StepKind.PACKET and len(step.payload) > 1:
            played.append(sent[label(step.payload)])
            if timed:
                heard = sequencer.timeline.map_ms(position / 48) * 48
                assert abs(heard - played[-1].timestamp) <= 48
        position += step.samples
    assert position == sequencer.end

    if wrap != 0:
        assert all(a.number < b.number for a, b in pairwise(played))
        assert stats.restarts == 0
        in_place = stats.received - stats.late - stats.duplicate - stats.empty
        numbers = [packet.number for packet in schedule if packet.payload]
        if numbers:
            assert in_place + stats.lost == max(numbers) - numbers[0] + 1
    silence = sum(step.samples for step in steps if step.kind is StepKind.SILENCE)
    assert stats.silence_ms == silence // 48


chunks = st.none() | st.integers(-10, 40) | st.integers()
timestamps = st.none() | st.integers(0, 40).map(lambda n: n * 960) | st.integers()
payloads = st.binary(max_size=8) | st.integers(0, 255).map(silk) | st.sampled_from(speech(8))
instants = st.tuples(chunks, timestamps, payloads, st.integers(0, 400))


@settings(max_examples=300, deadline=None)
@given(st.lists(instants | st.just("start"), max_size=60))
def test_no_input_whatever_costs_more_than_itself(
    events: list[tuple[int | None, int | None, bytes, int] | str],
) -> None:
    track = AudioTrack(TrackSettings())
    ears = Ears(track, 8000, 0)
    ears.feed.pump(1)
    now_s = 0.0
    packets = 0
    for event in events:
        if isinstance(event, str):
            track.restart()
            continue
        chunk, timestamp, payload, wait_ms = event
        now_s += wait_ms / 1000
        track.tick(now_s)
        track.packet(chunk, timestamp, payload, now_s)
        packets += 1
    track.finish()
    stats = track.stats
    assert track.pending == 0
    assert (
        stats.received
        == packets
        == (
            stats.decoded
            + stats.corrupt
            + stats.late
            + stats.duplicate
            + stats.empty
            + stats.unplayed
        )
    )
    assert lost_is_accounted_for(stats)
    assert ears.heard_ms == track.end_ms
    assert track.end_ms <= packets * (2000 + 120 + 120)
