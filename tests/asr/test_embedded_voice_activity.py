"""The VAD thread: probabilities per frame, many tracks in one run, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.asr.support.embedded import RATE_HZ, requires_embedded, silence, speech

pytestmark = requires_embedded

FRAME_BYTES = 1024


@pytest.fixture
def voice() -> Iterator[object]:
    from edge.asr.embedded.voice_activity import VoiceActivity

    made = VoiceActivity()
    yield made
    made.stop()


async def judge(voice, pcm: bytes, piece: int) -> list[tuple[float, float]]:
    """All frames of ``pcm``, fed in pieces."""
    judged: list[tuple[float, float]] = []
    track = voice.open(judged.extend)
    for start in range(0, len(pcm), piece):
        assert voice.feed(track, pcm[start : start + piece])
    async with asyncio.timeout(20):
        while len(judged) < len(pcm) // FRAME_BYTES:
            await asyncio.sleep(0.005)
    voice.close(track)
    return judged


async def test_speech_is_told_from_silence(voice):
    pcm, _ = speech("beckett")
    spoken = await judge(voice, pcm, 3200)
    assert max(probability for probability, _ in spoken) > 0.9
    assert spoken[0][0] < 0.2
    assert all(0 <= loudness <= 1 for _, loudness in spoken)
    assert max(p for p, _ in await judge(voice, silence(3), 3200)) < 0.1


async def test_pieces_and_neighbours_do_not_change_the_answer(voice):
    """One track in pieces of any size, alone or beside others, is judged the same."""
    pcm = speech("beckett")[0][: 5 * RATE_HZ * 2]
    other = speech("two_cities")[0][: 6 * RATE_HZ * 2]
    alone = await judge(voice, pcm, len(pcm))
    together = await asyncio.gather(
        judge(voice, pcm, 3200), judge(voice, other, 3200), judge(voice, pcm, 334)
    )
    for again in (together[0], together[2]):
        assert [p for p, _ in again] == pytest.approx([p for p, _ in alone], abs=0.01)


async def test_speech_after_long_digital_silence_is_still_found(voice):
    """Muted senders give zeros, which the model is not asked about for ever."""
    pcm, _ = speech("beckett")
    judged = await judge(voice, silence(20) + pcm, 3200)
    alone = await judge(voice, pcm, 3200)
    offset = len(judged) - len(alone)
    assert max(p for p, _ in judged[:offset]) < 0.1
    found = [p >= 0.5 for p, _ in judged[offset:]]
    assert sum(a != (p >= 0.5) for a, (p, _) in zip(found, alone, strict=True)) <= 3


async def test_a_track_a_minute_behind_takes_no_more(voice):
    track = voice.open(lambda frames: None)
    voice.close(track)
    assert not voice.feed(track, bytes(61 * RATE_HZ * 2))


async def test_a_closed_track_hears_nothing_more(voice):
    judged: list[tuple[float, float]] = []
    track = voice.open(judged.extend)
    voice.feed(track, silence(1))
    voice.close(track)
    await judge(voice, silence(0.5), 3200)
    assert judged == []
