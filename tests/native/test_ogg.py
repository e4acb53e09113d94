"""Ogg streams of Opus: cut anyhow, damaged, chained, joined midway; and pages written here."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _native.ogg import Demuxer, Muxer, OggError
from _native.opus import InvalidPacket, packet_samples
from tests.audio.support.packets import silk, speech
from tests.support.containers import (
    lacing_of,
    ogg_crc,
    ogg_packets,
    ogg_page,
    opus_head,
    opus_tags,
)

BEGINNING, END, CONTINUED = 2, 4, 1
PACKETS = [silk(number) for number in range(40)]


def headers(serial: int = 1, pre_skip: int = 0, channels: int = 1) -> bytes:
    head = opus_head(channels, pre_skip)
    return ogg_packets(head, serial=serial, flags=BEGINNING) + ogg_packets(
        opus_tags(), serial=serial, sequence=1
    )


def stream(packets: list[bytes], a_page: int = 5, *, serial: int = 1, last: bool = False) -> bytes:
    muxer = Muxer(serial)
    out = muxer.headers()
    for start in range(0, len(packets), a_page):
        end = last and start + a_page >= len(packets)
        out += muxer.pages(packets[start : start + a_page], last=end)
    return out


def heard(data: bytes) -> list[bytes]:
    return [packet for _, packet in Demuxer().feed(data)]


def positions(data: bytes) -> list[int]:
    return [position for position, _ in Demuxer().feed(data)]


@given(st.lists(st.binary(min_size=1, max_size=900), max_size=60), st.integers(1, 70), st.data())
def test_every_packet_that_is_written_is_read_again_however_the_bytes_are_cut(
    packets: list[bytes], a_page: int, data: st.DataObject
) -> None:
    written = stream(packets, a_page)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=8)))
    demuxer = Demuxer()
    read = []
    for start, end in zip([0, *cuts], [*cuts, len(written)], strict=True):
        read += demuxer.feed(written[start:end])
    assert [packet for _, packet in read] == packets
    assert (demuxer.faults, demuxer.skipped_bytes, demuxer.pending_bytes) == (0, 0, 0)


@pytest.mark.parametrize("size", [1, 254, 255, 256, 510, 65025, 61440])
def test_packets_go_on_over_as_many_pages_as_they_need(size: int) -> None:
    packets = [b"\x08" + bytes(size - 1), *PACKETS[:3]]
    expected = packets if size <= 61440 else packets[1:]
    assert heard(stream(packets)) == expected


def test_a_stream_comes_byte_by_byte() -> None:
    demuxer = Demuxer()
    data = stream(PACKETS)
    read = [found for byte in data for found in demuxer.feed(bytes([byte]))]
    assert read == [(960 * number, packet) for number, packet in enumerate(PACKETS)]


@given(st.binary(max_size=400))
def test_the_checksum_is_that_of_the_standard(body: bytes) -> None:
    page = ogg_packets(opus_head(), flags=BEGINNING) + ogg_page(lacing_of(body), body, sequence=1)
    demuxer = Demuxer()
    demuxer.feed(page)
    assert (demuxer.pages, demuxer.bad_pages) == (2, 0)
    assert ogg_crc(b"\x01") == 0x04C11DB7


def test_what_other_programs_write_is_read_and_what_is_written_here_they_read() -> None:
    av = pytest.importorskip("av", reason="PyAV reads and writes Ogg")
    packets = speech(100)
    container = av.open(io.BytesIO(stream(packets, last=True)))
    found = list(container.demux(audio=0))
    assert [bytes(packet) for packet in found if packet.size] == packets
    assert [packet.pts for packet in found if packet.size] == [960 * n for n in range(100)]
    assert container.streams.audio[0].codec_context.name in ("opus", "libopus")


def test_the_samples_to_skip_come_before_position_zero() -> None:
    page = ogg_packets(*PACKETS[:3], sequence=2, granule=3 * 960)
    demuxer = Demuxer()
    read = demuxer.feed(headers(pre_skip=312) + page)
    assert [position for position, _ in read] == [-312, 648, 1608]
    assert demuxer.pre_skip == 312


def test_a_recording_that_began_before_the_stream_keeps_its_clock() -> None:
    page = ogg_packets(*PACKETS[:3], sequence=2, granule=48000)
    assert positions(headers() + page) == [48000 - 2880, 48000 - 1920, 48000 - 960]


def test_packets_after_the_last_sample_are_left_out() -> None:
    last = ogg_packets(*PACKETS[:5], sequence=2, granule=2000, flags=END)
    assert heard(headers() + last) == PACKETS[:3]


def test_a_missing_page_is_seen_and_the_packet_that_went_on_in_it_is_left_out() -> None:
    long = silk(7) + bytes(600)
    first = ogg_page([255, 255], long[:510], sequence=2, granule=-1)
    third = ogg_page([len(PACKETS[0])], PACKETS[0], sequence=4, granule=3 * 960)
    demuxer = Demuxer()
    assert demuxer.feed(headers() + first + third) == [(1920, PACKETS[0])]
    assert (demuxer.missing_pages, demuxer.broken_packets, demuxer.faults) == (1, 1, 2)


def test_the_rest_of_a_packet_whose_beginning_is_missing_is_left_out() -> None:
    rest = ogg_page(
        [10, len(PACKETS[1])], bytes(10) + PACKETS[1], sequence=3, granule=960, flags=CONTINUED
    )
    demuxer = Demuxer()
    page = ogg_packets(PACKETS[0], sequence=2, granule=960)
    assert [packet for _, packet in demuxer.feed(headers() + page + rest)] == PACKETS[:2]
    assert demuxer.broken_packets == 1


@pytest.mark.parametrize("at", [0, 5, 14, 22, 26, 30, 50])
def test_a_damaged_page_is_left_out_and_the_next_one_found(at: int) -> None:
    pages = [ogg_packets(*PACKETS[n : n + 4], sequence=2 + n // 4, granule=960 * (n + 4))
             for n in range(0, 12, 4)]  # fmt: skip
    damaged = bytearray(pages[1])
    damaged[at] ^= 0x55
    demuxer = Demuxer()
    read = demuxer.feed(headers() + pages[0] + bytes(damaged) + pages[2])
    # A damaged length may make the page after it part of what is waited for: it comes in time.
    read += demuxer.feed(b"".join(stream([silk(1)] * 50, serial=9) for _ in range(60)))
    assert [packet for _, packet in read[:8]] == PACKETS[:4] + PACKETS[8:12]
    assert [position for position, _ in read[4:8]] == [960 * n for n in range(8, 12)]
    assert demuxer.missing_pages >= 1


def test_streams_follow_each_other_and_positions_go_on() -> None:
    chain = stream(PACKETS[:4], last=True) + stream(PACKETS[4:8], serial=2)
    chain += stream(PACKETS[8:12], serial=3)
    demuxer = Demuxer()
    assert demuxer.feed(chain) == [(960 * number, PACKETS[number]) for number in range(12)]
    assert demuxer.streams == 3


def test_a_sender_that_starts_again_before_any_audio_is_followed() -> None:
    assert heard(headers(serial=5) + stream(PACKETS[:4], serial=6)) == PACKETS[:4]


def test_other_streams_in_between_are_passed_over() -> None:
    theora = ogg_packets(b"\x80theora" + bytes(40), serial=9, flags=BEGINNING)
    video = ogg_packets(bytes(3000), serial=9, sequence=1)
    own = stream(PACKETS[:8])
    at = own.index(b"OggS", 4)
    middle = own.index(b"OggS", len(own) // 2)
    demuxer = Demuxer()
    read = demuxer.feed(theora + own[:at] + own[at:middle] + video + own[middle:])
    assert [packet for _, packet in read] == PACKETS[:8]
    assert demuxer.foreign_pages == 2


def test_a_sender_may_be_joined_midway() -> None:
    whole = stream(PACKETS[:20])
    midway = whole[whole.index(b"OggS", len(whole) // 2) :]
    demuxer = Demuxer()
    read = demuxer.feed(midway)
    assert [packet for _, packet in read] == PACKETS[20 - len(read) : 20]
    assert [position for position, _ in read] == [960 * n for n in range(20 - len(read), 20)]
    assert demuxer.joined_midway == 1


def test_a_piece_that_is_missing_costs_no_more_than_its_pages() -> None:
    whole = stream(PACKETS[:20])
    third = whole.index(b"OggS", 2 * len(whole) // 3)
    demuxer = Demuxer()
    read = demuxer.feed(whole[:200])
    demuxer.lost()
    read += demuxer.feed(whole[third:])
    assert [packet for _, packet in read] == PACKETS[:5] + PACKETS[15:20]
    assert demuxer.missing_pages == 2


def test_headers_with_pictures_in_them_are_passed_over_without_being_kept() -> None:
    tags = opus_tags(padding=3_000_000)
    pages = b""
    lacing = lacing_of(tags)
    for index in range(0, len(lacing), 255):
        part = lacing[index : index + 255]
        start = 255 * index
        pages += ogg_page(
            part, tags[start : start + sum(part)], sequence=1 + index // 255, granule=0,
            flags=CONTINUED if index else 0,
        )  # fmt: skip
    count = -(-len(lacing) // 255)
    audio = ogg_packets(*PACKETS[:3], sequence=1 + count, granule=2880)
    demuxer = Demuxer()
    assert [
        p for _, p in demuxer.feed(ogg_packets(opus_head(), flags=BEGINNING) + pages + audio)
    ] == PACKETS[:3]
    assert demuxer.faults == 0


def test_a_stream_without_its_second_header_is_heard_from_its_first_packet() -> None:
    audio = ogg_packets(*PACKETS[:3], sequence=1, granule=2880)
    assert heard(ogg_packets(opus_head(), flags=BEGINNING) + audio) == PACKETS[:3]


@pytest.mark.parametrize("granule", [-1, -(1 << 63), (1 << 63) - 1, 0, 5])
def test_times_that_cannot_be_are_not_believed(granule: int) -> None:
    pages = headers() + ogg_packets(*PACKETS[:2], sequence=2, granule=1920)
    pages += ogg_packets(*PACKETS[2:4], sequence=3, granule=granule)
    assert positions(pages) == [0, 960, 1920, 2880]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (ogg_packets(b"\x01vorbis" + bytes(23), flags=BEGINNING)
         + ogg_packets(bytes(100), sequence=1), "not Opus"),
        (ogg_packets(opus_head(6, family=b"\x01\x04\x02" + bytes(6)), flags=BEGINNING),
         "6 channels"),
        (ogg_packets(b"OpusHead\x21" + bytes(10), flags=BEGINNING), "version 33"),
        (b"RIFF" + bytes(200_000), "no Ogg page"),
        (b"OggS" * 60_000, "damaged"),
    ],
)  # fmt: skip
def test_what_will_never_be_opus_is_refused_with_a_reason(data: bytes, message: str) -> None:
    with pytest.raises(OggError, match=message):
        Demuxer().feed(data)


def test_pages_that_are_all_damaged_are_given_up() -> None:
    page = bytearray(ogg_packets(*PACKETS[:4], sequence=2))
    page[40] ^= 1
    demuxer = Demuxer()
    with pytest.raises(OggError, match="damaged"):
        for _ in range(100):
            demuxer.feed(bytes(page))


@pytest.mark.parametrize("code", range(4))
def test_every_packet_lasts_as_long_as_libopus_says(code: int) -> None:
    packets = []
    for configuration in range(32):
        toc = configuration << 3 | code
        counts = range(1, 49) if code == 3 else [0]
        packets += [bytes([toc, count]) if code >= 2 else bytes([toc]) for count in counts]
    at = 0
    for position, packet in Demuxer().feed(stream(packets)):
        assert position == at
        try:
            at += packet_samples(packet)
        except InvalidPacket:
            assert code == 3


@given(st.binary(max_size=300), st.randoms(use_true_random=False))
def test_damage_anywhere_leaves_only_packets_that_were_sent(
    noise: bytes, chance: random.Random
) -> None:
    data = bytearray(stream(PACKETS))
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data))
        data[at : at + chance.randrange(40)] = noise[: chance.randrange(40)]
    demuxer = Demuxer()
    try:
        read = demuxer.feed(bytes(data)) + demuxer.feed(noise)
    except OggError:
        return
    sent = {packet: number for number, packet in enumerate(PACKETS)}
    numbers = [sent[packet] for _, packet in read]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("piece", [b"OggS\x00" + bytes(21) + b"\xff" * 256, b"OggS", b"\x00" * 100])
def test_no_more_than_a_page_is_ever_held(piece: bytes) -> None:
    demuxer = Demuxer()
    try:
        for _ in range(3000):
            demuxer.feed(piece)
            assert demuxer.pending_bytes < 66_000
    except OggError:
        pass


@pytest.mark.parametrize(("channels", "pre_skip"), [(0, 0), (3, 0), (1, -1), (1, 65536)])
def test_a_stream_that_cannot_be_written_is_refused(channels: int, pre_skip: int) -> None:
    with pytest.raises(ValueError, match="channels"):
        Muxer(1, channels, pre_skip=pre_skip)


@pytest.mark.parametrize("packet", [None, "text", 3])
def test_only_bytes_are_written(packet: object) -> None:
    with pytest.raises(TypeError):
        Muxer(1).pages([packet])  # type: ignore[list-item]


def test_the_end_of_a_stream_may_be_written_without_a_packet() -> None:
    muxer = Muxer(1)
    data = muxer.headers() + muxer.pages(PACKETS[:2]) + muxer.pages([], last=True)
    demuxer = Demuxer()
    assert [packet for _, packet in demuxer.feed(data)] == PACKETS[:2]
    assert (demuxer.pages, demuxer.faults) == (4, 0)
