"""Opus as it came, for recognizers that decode it themselves: what stands where packets don't."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _native.ogg import Demuxer
from _native.opus import Decoder, packet_channels, packet_samples
from edge.audio.packets import PacketRenderer
from edge.audio.pcm import PcmFormat
from edge.audio.settings import TrackSettings
from edge.audio.steps import Step, StepKind
from edge.audio.track import AudioTrack, Feed
from tests.audio.support.packets import silk, speech

ALL = math.inf


class Ear:
    """A recognizer that takes Opus."""

    def __init__(self, track: AudioTrack, from_ms: float = 0, encoding: str = "opus") -> None:
        self.batches: list[list[bytes]] = []
        self.pages: list[bytes] = []
        self.form_changes = 0
        self.feed: Feed = track.open_feed(
            48000,
            from_ms,
            self.pages.append,
            "ogg" if encoding == "ogg" else "opus",
            deliver_packets=lambda packets: self.batches.append(list(packets)),
            on_form_changed=self._changed,
        )
        self.feed.pump(ALL)

    def _changed(self) -> None:
        self.form_changes += 1

    @property
    def packets(self) -> list[bytes]:
        return [packet for batch in self.batches for packet in batch]

    @property
    def heard(self) -> int:
        return sum(map(packet_samples, self.packets))


def send(track: AudioTrack, packets: list[bytes], first: int = 0, ms: int = 20) -> None:
    for number, packet in enumerate(packets, first):
        track.packet(number, number * ms * 48, packet, number * ms / 1000)


def rendered(*steps: Step, batch_ms: int = 100) -> list[bytes]:
    packets: list[bytes] = []
    renderer = PacketRenderer(batch_ms, packets.extend)
    for step in steps:
        renderer.play(step)
    renderer.flush()
    return packets


@pytest.fixture
def track() -> AudioTrack:
    return AudioTrack(TrackSettings())


def test_packets_go_through_as_they_came_in_batches(track: AudioTrack) -> None:
    ear = Ear(track)
    packets = speech(14)
    send(track, packets)
    assert [len(batch) for batch in ear.batches] == [10]
    assert ear.feed.delivered_ms == 200
    track.finish()
    assert ear.packets == packets
    assert (ear.feed.delivered_ms, track.stats.decoded) == (280, 14)


def test_without_a_taker_of_batches_packets_are_delivered_one_by_one(track: AudioTrack) -> None:
    heard: list[bytes] = []
    track.open_feed(48000, 0, heard.append, "opus").pump(ALL)
    send(track, speech(10))
    assert heard == speech(10)


def test_a_lost_packet_is_one_packet_with_an_empty_frame(track: AudioTrack) -> None:
    ear = Ear(track)
    packets = [silk(number) for number in range(20)]
    send(track, packets[:5])
    send(track, packets[7:], 7)
    track.finish()
    lost = bytes([packets[0][0]])
    assert ear.packets == [*packets[:5], lost, lost, *packets[7:]]
    assert ear.heard == 20 * 960


def test_a_recognizer_that_decodes_it_hears_a_loss_bridged_as_we_would() -> None:
    packets = speech(60)
    steps = [Step(StepKind.PACKET, 960, packet) for packet in packets]
    steps.insert(50, Step(StepKind.CONCEAL, 960))
    theirs, ours = Decoder(16000), Decoder(16000)
    expected = [ours.decode(packet) for packet in packets[:50]] + [ours.conceal(320)]
    assert [theirs.decode(packet) for packet in rendered(*steps)[:51]] == expected


@pytest.mark.parametrize("ms", [10, 20, 40, 60, 120])
@pytest.mark.parametrize("stereo", [False, True])
def test_what_stands_for_a_loss_is_as_long_as_the_packet_before_it(ms: int, stereo: bool) -> None:
    packet = silk(1, ms=ms, stereo=stereo)
    found = rendered(Step(StepKind.PACKET, ms * 48, packet), Step(StepKind.FEC, ms * 48, packet))
    assert len(found) == 2
    assert packet_samples(found[1]) == ms * 48
    assert packet_channels(found[1]) == packet_channels(packet)


@given(st.integers(1, 48), st.integers(0, 255))
def test_a_loss_of_any_length_after_any_packet_has_its_length(units: int, toc: int) -> None:
    before = bytes([toc & 0xFC, 0, 0])
    found = rendered(
        Step(StepKind.PACKET, packet_samples(before), before), Step(StepKind.CONCEAL, units * 120)
    )
    assert sum(map(packet_samples, found[1:])) == units * 120


@pytest.mark.parametrize("channels", [1, 2])
def test_silence_is_packets_that_decode_to_nothing(channels: int) -> None:
    packets = speech(60, channels=channels)
    steps = [Step(StepKind.PACKET, 960, packet) for packet in packets]
    found = rendered(*steps, *[Step(StepKind.SILENCE, 4800)] * 3)
    assert {packet_channels(packet) for packet in found} == {channels}
    decoder = Decoder(16000)
    sound = [decoder.decode(packet) for packet in found]
    assert len(b"".join(sound[60:])) == 2 * 4800
    assert not any(b"".join(sound[62:]))


@given(st.lists(st.integers(1, 100), max_size=30))
def test_silences_of_any_length_are_never_more_than_a_packet_off(lengths_ms: list[int]) -> None:
    packets: list[bytes] = []
    renderer = PacketRenderer(20, packets.extend)
    played = 0
    for length_ms in lengths_ms:
        renderer.play(Step(StepKind.SILENCE, length_ms * 48))
        played += length_ms * 48
        assert 0 <= played - renderer.waiting - sum(map(packet_samples, packets)) < 120 or (
            renderer.waiting
        )
    renderer.flush()
    assert 0 <= played - sum(map(packet_samples, packets)) < 120


@given(
    st.lists(st.sampled_from(["sent", "sent", "lost", "paused", "damaged", "dtx"]), max_size=80),
    st.sampled_from([10, 20, 60]),
)
@settings(max_examples=80, deadline=None)
def test_it_lasts_as_long_as_the_track_says_and_every_packet_is_in_it(
    fates: list[str], ms: int
) -> None:
    track = AudioTrack(TrackSettings())
    ear = Ear(track)
    at_ms = 0
    sent = []
    for number, fate in enumerate(fates, 1):
        packet = {"damaged": b"\xff\xff", "dtx": silk(number, ms=ms)[:1]}.get(
            fate, silk(number, ms=ms)
        )
        at_ms += 1230 if fate == "paused" else ms
        if fate != "lost":
            track.packet(number, at_ms * 48, packet, at_ms / 1000)
            sent += [packet] * (fate != "damaged")
        track.tick(at_ms / 1000)
    track.finish()
    assert abs(ear.heard - track.end_ms * 48) < 120
    assert ear.feed.delivered_ms == track.end_ms
    assert track.stats.decoded == len(sent)
    assert [packet for packet in ear.packets if len(packet) > 3] == [p for p in sent if len(p) > 3]


def test_packets_can_be_had_as_an_ogg_stream(track: AudioTrack) -> None:
    ear = Ear(track, encoding="ogg")
    packets = speech(23)
    send(track, packets[:10])
    send(track, packets[12:], 12)
    track.finish()
    assert [page[:4] for page in ear.pages] == [b"OggS"] * len(ear.pages)
    demuxer = Demuxer()
    read = [found for page in ear.pages for found in demuxer.feed(page)]
    assert [position for position, _ in read] == [960 * number for number in range(23)]
    assert [packet for _, packet in read if len(packet) > 1] == packets[:10] + packets[12:]
    assert demuxer.faults == 0


def test_a_feed_of_packets_ends_where_pcm_begins(track: AudioTrack) -> None:
    ear = Ear(track)
    packets = speech(13)
    send(track, packets)
    assert (track.source, ear.feed.form_changed) == ("opus", False)
    track.restart(PcmFormat(rate_hz=16000, channels=1))
    assert ear.packets == packets
    assert (track.source, ear.feed.form_changed, ear.form_changes) == ("pcm", True, 1)
    track.packet(0, 13 * 960, bytes(640), 0.26)
    assert ear.feed.pump(ALL)
    assert ear.feed.delivered_ms == 260
    heard: list[bytes] = []
    rest = track.open_feed(16000, ear.feed.delivered_ms, heard.append)
    assert rest.pump(ALL)
    track.packet(1, 14 * 960, bytes(640), 0.28)
    track.finish()
    assert (rest.start_ms, len(b"".join(heard))) == (260, 1280)
    assert ear.packets == packets


def test_a_replay_of_packets_ends_where_kept_pcm_begins(track: AudioTrack) -> None:
    send(track, speech(10))
    track.restart(PcmFormat(rate_hz=16000, channels=1))
    track.packet(0, 10 * 960, bytes(640), 0.2)
    track.restart()
    send(track, speech(20)[11:], 11)
    assert track.source == "opus"
    assert [track.source_at(ms) for ms in (0, 199, 200, 219, 220, 1000)] == [
        "opus", "opus", "pcm", "pcm", "opus", "opus",
    ]  # fmt: skip
    ear = Ear(track)
    assert ear.packets == speech(10)
    assert (ear.feed.form_changed, ear.feed.delivered_ms) == (True, 200)
    later = Ear(track, 220)
    track.finish()
    assert later.packets == speech(20)[11:]


def test_a_feed_opened_for_packets_while_pcm_comes_in_is_over_at_once(track: AudioTrack) -> None:
    track.restart(PcmFormat(rate_hz=16000, channels=1))
    ear = Ear(track)
    assert (ear.feed.form_changed, ear.form_changes) == (True, 1)
    track.packet(0, 0, bytes(640), 0.0)
    track.finish()
    assert ear.packets == []


def test_a_closed_feed_is_told_nothing(track: AudioTrack) -> None:
    ear = Ear(track)
    ear.feed.close()
    send(track, speech(10))
    track.restart(PcmFormat(rate_hz=16000, channels=1))
    assert (ear.batches, ear.form_changes) == ([], 0)
