"""A track whose audio comes in pieces of an Ogg or WebM stream: times, losses, changes of form."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _native.ogg import Muxer
from edge.audio.origin import MediaOrigin, SessionTime
from edge.audio.pcm import PcmFormat
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack, Container, UnusableContainer
from tests.audio.support.packets import silk, speech
from tests.support.containers import cluster, opus_head, simple_block, webm, webm_header

PACKETS = [silk(300 + number) for number in range(100)]


class Ear:
    """Takes what goes through, as packets."""

    def __init__(self, track: AudioTrack) -> None:
        self.packets: list[bytes] = []
        track.open_feed(
            48000, 0, lambda batch: None, "opus", deliver_packets=self.packets.extend
        ).pump(math.inf)


def ogg_pieces(packets: list[bytes], a_page: int = 5, serial: int = 1) -> list[bytes]:
    """Headers with the first page, then a page each."""
    muxer = Muxer(serial)
    headers = muxer.headers()
    pieces = [muxer.pages(packets[at : at + a_page]) for at in range(0, len(packets), a_page)]
    return [headers + pieces[0], *pieces[1:]]


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def opened(container: Container, **changes: int) -> tuple[AudioTrack, Ear]:
    track = AudioTrack(TrackSettings(**changes))
    track.restart(container=container)
    return track, Ear(track)


def send(track: AudioTrack, pieces: list[bytes], first: int = 0, start: int = 0) -> None:
    for number, piece in enumerate(pieces, first):
        track.packet(number, start, piece, number * 0.02)
    track.finish()


@pytest.mark.parametrize("container", ["ogg", "webm"])
def test_a_piece_of_more_packets_than_anybody_records_is_refused_with_the_limit(
    container: Container,
) -> None:
    """A message has room for 20,000 packets of a byte: too much work for one turn."""
    short = b"\xe0"

    def piece(packets: int) -> bytes:
        if container == "webm":
            return webm([short] * packets)
        muxer = Muxer(1)
        return muxer.headers() + muxer.pages([short] * packets)

    track, _ = opened(container)
    track.packet(0, 0, piece(3000), 0.0)
    assert track.stats.received == 3000
    track, _ = opened(container)
    with pytest.raises(UnusableContainer, match="3001 packets; send at most 3000"):
        track.packet(0, 0, piece(3001), 0.0)


@pytest.mark.parametrize("size", [1, 37, 500, 5000])
@pytest.mark.parametrize("container", ["ogg", "webm"])
def test_pieces_of_any_size_make_the_same_audio(container: Container, size: int) -> None:
    data = b"".join(ogg_pieces(PACKETS)) if container == "ogg" else webm(PACKETS)
    track, ear = opened(container)
    send(track, cut(data, size), first=700, start=48_000)
    assert ear.packets == PACKETS
    assert [track.timeline.map_ms(ms) for ms in (0, 500, 1999)] == [1000, 1500, 2999]
    assert (track.stats.decoded, track.stats.lost, track.stats.container_faults) == (100, 0, 0)
    assert track.source == ("ogg" if container == "ogg" else "opus")


def test_the_first_piece_with_audio_says_when_it_began_later_ones_are_not_asked() -> None:
    track, _ = opened("ogg")
    for number, piece in enumerate(ogg_pieces(PACKETS)):
        track.packet(number, 9600 if number < 5 else 0, piece, 0.0)
    track.finish()
    assert (track.timeline.map_ms(0), track.timeline.map_ms(1990)) == (200, 2190)
    assert track.stats.jumps == 0


def test_without_numbers_and_times_the_container_has_its_own() -> None:
    track, ear = opened("webm")
    pause = webm_header() + cluster(0, simple_block(1, 0, PACKETS[0]))
    pause += cluster(500, simple_block(1, 0, PACKETS[1]))
    track.packet(None, None, pause, 0.0)
    track.finish()
    assert track.end_ms == 520
    assert [ear.packets[0], ear.packets[-1]] == PACKETS[:2]
    assert (track.stats.lost, track.stats.silence_ms) == (0, 480)


def test_the_samples_to_skip_lie_before_the_time_of_the_first_piece() -> None:
    track, _ = opened("webm")
    header = webm_header(private=opus_head(pre_skip=480), delay_ns=10_000_000)
    track.packet(0, 96_000, header + cluster(0, simple_block(1, 0, PACKETS[0])), 0.0)
    track.finish()
    assert track.timeline.map_ms(0) == 1990


def test_a_missing_piece_of_ogg_is_bridged_like_lost_packets() -> None:
    track, ear = opened("ogg")
    pieces = ogg_pieces(PACKETS, 2)
    for number in (0, 1, 2, 4, 5, 6):
        track.packet(number, 0, pieces[number], 0.02 * number)
    track.finish()
    lost = bytes([PACKETS[0][0]])
    assert ear.packets == [*PACKETS[:6], lost, lost, *PACKETS[8:14]]
    assert (track.stats.lost, track.stats.concealed, track.stats.container_faults) == (2, 2, 1)


def test_a_missing_piece_of_webm_costs_its_cluster_and_no_time() -> None:
    track, ear = opened("webm")
    pieces = cut(webm(PACKETS, cluster_ms=200), 300)
    for number, piece in enumerate(pieces):
        if number != 3:
            track.packet(number, 0, piece, 0.02 * number)
    track.finish()
    heard = [PACKETS.index(packet) for packet in ear.packets if packet in PACKETS]
    assert heard == sorted(heard) and set(range(50, 100)) <= set(heard) and len(heard) < 100
    assert track.end_ms == 2000
    assert track.stats.lost == 100 - len(heard)


def test_a_piece_that_comes_twice_is_heard_once() -> None:
    track, ear = opened("ogg")
    for number, piece in enumerate(ogg_pieces(PACKETS)):
        track.packet(number, 0, piece, 0.0)
        track.packet(number, 0, piece, 0.0)
    track.finish()
    assert ear.packets == PACKETS


def test_numbers_of_sixteen_bits_go_on_after_the_last_one() -> None:
    track, ear = opened("ogg")
    for number, piece in enumerate(ogg_pieces(PACKETS), 65_530):
        track.packet(number % 65_536, 0, piece, 0.0)
    track.finish()
    assert ear.packets == PACKETS
    assert track.stats.container_faults == 0


def test_a_recorder_started_again_later_goes_on_at_its_time() -> None:
    track, ear = opened("webm")
    track.packet(0, 0, webm(PACKETS[:10]), 0.0)
    track.packet(1, 48_000, webm(PACKETS[10:20]), 1.0)
    track.finish()
    assert [packet for packet in ear.packets if packet in PACKETS] == PACKETS[:20]
    assert track.timeline.map_ms(track.end_ms) == 1200


def test_long_pieces_are_waited_for_before_silence_is_made_up() -> None:
    track, _ = opened("ogg")
    pieces = ogg_pieces(PACKETS, 25)
    now_s = 0.0
    for number, piece in enumerate(pieces):
        track.packet(number, number * 24_000, piece, now_s)
        for _ in range(25):
            now_s += 0.02
            track.tick(now_s)
    assert (track.stats.silence_ms, track.end_ms) == (0, 2000)
    for _ in range(20):
        now_s += 0.02
        track.tick(now_s)
    assert track.stats.silence_ms > 0


@pytest.mark.parametrize(
    ("container", "payload"),
    [
        ("ogg", b"RIFF" + bytes(70_000)),
        ("webm", webm_header("A_VORBIS")),
        ("webm", bytes(200_000)),
    ],
)
def test_what_is_no_such_container_says_so(container: Container, payload: bytes) -> None:
    track, _ = opened(container)
    with pytest.raises(UnusableContainer):
        track.packet(0, 0, payload, 0.0)


def test_the_form_may_change_and_what_came_before_is_played_first() -> None:
    track = AudioTrack(TrackSettings(max_gap_fill_ms=0))
    heard: list[bytes] = []
    feed = track.open_feed(16000, 0, heard.append)
    feed.pump(math.inf)
    packets = speech(60)
    for number, packet in enumerate(packets[:20]):
        track.packet(100 + number, number * 960, packet, 0.0)
    track.restart(PcmFormat(rate_hz=16000, channels=1))
    for number in range(20):
        track.packet(number, (20 + number) * 960, bytes(range(64)) * 10, 0.0)
    assert track.source == "pcm"
    track.restart(container="ogg")
    assert track.source == "ogg"
    for number, piece in enumerate(ogg_pieces(packets[20:40])):
        track.packet(number, (40 + 5 * number) * 960, piece, 0.0)
    track.restart()
    for number, packet in enumerate(packets[40:]):
        track.packet(5000 + number, (60 + number) * 960, packet, 0.0)
    track.finish()
    assert (track.end_ms, track.stats.decoded, track.stats.jumps) == (1600, 80, 0)
    assert len(b"".join(heard)) == 1600 * 32
    assert track.timeline.map_ms(1599) == 1599


@given(
    st.sampled_from(["ogg", "webm"]),
    st.lists(st.integers(1, 3000), min_size=1, max_size=40),
    st.lists(st.sampled_from(["sent", "sent", "sent", "lost", "twice", "noise"]), min_size=40),
)
@settings(max_examples=100, deadline=None)
def test_whatever_happens_to_pieces_order_and_books_are_kept(
    container: Container, sizes: list[int], fates: list[str]
) -> None:
    data = b"".join(ogg_pieces(PACKETS)) if container == "ogg" else webm(PACKETS, cluster_ms=100)
    track, ear = opened(container)
    at = 0
    try:
        for number, (size, fate) in enumerate(zip(sizes * 40, fates, strict=False)):
            piece, at = data[at : at + size], at + size
            if fate != "lost":
                track.packet(number, 0, b"\xff" * size if fate == "noise" else piece, number / 50)
            if fate == "twice":
                track.packet(number, 0, piece, number / 50)
            track.tick(number / 50)
    except UnusableContainer:
        return
    track.finish()
    stats = track.stats
    heard = [PACKETS.index(packet) for packet in ear.packets if packet in PACKETS]
    assert heard == sorted(set(heard))
    assert stats.received == stats.decoded + stats.corrupt + stats.late + stats.duplicate
    assert stats.lost == stats.recovered_fec + stats.concealed + stats.silenced + stats.skipped


@pytest.mark.parametrize("begins_anew", [True, False])
@pytest.mark.parametrize("container", ["ogg", "webm"])
def test_a_sender_that_comes_back_goes_on_with_its_stream_or_with_a_new_one(
    container: Container, begins_anew: bool
) -> None:
    whole = ogg_pieces(PACKETS) if container == "ogg" else [webm(PACKETS, cluster_ms=100)]
    data = b"".join(whole)
    mark = b"OggS" if container == "ogg" else b"\x1f\x43\xb6\x75"
    half = data.index(mark, len(data) // 2)
    track, ear = opened(container)
    track.packet(0, 0, data[: half - 10], 0.0)
    track.finish()
    before = len(ear.packets)
    track.rejoin(MediaOrigin(MediaOrigin(), SessionTime(heard_ms=1000, now_ms=3000, now_s=3.0)))
    rest = data if begins_anew else data[half:]
    for number, piece in enumerate(cut(rest, 400), 9000):
        track.packet(number, 0, piece, 3.0)
    track.finish()
    sent = [packet for packet in ear.packets if packet in PACKETS]
    again = PACKETS if begins_anew else PACKETS[-(len(sent) - before) :]
    assert sent[before:] == again
    assert len(sent) - before >= 45
    assert track.timeline.map_ms(track.end_ms) == pytest.approx(3000 + 20 * len(again), abs=1)
