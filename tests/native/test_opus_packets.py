"""What a packet says of itself without being decoded (RFC 6716 sections 3 and 4.2)."""

from __future__ import annotations

import pytest

import _native
from _native.opus import (
    BadArgument,
    Decoder,
    Encoder,
    InvalidPacket,
    packet_channels,
    packet_has_fec,
    packet_samples,
)
from tests.support.speech import speech_packets, two_cities_pcm


@pytest.mark.parametrize("configuration", range(32))
@pytest.mark.parametrize("stereo", [0, 1])
def test_reads_each_configuration_of_rfc_6716_table_2(configuration: int, stereo: int) -> None:
    frame_us = (
        (10_000, 20_000, 40_000, 60_000)[configuration % 4]
        if configuration < 12
        else (10_000, 20_000)[configuration % 2]
        if configuration < 16
        else (2_500, 5_000, 10_000, 20_000)[configuration % 4]
    )
    toc = configuration << 3 | stereo << 2
    for code, frames, rest in ((0, 1, b"\x00"), (1, 2, b"\x00\x00"), (2, 2, b"\x01\x00\x00")):
        packet = bytes([toc | code]) + rest
        assert packet_samples(packet) == 48 * frame_us * frames // 1000
        assert packet_samples(packet, 8000) == 8 * frame_us * frames // 1000
        assert packet_channels(packet) == 1 + stereo
    most = 120_000 // frame_us
    assert packet_samples(bytes([toc | 3, most])) == 48 * most * frame_us // 1000
    with pytest.raises(InvalidPacket):
        packet_samples(bytes([toc | 3, most + 1]))


@pytest.mark.parametrize(
    "packet", [b"", b"\x01\x00", b"\x02", b"\x03", b"\x03\x00", b"\x02\x05\x00"]
)
def test_what_is_no_packet_is_refused_by_every_question(packet: bytes) -> None:
    for question in (packet_samples, packet_channels, packet_has_fec):
        with pytest.raises(InvalidPacket):
            question(packet)


def test_a_rate_opus_does_not_have_is_refused() -> None:
    with pytest.raises(BadArgument, match="44100"):
        packet_samples(b"\x00\x00", 44100)


@pytest.mark.parametrize("frame_ms", [10, 20, 40, 60])
@pytest.mark.parametrize("channels", [1, 2])
def test_has_fec_exactly_when_a_decoder_finds_a_copy(frame_ms: int, channels: int) -> None:
    """Without a copy libopus conceals, so recover and conceal then give the very same sound."""
    encoder = Encoder(48000, channels, bitrate_bps=40000, fec=True, loss_percent=20)
    pcm = two_cities_pcm()
    if channels == 2:
        pcm = b"".join(pcm[at : at + 2] * 2 for at in range(0, 4 * 96000, 2))
    size = 96 * frame_ms * channels
    packets = [encoder.encode(pcm[at : at + size]) for at in range(0, 3 * 96000, size)]
    answers = set()
    for number in range(10, len(packets), 2):
        recovering, concealing = Decoder(16000), Decoder(16000)
        for packet in packets[number - 6 : number]:
            recovering.decode(packet)
            concealing.decode(packet)
        samples = 16 * frame_ms
        found = recovering.recover(packets[number], samples) != concealing.conceal(samples)
        assert packet_has_fec(packets[number]) is found
        answers.add(found)
    assert answers == {True, False}


def test_an_encoder_without_fec_sends_no_copies() -> None:
    assert not any(map(packet_has_fec, speech_packets(200, loss_percent=20)))
    assert any(map(packet_has_fec, speech_packets(200, fec=True, loss_percent=20)))


def test_music_modes_have_no_copies() -> None:
    assert packet_has_fec(bytes([31 << 3, 0xFF])) is False


def test_says_what_it_is_built_of() -> None:
    parts = _native.info()
    assert parts["libopus"].startswith("libopus 1.")
    assert parts["build"] in {"release", "debug", "sanitize"}
