"""PCM to Opus packets, as the demo, the load generator and the tests need them."""

from __future__ import annotations

from typing import Any

import pytest

from _native.opus import BadArgument, Decoder, Encoder, InvalidPacket, packet_samples
from tests.support.speech import speech_packets, two_cities_pcm


@pytest.mark.parametrize("bitrate_bps", [16000, 24000, 32000, 64000])
def test_keeps_to_its_bit_rate(bitrate_bps: int) -> None:
    packets = speech_packets(1000, bitrate_bps=bitrate_bps)
    bits_per_second = 8 * sum(map(len, packets)) / 20
    assert 0.6 * bitrate_bps < bits_per_second < 1.15 * bitrate_bps


def test_dtx_marks_what_need_not_be_sent() -> None:
    encoder = Encoder(dtx=True)
    decoder = Decoder(16000)
    assert encoder.in_dtx is False
    marked = 0
    for _ in range(50):
        packet = encoder.encode(bytes(1920))
        assert encoder.in_dtx == (len(packet) <= 2)
        marked += encoder.in_dtx
        assert len(decoder.decode(packet)) == 640
    assert marked > 25
    encoder.reset()
    assert encoder.in_dtx is False


def test_without_dtx_silence_is_sent() -> None:
    encoder = Encoder()
    assert all(len(encoder.encode(bytes(1920))) > 2 for _ in range(50))


def test_says_how_late_decoded_audio_comes() -> None:
    assert Encoder(48000).lookahead_samples == 312
    assert Encoder(16000).lookahead_samples == 104


def test_reset_makes_an_encoder_as_new() -> None:
    pcm = two_cities_pcm()
    frames = [pcm[start : start + 1920] for start in range(0, 50 * 1920, 1920)]
    fresh, used = Encoder(), Encoder()
    for frame in reversed(frames):
        used.encode(frame)
    used.reset()
    assert list(map(used.encode, frames)) == list(map(fresh.encode, frames))


def test_the_highest_rate_of_the_longest_frame_fits() -> None:
    encoder = Encoder(48000, 2, bitrate_bps=512000)
    packet = encoder.encode(two_cities_pcm()[: 4 * 5760])
    assert packet_samples(packet) == 5760
    assert len(Decoder(48000, 2).decode(packet)) == 4 * 5760


@pytest.mark.parametrize("size", [0, 1, 2, 1919, 1921, 960 * 2 + 240, 30 * 96, 140 * 96])
def test_pcm_that_is_no_frame_is_refused(size: int) -> None:
    with pytest.raises(BadArgument, match=f"{size} bytes of PCM are no frame"):
        Encoder().encode(bytes(size))


def test_pcm_between_samples_is_refused() -> None:
    with pytest.raises(BadArgument, match="2-byte boundary"):
        Encoder().encode(memoryview(bytes(1921))[1:])


@pytest.mark.parametrize(
    "options",
    [
        {"bitrate_bps": 0},
        {"bitrate_bps": 600000},
        {"loss_percent": -1},
        {"loss_percent": 101},
        {"complexity": -1},
        {"complexity": 11},
        {"rate_hz": 44100},
        {"channels": 6},
    ],
)
def test_an_option_opus_does_not_have_is_refused_by_name(options: dict[str, Any]) -> None:
    (name, value), *_ = options.items()
    with pytest.raises(BadArgument, match=f"{name}={value}"):
        Encoder(**options)


def test_a_packet_is_not_pcm() -> None:
    with pytest.raises(TypeError):
        Encoder().encode(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidPacket):
        Decoder(16000).decode(b"")
