"""What a speaker waits for the results of words."""

from __future__ import annotations

import asyncio
import time

from tests.asr.support.tones import silence, tone
from tests.ingest.support.session import SessionClient

RATE_HZ = 16000
FRAME_MS = 100
FRAME_BYTES = RATE_HZ * 2 * FRAME_MS // 1000


def _frames(pcm: bytes) -> list[bytes]:
    return [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm), FRAME_BYTES)]


WORD = _frames(tone("alpha", RATE_HZ) + silence(200, RATE_HZ))
END = _frames(silence(200, RATE_HZ))
"""With these the recognizer has heard the silence that ends a word."""


async def results_ms(speaker: SessionClient, count: int) -> list[float]:
    """From the audio that ends a word to its result, of so many words; sorted."""
    took_ms = []
    for _ in range(count):
        speaker.messages.clear()
        await speaker.audio(*WORD, ms=FRAME_MS)
        await asyncio.sleep(0.01)
        began_s = time.monotonic()
        await speaker.audio(*END, ms=FRAME_MS)
        await speaker.until(lambda: any(part["stable"] for part in speaker.of("part")))
        took_ms.append((time.monotonic() - began_s) * 1000)
    return sorted(took_ms)


def p99(sorted_ms: list[float]) -> float:
    """The 99th percentile."""
    return sorted_ms[max(0, int(0.99 * len(sorted_ms)) - 1)]
