"""Voices that are easily told apart, as 16 kHz mono 16-bit samples."""

from __future__ import annotations

import numpy as np

RATE_HZ = 16000


def voice(pitch_hz: float, seconds: float = 1.0, seed: int = 0) -> bytes:
    """Somebody whose voice is all at one pitch; ``seed`` makes another recording of it."""
    times = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    noise = np.random.default_rng(seed).normal(0, 0.001, len(times))
    sound = sum(0.2 / n * np.sin(2 * np.pi * pitch_hz * n * times) for n in (1, 2, 3))
    return ((sound + noise) * 32767).astype("<i2").tobytes()


LOW_HZ, HIGH_HZ = 130.0, 1900.0
