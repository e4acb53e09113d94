"""Opus packets to PCM: every rate and frame length, loss, damage, and the caller's buffers."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from _native.opus import (
    BadArgument,
    BufferTooSmall,
    CodecBusy,
    Decoder,
    Encoder,
    InvalidPacket,
    OpusError,
    build,
    packet_has_fec,
    packet_samples,
)
from tests.support.speech import speech_packets, two_cities_pcm
from tests.support.threads import refused_to_a_second_thread

if TYPE_CHECKING:
    from typing_extensions import Buffer

RATES_HZ = (8000, 12000, 16000, 24000, 48000)


def waveform(pcm: bytes | bytearray) -> npt.NDArray[np.float64]:
    return np.frombuffer(pcm, np.int16).astype(np.float64)


def snr_db(reference: npt.NDArray[np.float64], heard: npt.NDArray[np.float64]) -> float:
    return float(10 * np.log10(np.sum(reference**2) / np.sum((reference - heard) ** 2)))


def resampled(signal: npt.NDArray[np.float64], samples: int) -> npt.NDArray[np.float64]:
    """The same signal in fewer samples, without what lies above the new Nyquist frequency."""
    spectrum = np.fft.rfft(signal)[: samples // 2 + 1]
    return np.fft.irfft(spectrum * (samples / signal.size), samples)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_decodes_speech_straight_at_each_rate(rate_hz: int) -> None:
    packets = speech_packets(500, bitrate_bps=64000)
    decoder = Decoder(rate_hz)
    heard = waveform(b"".join(map(decoder.decode, packets)))
    assert heard.size == 10 * rate_hz
    said = resampled(waveform(two_cities_pcm()[: 10 * 96000]), heard.size)
    delay = round(0.0065 * rate_hz)
    assert snr_db(said[:-delay], heard[delay:]) > 5


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frame_ms", [2.5, 5, 10, 20, 40, 60, 80, 100, 120])
def test_decodes_every_frame_length(frame_ms: float, channels: int) -> None:
    encoder = Encoder(48000, channels, bitrate_bps=48000)
    frame = two_cities_pcm()[96000 : 96000 + int(96 * frame_ms) * channels]
    decoder = Decoder(16000)
    for _ in range(3):
        packet = encoder.encode(frame)
        assert len(decoder.decode(packet)) == 2 * packet_samples(packet, 16000) == 32 * frame_ms
        assert decoder.final_range == encoder.final_range


def test_mixes_stereo_packets_down_to_mono() -> None:
    speech = np.frombuffer(two_cities_pcm()[: 2 * 96000], np.int16)
    one_sided = np.column_stack((speech, np.zeros_like(speech)))
    encoder = Encoder(48000, 2, bitrate_bps=128000)
    mono, stereo = Decoder(48000, 1), Decoder(48000, 2)
    mixed, left = [], []
    for start in range(0, len(one_sided), 960):
        packet = encoder.encode(one_sided[start : start + 960].tobytes())
        mixed.append(waveform(mono.decode(packet)))
        left.append(waveform(stereo.decode(packet))[::2])
    both, one = np.concatenate(mixed), np.concatenate(left)
    assert snr_db(one / 2, both) > 10


def test_spreads_mono_packets_over_both_channels() -> None:
    decoder = Decoder(48000, 2)
    heard = np.frombuffer(b"".join(map(decoder.decode, speech_packets(50))), np.int16)
    assert heard.size == 2 * 48000
    assert np.array_equal(heard[::2], heard[1::2])


@pytest.mark.parametrize("rate_hz", [16000, 24000, 48000])
def test_recovery_from_the_next_packet_is_closer_to_the_truth_than_concealment(
    rate_hz: int,
) -> None:
    packets = speech_packets(600, fec=True, loss_percent=20)
    frame = rate_hz // 50
    whole, recovering, concealing = Decoder(rate_hz), Decoder(rate_hz), Decoder(rate_hz)
    truth, recovered, concealed = bytearray(), bytearray(), bytearray()
    for number, packet in enumerate(packets):
        pcm = whole.decode(packet)
        if number % 10 == 5 and packet_has_fec(packets[number + 1]):
            truth += pcm
            recovered += recovering.recover(packets[number + 1], frame)
            concealed += concealing.conceal(frame)
        else:
            recovering.decode(packet)
            concealing.decode(packet)
    assert len(truth) > 20 * 2 * frame
    reference = waveform(truth)
    assert snr_db(reference, waveform(recovered)) > snr_db(reference, waveform(concealed)) + 6


def test_a_loss_longer_than_the_copy_is_filled_whole() -> None:
    packets = speech_packets(60, fec=True, loss_percent=20)
    number = next(n for n in range(30, 60) if packet_has_fec(packets[n]))
    decoder = Decoder(16000)
    for packet in packets[: number - 3]:
        decoder.decode(packet)
    assert len(decoder.recover(packets[number], 960)) == 2 * 960
    assert len(decoder.decode(packets[number])) == 2 * 320


def test_concealment_continues_and_fades() -> None:
    decoder = Decoder(16000)
    levels = (np.abs(waveform(decoder.decode(packet))).mean() for packet in speech_packets(500))
    loud = next(level for level in levels if level > 300)
    bridged = [np.abs(waveform(decoder.conceal(320))).mean() for _ in range(20)]
    assert bridged[0] > loud / 10
    assert bridged[-1] < bridged[0] / 4


def test_decodes_on_after_a_loss() -> None:
    packets = speech_packets(60)
    whole, lossy = Decoder(16000), Decoder(16000)
    for number, packet in enumerate(packets):
        pcm = whole.decode(packet)
        heard = lossy.conceal(320) if number == 40 else lossy.decode(packet)
    assert snr_db(waveform(pcm), waveform(heard)) > 10


def test_reset_makes_a_decoder_as_new() -> None:
    packets = speech_packets(50)
    fresh, used = Decoder(16000), Decoder(16000)
    for packet in reversed(packets):
        used.decode(packet)
    used.reset()
    assert [used.decode(packet) for packet in packets] == list(map(fresh.decode, packets))


@pytest.mark.parametrize("packet", [b"", b"\xff", b"\x03\x00", b"\x03", b"\x7b\x3f", b"\x02\xff"])
def test_bytes_that_are_no_packet_are_refused_and_the_stream_goes_on(packet: bytes) -> None:
    packets = speech_packets(20)
    clean, disturbed = Decoder(16000), Decoder(16000)
    for valid in packets:
        for attempt in (disturbed.decode, lambda bad: disturbed.recover(bad, 320)):
            with pytest.raises(InvalidPacket) as raised:
                attempt(packet)
            assert raised.value.code == -4
        assert disturbed.decode(valid) == clean.decode(valid)


@given(
    st.one_of(
        st.binary(min_size=0, max_size=400),
        st.tuples(
            st.sampled_from(speech_packets(100, fec=True, loss_percent=10)),
            st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
            st.integers(0, 400),
        ).map(
            lambda made: bytes(
                dict(made[1]).get(place, byte) for place, byte in enumerate(made[0])
            )[: made[2]]
        ),
    ),
    st.sampled_from([(rate, channels) for rate in RATES_HZ for channels in (1, 2)]),
)
def test_any_bytes_decode_to_their_length_or_are_refused(
    data: bytes, form: tuple[int, int]
) -> None:
    decoder = Decoder(*form)
    try:
        samples = packet_samples(data, decoder.rate_hz)
    except InvalidPacket:
        for attempt in (decoder.decode, packet_has_fec):
            with pytest.raises(InvalidPacket):
                attempt(data)
    else:
        assert len(decoder.decode(data)) == 2 * samples * decoder.channels
        assert len(decoder.recover(data, decoder.rate_hz // 50)) == (
            decoder.rate_hz // 25 * decoder.channels
        )
    assert len(decoder.decode(speech_packets(1)[0])) == decoder.rate_hz // 25 * decoder.channels


class TestInto:
    """The caller's buffer is written exactly where it was asked to be."""

    def test_equals_decode_and_leaves_the_rest_of_the_buffer_alone(self) -> None:
        packets = speech_packets(10)
        fresh, placed = Decoder(16000), Decoder(16000)
        out = bytearray(b"\xaa" * (640 + 200))
        for offset, packet in zip(range(0, 200, 20), packets, strict=True):
            out[:] = b"\xaa" * len(out)
            assert placed.decode_into(packet, out, offset) == 320
            assert out[offset : offset + 640] == fresh.decode(packet)
            assert set(out[:offset] + out[offset + 640 :]) == {0xAA}

    def test_recover_and_conceal_equal_their_plain_forms(self) -> None:
        packets = speech_packets(40, fec=True, loss_percent=20)
        fresh, placed = Decoder(24000), Decoder(24000)
        out = bytearray(2 * 480 + 2)
        for packet in packets:
            assert placed.recover_into(packet, 480, out, 2) == 480
            assert out[2:] == fresh.recover(packet, 480)
            assert placed.conceal_into(240, out) == 240
            assert out[:480] == fresh.conceal(240)
            assert placed.decode(packet) == fresh.decode(packet)

    @pytest.mark.parametrize("out", [array("h", bytes(640)), np.zeros(320, np.int16)])
    def test_takes_any_writable_buffer(self, out: Buffer) -> None:
        packet = speech_packets(1)[0]
        assert Decoder(16000).decode_into(packet, out) == 320
        assert bytes(out) == Decoder(16000).decode(packet)

    @pytest.mark.parametrize(
        ("room", "offset"), [(638, 0), (640, 2), (0, 0), (640, 640), (640, 639)]
    )
    def test_a_buffer_too_small_is_left_as_it_was(self, room: int, offset: int) -> None:
        packet = speech_packets(1)[0]
        decoder = Decoder(16000)
        out = bytearray(room)
        with pytest.raises((BufferTooSmall, BadArgument)):
            decoder.decode_into(packet, out, offset)
        with pytest.raises((BufferTooSmall, BadArgument)):
            decoder.conceal_into(320, out, offset)
        assert out == bytearray(room)
        assert decoder.final_range == 0
        assert decoder.decode(packet) == Decoder(16000).decode(packet)

    @pytest.mark.parametrize("offset", [-2, 1001, 2**62, -(2**62)])
    def test_a_place_outside_the_buffer_is_refused(self, offset: int) -> None:
        with pytest.raises(BadArgument, match="outside"):
            Decoder(16000).decode_into(speech_packets(1)[0], bytearray(1000), offset)

    def test_a_place_between_samples_is_refused(self) -> None:
        with pytest.raises(BadArgument, match="2-byte boundary"):
            Decoder(16000).decode_into(speech_packets(1)[0], bytearray(1000), 1)

    @pytest.mark.parametrize("out", [bytes(1000), memoryview(bytearray(2000))[::2]])
    def test_read_only_and_scattered_buffers_are_refused(self, out: bytes | memoryview) -> None:
        with pytest.raises(BufferError):
            Decoder(16000).decode_into(speech_packets(1)[0], out)

    def test_what_is_no_buffer_is_refused(self) -> None:
        decoder = Decoder(16000)
        for packet, out in ((None, bytearray(640)), ("text", bytearray(640)), (b"\x00", 640)):
            with pytest.raises(TypeError):
                decoder.decode_into(packet, out)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            decoder.recover_into(None, 320, bytearray(640))  # type: ignore[arg-type]


def test_a_packet_may_be_any_bytes_like_object() -> None:
    packet = speech_packets(1)[0]
    expected = Decoder(16000).decode(packet)
    inside = memoryview(b"xx" + packet + b"yy")[2:-2]
    assert Decoder(16000).decode(bytearray(packet)) == expected
    assert Decoder(16000).decode(inside) == expected


@pytest.mark.parametrize("samples", [0, -320, 1, 39, 321, 1921, 1960, 2**40])
def test_a_loss_opus_cannot_fill_is_refused(samples: int) -> None:
    decoder = Decoder(16000)
    with pytest.raises(BadArgument, match=f"samples={samples}"):
        decoder.conceal(samples)
    with pytest.raises(BadArgument, match=f"samples={samples}"):
        decoder.recover(speech_packets(1)[0], samples)


@pytest.mark.parametrize(
    ("rate_hz", "channels"), [(44100, 1), (0, 1), (-8000, 1), (16000, 0), (16000, 3)]
)
def test_a_form_opus_does_not_have_is_refused(rate_hz: int, channels: int) -> None:
    with pytest.raises(BadArgument) as raised:
        Decoder(rate_hz, channels)
    assert isinstance(raised.value, (OpusError, ValueError))
    assert str(rate_hz if channels == 1 else channels) in str(raised.value)


def test_a_second_thread_in_the_same_decoder_is_turned_away() -> None:
    encoder = Encoder(48000, 2, bitrate_bps=128000)
    packet = encoder.encode(two_cities_pcm()[: 2 * 96 * 120])
    decoder = Decoder(48000, 2)
    assert refused_to_a_second_thread(lambda: decoder.decode(packet), CodecBusy)
    assert len(decoder.decode(packet)) == 4 * 5760


@pytest.mark.skipif(build() == "sanitize", reason="the sanitizer keeps freed memory for a while")
def test_codecs_give_their_memory_back() -> None:
    def resident_pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    def use(count: int) -> None:
        for _ in range(count):
            Encoder(16000).encode(bytes(640))
            decoder = Decoder(48000, 2)
            decoder.decode(packet)
            with pytest.raises(InvalidPacket):
                decoder.decode(b"")

    packet = speech_packets(1)[0]
    use(100)
    before = resident_pages()
    use(1000)
    assert resident_pages() - before < 4096
