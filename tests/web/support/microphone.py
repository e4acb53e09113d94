"""What the browser's microphone hears: real speech in a file."""

from __future__ import annotations

import wave
from pathlib import Path

from tests.support.speech import two_cities_pcm

RATE_HZ = 48000


def write_microphone(
    path: Path, speech_s: float, silence_s: float = 0.0, after_s: float = 2.0
) -> None:
    """Silence, so much of one reader, silence: mono at 48 kHz."""
    pcm = two_cities_pcm()[: int(speech_s * RATE_HZ) * 2]
    with wave.open(str(path), "wb") as wav:
        wav.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        wav.writeframes(
            bytes(int(silence_s * RATE_HZ) * 2) + pcm + bytes(int(after_s * RATE_HZ) * 2)
        )
