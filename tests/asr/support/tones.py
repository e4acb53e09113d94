"""Speech a machine can understand: a word is a tone, so that text proves which audio was heard."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from _native.opus import Encoder

WORDS = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india")
LOWEST_HZ, STEP_HZ = 400.0, 150.0
WORD_MS = 600
FRAME_MS = 20
LEAST_FRAMES = 10
LOUD = 300.0
"""Root mean square from which a frame counts as sound."""


def tone(word: str, rate_hz: int, duration_ms: int = WORD_MS) -> bytes:
    """The word's tone, s16le mono."""
    hertz = LOWEST_HZ + STEP_HZ * WORDS.index(word)
    time = np.arange(rate_hz * duration_ms // 1000) / rate_hz
    return bytes((8000 * np.sin(2 * np.pi * hertz * time)).astype("<i2"))


def silence(duration_ms: int, rate_hz: int) -> bytes:
    """Zeros, s16le mono."""
    return bytes(2 * (rate_hz * duration_ms // 1000))


def sentence(words: str, rate_hz: int, pause_ms: int = 0) -> bytes:
    """Words one after another, each followed by a pause."""
    pause = silence(pause_ms, rate_hz)
    return b"".join(tone(word, rate_hz) + pause for word in words.split())


def packets(pcm: bytes) -> list[bytes]:
    """Opus packets of 20 ms of s16le mono audio at 48 kHz."""
    encoder = Encoder(48000, bitrate_bps=32000)
    size = 48 * FRAME_MS * 2
    return [
        encoder.encode(pcm[start : start + size].ljust(size, b"\0"))
        for start in range(0, len(pcm), size)
    ]


def loud_frames(pcm: bytes, rate_hz: int) -> NDArray[np.bool_]:
    """For each whole 20 ms frame, whether it is sound."""
    frames = _frames(pcm, rate_hz)
    return np.sqrt(np.mean(frames.astype(np.float64) ** 2, axis=1)) > LOUD


def words_in(pcm: bytes, rate_hz: int) -> str:
    """The words whose tones are in the audio, in order; shorter than 200 ms is not a word."""
    return " ".join(word for word, _, _ in timed_words(tones_in(pcm, rate_hz)))


def timed_words(tones: Sequence[int]) -> list[tuple[str, int, int]]:
    """The words of a sequence of frames, each with its first frame and the one after its last."""
    words, at = [], 0
    for tone, run in groupby(tones):
        end = at + len(list(run))
        if tone >= 0 and end - at >= LEAST_FRAMES:
            words.append((WORDS[tone], at, end))
        at = end
    return words


def tones_in(pcm: bytes, rate_hz: int) -> list[int]:
    """For each whole 20 ms frame the number of its word, or -1 if it is not sound."""
    frames = _frames(pcm, rate_hz)
    loud = loud_frames(pcm, rate_hz)
    spectra = np.abs(np.fft.rfft(frames * np.hanning(frames.shape[1]), 8192, axis=1))
    hertz = np.argmax(spectra, axis=1) * rate_hz / 8192
    nearest = np.clip(np.round((hertz - LOWEST_HZ) / STEP_HZ), 0, len(WORDS) - 1).astype(int)
    return [int(word) if sound else -1 for word, sound in zip(nearest, loud, strict=True)]


def _frames(pcm: bytes, rate_hz: int) -> NDArray[np.int16]:
    size = rate_hz * FRAME_MS // 1000
    samples = np.frombuffer(pcm, dtype="<i2")
    return samples[: len(samples) // size * size].reshape(-1, size)
