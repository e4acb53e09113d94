"""How long after the end of an utterance its final came, measured against the clean source.

The ends are those of the recognizer's own voice activity detector, run over the recording before
any codec or loss touched it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import ceil

import msgspec
import numpy as np

from edge.asr.embedded.segmenter import FRAME_MS, RATE_HZ, SPEECH_ENDS, SPEECH_STARTS
from edge.asr.embedded.voice_activity import VoiceActivity
from edge.demo.speech import Speech, resample

_PIECE_S = 20
_PAUSE_FRAMES = 3
"""Fewer frames without speech (96 ms) are a stop inside a word, not an end."""
_AGREEMENT_MS = 150.0
"""How far the detector may move an edge on lossy audio against the clean source."""


class Spoken(msgspec.Struct, frozen=True):
    """A stretch of speech without a pause, in milliseconds of the recording."""

    start_ms: float
    end_ms: float
    """End of the last speech frame."""


async def spoken_stretches(speeches: Sequence[Speech]) -> list[list[Spoken]]:
    """The stretches of speech of each recording."""
    activity = VoiceActivity()
    try:
        return await asyncio.gather(*(_spoken(activity, speech) for speech in speeches))
    finally:
        activity.stop()


async def _spoken(activity: VoiceActivity, speech: Speech) -> list[Spoken]:
    samples = np.frombuffer(speech.pcm, "<i2")
    if speech.rate_hz != RATE_HZ:
        samples = resample(samples, speech.rate_hz, RATE_HZ)
    probabilities: list[float] = []
    arrived = asyncio.Event()

    def judged(frames: list[tuple[float, float]]) -> None:
        probabilities.extend(probability for probability, _ in frames)
        arrived.set()

    track = activity.open(judged)
    pcm = samples.tobytes()
    frame_bytes = round(2 * RATE_HZ * FRAME_MS / 1000)
    piece_bytes = round(_PIECE_S * 1000 / FRAME_MS) * frame_bytes
    for start in range(0, len(pcm), piece_bytes):
        activity.feed(track, pcm[start : start + piece_bytes])
        wanted = min(len(pcm), start + piece_bytes) // frame_bytes
        while len(probabilities) < wanted:
            arrived.clear()
            await arrived.wait()
    activity.close(track)
    return stretches(probabilities)


def stretches(probabilities: Sequence[float]) -> list[Spoken]:
    """Stretches of speech from one speech probability per frame, pauses under 96 ms bridged."""
    found: list[Spoken] = []
    speaking = False
    for index, probability in enumerate(probabilities):
        speaking = probability >= (SPEECH_ENDS if speaking else SPEECH_STARTS)
        if not speaking:
            continue
        start_ms, end_ms = index * FRAME_MS, (index + 1) * FRAME_MS
        if found and start_ms - found[-1].end_ms < _PAUSE_FRAMES * FRAME_MS:
            start_ms = found.pop().start_ms
        found.append(Spoken(start_ms, end_ms))
    return found


def utterance_end_ms(spoken: Sequence[Spoken], final_end_ms: float) -> float | None:
    """Where the speaker stopped before the end of a final, both in ms of the recording.

    None when the final ends inside speech: the recognizer cut a long segment, nobody stopped.
    """
    before = [
        each
        for each in spoken
        if each.start_ms + min(_AGREEMENT_MS, (each.end_ms - each.start_ms) / 2) < final_end_ms
    ]
    if not before or before[-1].end_ms > final_end_ms + _AGREEMENT_MS:
        return None
    return before[-1].end_ms


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` (0 to 1) of the values do not exceed; 0 for none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]
