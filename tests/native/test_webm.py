"""WebM recordings of Opus as browsers send them: in pieces, live, laced, damaged, joined midway."""

from __future__ import annotations

import io
import random
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _native.opus import Decoder, packet_samples
from _native.webm import Demuxer, WebmError
from tests.asr.support.tones import words_in
from tests.audio.support.packets import silk, speech
from tests.support.containers import (
    CHROMIUM_WORDS,
    block_group,
    chromium_recording,
    cluster,
    element,
    number,
    opus_head,
    simple_block,
    webm,
    webm_header,
)

PACKETS = [silk(number) for number in range(120)]


def heard(data: bytes) -> list[bytes]:
    return [packet for _, packet in Demuxer().feed(data)]


@given(st.lists(st.integers(0, 8000), max_size=8), st.integers(20, 2000))
def test_a_live_recording_is_read_however_it_is_cut(cuts: list[int], cluster_ms: int) -> None:
    recording = webm(PACKETS, cluster_ms=cluster_ms)
    places = sorted({0, *(cut % len(recording) for cut in cuts), len(recording)})
    demuxer = Demuxer()
    read = []
    for start, end in pairwise(places):
        read += demuxer.feed(recording[start:end])
    assert read == [(960 * n, packet) for n, packet in enumerate(PACKETS)]
    assert (demuxer.faults, demuxer.skipped_bytes, demuxer.pending_bytes) == (0, 0, 0)


def test_a_recording_comes_byte_by_byte() -> None:
    demuxer = Demuxer()
    read = [found for byte in webm(PACKETS) for found in demuxer.feed(bytes([byte]))]
    assert [packet for _, packet in read] == PACKETS


@pytest.mark.parametrize("live", [True, False])
def test_what_other_programs_write_is_read(live: bool) -> None:
    av = pytest.importorskip("av", reason="PyAV writes WebM")
    packets = speech(150)
    file = io.BytesIO()
    with av.open(file, "w", format="webm", options={"live": "1"} if live else {}) as container:
        stream = container.add_stream("libopus", rate=48000, layout="mono")
        for index, payload in enumerate(packets):
            packet = av.Packet(payload)
            packet.stream, packet.pts, packet.duration = stream, 960 * index, 960
            packet.time_base = Fraction(1, 48000)
            container.mux(packet)
    assert heard(file.getvalue()) == packets


def test_blocks_are_read_in_groups_and_in_clusters_of_known_size() -> None:
    blocks = [block_group(1, 20 * n, packet) for n, packet in enumerate(PACKETS[:4])]
    recording = webm_header() + cluster(0, *blocks, known_size=True)
    recording += element("1c53bb6b", bytes(300)) + element("1254c367", bytes(50))
    recording += cluster(80, simple_block(1, 0, PACKETS[4]), known_size=True)
    assert Demuxer().feed(recording) == [(960 * n, PACKETS[n]) for n in range(5)]


@pytest.mark.parametrize("lacing", [1, 2, 3])
@pytest.mark.parametrize("sizes", [[7, 7, 7], [300, 7, 600, 255], [510, 1000], [60]])
def test_laced_frames_follow_each_other(lacing: int, sizes: list[int]) -> None:
    if lacing == 2:
        sizes = [sizes[0]] * len(sizes)
    frames = [b"\x08" + bytes([index]) * (size - 1) for index, size in enumerate(sizes)]
    recording = webm_header() + cluster(100, simple_block(1, -100, *frames, lacing=lacing))
    assert Demuxer().feed(recording) == [(960 * n, frame) for n, frame in enumerate(frames)]


def test_times_are_of_the_unit_the_recording_states() -> None:
    recording = webm_header(scale_ns=100_000) + cluster(10_000, simple_block(1, 500, PACKETS[0]))
    assert Demuxer().feed(recording) == [(48 * 1050, PACKETS[0])]


@pytest.mark.parametrize(
    ("pre_skip", "delay_ns", "first"), [(312, 6_500_000, -312), (312, None, -312), (0, None, 0)]
)
def test_the_samples_to_skip_come_before_position_zero(
    pre_skip: int, delay_ns: int | None, first: int
) -> None:
    header = webm_header(private=opus_head(pre_skip=pre_skip), delay_ns=delay_ns)
    demuxer = Demuxer()
    assert demuxer.feed(header + cluster(0, simple_block(1, 0, PACKETS[0])))[0][0] == first
    assert demuxer.pre_skip == pre_skip


def test_times_that_tremble_are_smoothed_and_pauses_kept() -> None:
    trembling = [0, 17, 45, 61, 79, 100]
    blocks = [simple_block(1, at, packet) for at, packet in zip(trembling, PACKETS, strict=False)]
    recording = webm_header() + cluster(0, *blocks) + cluster(5000, simple_block(1, 0, PACKETS[6]))
    assert [position for position, _ in Demuxer().feed(recording)] == [
        *(960 * n for n in range(6)),
        240_000,
    ]


def test_a_video_beside_the_sound_is_passed_over_unread() -> None:
    video = element("ae", number("d7", 2) + number("83", 1) + element("86", b"V_VP8"))
    recording = webm_header(others=video) + cluster(
        0,
        simple_block(2, 0, bytes(2_000_000)),
        simple_block(1, 0, PACKETS[0]),
        simple_block(2, 10, bytes(300)),
        simple_block(1, 20, PACKETS[1]),
    )
    demuxer = Demuxer()
    read = []
    for start in range(0, len(recording), 30_000):
        read += demuxer.feed(recording[start : start + 30_000])
        assert demuxer.pending_bytes < 70_000
    assert [packet for _, packet in read] == PACKETS[:2]
    assert demuxer.foreign_blocks == 2


def test_a_recorder_that_is_started_again_goes_on() -> None:
    demuxer = Demuxer()
    assert demuxer.feed(webm(PACKETS[:60]) + webm(PACKETS[60:])) == [
        (960 * n, packet) for n, packet in enumerate(PACKETS)
    ]
    assert demuxer.streams == 2


def test_a_sender_may_be_joined_midway() -> None:
    recording = webm(PACKETS, cluster_ms=400)
    demuxer = Demuxer()
    read = demuxer.feed(recording[len(recording) // 2 :])
    assert [packet for _, packet in read] == PACKETS[60:] or read[0][1] in PACKETS[40:80]
    assert [packet for _, packet in read] == PACKETS[-len(read) :]
    assert demuxer.joined_midway == 1


def test_after_a_missing_piece_it_goes_on_with_the_next_cluster() -> None:
    recording = webm(PACKETS, cluster_ms=200)
    demuxer = Demuxer()
    read = demuxer.feed(recording[: len(recording) // 3])
    before = len(read)
    demuxer.lost()
    read += demuxer.feed(recording[len(recording) // 2 :])
    places = [PACKETS.index(packet) for _, packet in read]
    assert places == [*range(before), *range(places[before], 120)]
    assert places[before] % 10 == 0
    assert [position for position, _ in read] == [960 * place for place in places]
    assert demuxer.faults == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (webm_header("A_VORBIS") + cluster(0), "no Opus track here; the tracks are: A_VORBIS"),
        (webm_header(private=opus_head(6, family=b"\x01\x04\x02" + bytes(6))), "6 channels"),
        (webm_header(private=b"nothing"), "no OpusHead"),
        (element("1a45dfa3", b"") + element("1654ae6b", b""), "the tracks are: none"),
        (b"RIFF" + bytes(200_000), "no WebM cluster"),
    ],
)
def test_what_will_never_be_opus_is_refused_with_a_reason(data: bytes, message: str) -> None:
    with pytest.raises(WebmError, match=message):
        Demuxer().feed(data)


def test_a_track_that_is_encrypted_is_refused() -> None:
    entry = number("d7", 1) + element("86", b"A_OPUS") + element("6d80", bytes(4))
    tracks = element("1654ae6b", element("ae", entry))
    with pytest.raises(WebmError, match="encrypted"):
        Demuxer().feed(element("1a45dfa3", b"") + tracks)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x81",
        b"\x81\x00\x00",
        b"\x81\x00\x00\x02",
        b"\x81\x00\x00\x02\x05\xff\xff",
        b"\x81\x00\x00\x06\x03\x01",
        b"\x81\x00\x00\x04\x02abcd",
        b"\x80\x00\x00\x80abc",
        b"\x00\x00\x00\x00\x00",
        bytes(70_000),
    ],
)
def test_blocks_that_lead_out_of_themselves_are_counted_and_left_out(body: bytes) -> None:
    demuxer = Demuxer()
    recording = webm_header() + cluster(
        0, element("a3", body), simple_block(1, 0, PACKETS[0]), simple_block(1, 20, PACKETS[1])
    )
    assert [packet for _, packet in demuxer.feed(recording)] == PACKETS[:2]


@given(st.binary(max_size=60), st.randoms(use_true_random=False))
def test_damage_anywhere_takes_no_more_than_it_must(noise: bytes, chance: random.Random) -> None:
    data = bytearray(webm(PACKETS, cluster_ms=200))
    at = chance.randrange(len(data))
    data[at : at + chance.randrange(40)] = noise
    demuxer = Demuxer()
    try:
        read = demuxer.feed(bytes(data))
    except WebmError:
        return
    assert demuxer.pending_bytes < 70_000
    assert len(read) <= len(PACKETS) + len(noise)


@given(st.binary(max_size=5000))
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    demuxer = Demuxer()
    try:
        for start in range(0, len(data), 100):
            demuxer.feed(b"\x1f\x43\xb6\x75\xff" + data[start : start + 100])
    except WebmError:
        pass
    assert demuxer.pending_bytes < 70_000


def test_a_recording_of_chromium_is_read() -> None:
    """Made by its MediaRecorder (Chromium 156): three tones in packets of 60 ms."""
    demuxer = Demuxer()
    read = demuxer.feed(chromium_recording())
    assert [position for position, _ in read] == [2880 * n for n in range(53)]
    assert {packet_samples(packet) for _, packet in read} == {2880}
    assert (demuxer.channels, demuxer.pre_skip, demuxer.faults) == (2, 0, 0)
    decoder = Decoder(24000)
    pcm = b"".join(decoder.decode(packet) for _, packet in read)
    assert words_in(pcm, 24000) == CHROMIUM_WORDS
