"""Small recordings made on the spot."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from edge.demo.speech import Speech


def tone(seconds: float, rate_hz: int = 16000, hz: float = 300.0) -> Speech:
    """A voice-like buzz: a sum of harmonics that an encoder takes for speech."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    buzz = sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 8))
    envelope = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)
    return Speech((4000 * buzz * envelope).astype("<i2").tobytes(), rate_hz)


def silence(seconds: float, rate_hz: int = 16000) -> bytes:
    return bytes(2 * round(seconds * rate_hz))


def write_wav(path: Path, pcm: bytes, rate_hz: int, *, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(pcm)
    return path
