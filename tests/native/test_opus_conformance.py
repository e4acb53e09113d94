"""The official bit streams of RFC 6716 and RFC 8251 decode as the standard demands."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from _native.opus import Decoder, packet_channels, packet_samples
from tests.support.speech import shared_folder

Spectra = npt.NDArray[np.float64]

BAND_EDGES = (0, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 68, 80, 96, 120, 156, 200)


@pytest.fixture(scope="module")
def vectors() -> Path:
    return shared_folder("EDGESCRIBE_OPUS_VECTORS", "opus_vectors")


def packets(stream: Path) -> list[tuple[bytes, int]]:
    """Each packet with the encoder's final range: ``{u32be length, u32be range, bytes}*``."""
    data = stream.read_bytes()
    found = []
    place = 0
    while place < len(data):
        length, final_range = struct.unpack_from(">II", data, place)
        place += 8 + length
        found.append((data[place - length : place], final_range))
    return found


@pytest.mark.parametrize("number", range(1, 13))
@pytest.mark.parametrize(("rate_hz", "channels"), [(48000, 2), (48000, 1), (24000, 1), (16000, 1)])
def test_final_range_matches_for_every_packet(
    vectors: Path, number: int, rate_hz: int, channels: int
) -> None:
    decoder = Decoder(rate_hz, channels)
    out = bytearray(2 * channels * rate_hz * 120 // 1000)
    for packet, final_range in packets(vectors / f"testvector{number:02}.bit"):
        assert packet_samples(packet, rate_hz) == decoder.decode_into(packet, out)
        assert decoder.final_range == final_range
        assert packet_channels(packet) in (1, 2)


def spectra(pcm: bytes) -> Spectra:
    """Power of 10 ms Hann windows each 2.5 ms: frames x channels x 200 frequencies."""
    samples = np.frombuffer(pcm, "<i2").reshape(-1, 2).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(samples, 480, axis=0)[::120]
    window = 0.5 - 0.5 * np.cos(2 * np.pi / 479 * np.arange(480))
    return np.abs(np.fft.rfft(windows * window)[..., : BAND_EDGES[-1]]) ** 2 + 100_000


def masking(reference: Spectra) -> Spectra:
    """What the reference hides, per frame, channel and frequency: neighbours in pitch and time."""
    widths = np.diff(BAND_EDGES)
    bands = np.add.reduceat(reference, BAND_EDGES[:-1], axis=2) / widths
    for band in range(1, len(widths)):
        bands[..., band] += 0.1 * bands[..., band - 1]
    for band in range(len(widths) - 2, -1, -1):
        bands[..., band] += 0.03 * bands[..., band + 1]
    for frame in range(len(bands)):
        if frame:
            bands[frame] += 0.5 * bands[frame - 1]
        bands[frame] += 0.01 * bands[frame, ::-1]
    return 0.1 * np.repeat(bands, widths, axis=2)


def quality_percent(reference_pcm: bytes, pcm: bytes) -> float:
    """The rule of RFC 6716's ``opus_compare`` for 48 kHz stereo: below 0 is a failure."""
    reference, heard = spectra(reference_pcm), spectra(pcm)
    mask = masking(reference)
    reference, heard = reference + mask, heard + mask
    for power in (reference, heard):
        power[1:] += power[:-1].copy()
    ratio = heard / reference
    difference = ratio - np.log(ratio) - 1
    difference[..., 79:82] *= 0.1
    difference[..., 80] *= 0.1
    per_band = np.add.reduceat(difference.mean(axis=1), BAND_EDGES[:-1], axis=1)
    per_frame = np.mean((per_band / np.diff(BAND_EDGES)) ** 2, axis=1)
    error = np.mean(per_frame**4) ** (1 / 16)
    return float(100 * (1 - 0.5 * np.log(1 + error) / np.log(1.13)))


def test_sound_matches_the_reference_decoder(vectors: Path) -> None:
    reference = (vectors / "testvector03.dec").read_bytes()
    decoder = Decoder(48000, 2)
    pcm = b"".join(decoder.decode(data) for data, _ in packets(vectors / "testvector03.bit"))
    assert len(pcm) == len(reference)
    assert quality_percent(reference, pcm) > 0
    assert quality_percent(reference, pcm[4:] + bytes(4)) < quality_percent(reference, pcm)
