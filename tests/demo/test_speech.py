"""Reading WAV files: what is taken, and one clear line for what isn't."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from edge.demo.speech import BadRecording, demo_recordings, read_wav, resample
from tests.demo.recordings import tone, write_wav


@pytest.mark.parametrize("rate_hz", [8000, 12000, 16000, 24000, 48000])
def test_rates_of_opus_are_taken_as_they_are(tmp_path: Path, rate_hz: int) -> None:
    speech = tone(0.1, rate_hz)
    assert read_wav(write_wav(tmp_path / "a.wav", speech.pcm, rate_hz)) == speech


@pytest.mark.parametrize(
    ("rate_hz", "becomes"), [(11025, 12000), (22050, 24000), (32000, 48000), (44100, 48000)]
)
def test_other_rates_are_resampled_upwards(tmp_path: Path, rate_hz: int, becomes: int) -> None:
    speech = read_wav(write_wav(tmp_path / "a.wav", tone(0.5, rate_hz).pcm, rate_hz))
    assert speech.rate_hz == becomes
    assert speech.duration_s == pytest.approx(0.5, abs=0.001)


@pytest.mark.parametrize(
    ("from_hz", "to_hz"), [(44100, 48000), (22050, 24000), (96000, 48000), (48000, 16000)]
)
def test_resampling_keeps_a_tone_and_its_phase(from_hz: int, to_hz: int) -> None:
    def wave_at(rate_hz: int) -> np.ndarray:
        return 10000 * np.sin(2 * np.pi * 1000 * np.arange(rate_hz) / rate_hz)

    got = resample(wave_at(from_hz).round().astype("<i2"), from_hz, to_hz)
    middle = slice(to_hz // 10, to_hz * 9 // 10)
    assert np.abs(got[middle] - wave_at(to_hz)[middle]).max() < 3


def test_resampling_down_removes_what_would_alias() -> None:
    high = 10000 * np.sin(2 * np.pi * 10000 * np.arange(48000) / 48000)
    got = resample(high.astype("<i2"), 48000, 16000)
    assert np.abs(got[1600:-1600]).max() < 10


def test_channels_are_averaged(tmp_path: Path) -> None:
    pcm = np.array([[100, 300], [-100, 100], [7, -7]], "<i2").tobytes()
    speech = read_wav(write_wav(tmp_path / "a.wav", pcm, 16000, channels=2))
    assert np.frombuffer(speech.pcm, "<i2").tolist() == [200, 0, 0]


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match=r"none\.wav cannot be read: No such file") as caught:
        read_wav(tmp_path / "none.wav")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"ID3\x04 not a wav", b"RIFF\x04\0\0\0WAVE"])
def test_what_is_no_wav_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(BadRecording, match=r"a\.wav is not a PCM WAV file.*ffmpeg -i"):
        read_wav(path)


def test_other_sample_widths_are_named(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", bytes(300), 16000, width=3)
    with pytest.raises(BadRecording, match="24-bit samples; 16-bit PCM is needed"):
        read_wav(path)


def test_a_wav_without_audio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match="holds no audio"):
        read_wav(write_wav(tmp_path / "a.wav", b"", 16000))


def test_the_demo_recordings_are_inside_the_installed_package() -> None:
    for recording in demo_recordings():
        with wave.open(str(recording.path)) as file:
            assert file.getnchannels() == 1
        assert len(recording.text.split()) > 10
