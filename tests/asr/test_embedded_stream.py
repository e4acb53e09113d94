"""The embedded recognizer through its public door, with its real inference process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from edge.asr.embedded import EmbeddedSettings
from edge.asr.interface import Final, Interim, StreamEnded, StreamRequest
from edge.demo.wer import compare
from edge.errors import RecognizerRefused
from tests.asr.support.embedded import (
    RATE_HZ,
    Caretaker,
    Listener,
    caretaker,
    recognizer,
    requires_embedded,
    silence,
    speech,
)

pytestmark = requires_embedded

HUNDRED_MS = RATE_HZ // 10 * 2


@pytest.fixture(scope="module")
def inference() -> Iterator[Caretaker]:
    with caretaker() as running:
        yield running


def batches(pcm: bytes) -> Iterator[bytes]:
    for start in range(0, len(pcm), HUNDRED_MS):
        yield pcm[start : start + HUNDRED_MS]


async def test_real_speech_becomes_finals_with_exact_times(inference: Caretaker):
    pcm, words = speech("two_cities")
    listener = Listener()
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="anna"), listener)
        for batch in batches(pcm):
            stream.send(batch)
        await stream.drain()
        finals = listener.finals
        await stream.close()
    assert compare(words, listener.text).rate <= 0.08
    assert listener.ended == StreamEnded()
    assert len({final.item_id for final in finals}) == len(finals) > 5
    assert all(final.item_id.startswith("anna-") for final in finals)
    assert all(0.3 < (final.confidence or 0) <= 1 for final in finals)
    end_ms = 0.0
    for final in finals:
        assert final.start_ms >= end_ms
        assert final.end_ms > final.start_ms
        end_ms = final.end_ms
    # The reader begins 1.2 s into the recording and ends 2.6 s before its end.
    assert finals[0].start_ms == pytest.approx(1200, abs=150)
    assert end_ms == pytest.approx(41_750, abs=200)


async def test_interims_of_an_utterance_come_before_its_final(inference: Caretaker):
    """With one batch sent per interim, as in real time, each second of speech has its interim."""
    pcm, _ = speech("beckett")
    listener = Listener()
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="t"), listener)
        # The first word alone is 0.9 s, so that only a long stretch without end brings interims.
        speaking = pcm[int(0.3 * RATE_HZ) * 2 : int(1.3 * RATE_HZ) * 2] * 3
        for number in range(3):
            stream.send(speaking[number * RATE_HZ * 2 : (number + 1) * RATE_HZ * 2])
            await listener.until(lambda seen, wanted=number + 1: len(seen.interims) >= wanted)
        stream.commit()
        await listener.until(lambda seen: bool(seen.finals))
        await stream.close()
    (final,) = listener.finals
    assert {interim.item_id for interim in listener.interims} == {final.item_id}
    kinds = [type(event) for event in listener.events]
    assert kinds.index(Final) > max(i for i, kind in enumerate(kinds) if kind is Interim)


@pytest.mark.parametrize("sound", ["silence", "noise", "hum", "clicks"])
async def test_what_is_not_speech_gives_no_text(inference: Caretaker, sound: str):
    import numpy as np

    count = 20 * RATE_HZ
    made = np.zeros(count)
    random = np.random.default_rng(1)
    if sound == "noise":
        spectrum = np.fft.rfft(random.standard_normal(count))
        pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(1, np.arange(len(spectrum)))))
        made = pink / np.abs(pink).max() * 8000
    elif sound == "hum":
        made = 6000 * np.sin(2 * np.pi * 50 * np.arange(count) / RATE_HZ)
    elif sound == "clicks":
        made[random.integers(0, count, 60)] = 30000
    listener = Listener()
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="t"), listener)
        stream.send(made.astype("<i2").tobytes())
        await stream.drain()
        await stream.close()
    assert listener.events == [StreamEnded()]


async def test_commit_ends_the_open_utterance_without_silence(inference: Caretaker):
    pcm, _ = speech("two_cities")
    listener = Listener()
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="t"), listener)
        stream.commit()
        stream.send(pcm[: int(2.9 * RATE_HZ) * 2])
        stream.commit()
        await listener.until(lambda seen: bool(seen.finals))
        stream.commit()
        await stream.drain()
        assert len(listener.finals) == 1
        await stream.close()
    assert compare("it was the best of times", listener.text).errors <= 1
    assert listener.finals[0].end_ms <= 2900


async def test_the_rest_of_a_committed_stream_is_still_recognized(inference: Caretaker):
    pcm, _ = speech("beckett")
    listener = Listener()
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="t"), listener)
        middle = int(3.2 * RATE_HZ) * 2
        stream.send(pcm[:middle])
        stream.commit()
        stream.send(pcm[middle:])
        await stream.drain()
        await stream.close()
    assert "failed" in listener.text.lower()
    assert "better" in listener.text.lower()


async def test_drain_of_a_silent_stream_returns_and_close_tells_once(inference: Caretaker):
    listener = Listener()
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="t"), listener)
        await stream.drain()
        stream.send(silence(0.01))
        await stream.drain()
        await stream.close()
        await stream.close()
        stream.send(silence(1))
        stream.commit()
        await stream.drain()
    assert listener.events == [StreamEnded()]


async def test_a_cancelled_drain_leaves_the_stream_open(inference: Caretaker):
    pcm, _ = speech("beckett")
    listener = Listener()
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="t"), listener)
        stream.send(pcm)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await stream.drain()
        assert listener.ended is None
        await stream.drain()
        await stream.close()
    assert "better" in listener.text.lower()


async def test_close_gives_up_what_is_not_answered(inference: Caretaker):
    pcm, _ = speech("beckett")
    listener = Listener()
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="t"), listener)
        stream.send(pcm)
        await stream.close()
        other = Listener()
        neighbour = await embedded.open(StreamRequest(track="u"), other)
        neighbour.send(pcm)
        await neighbour.drain()
        await neighbour.close()
    assert listener.events == [StreamEnded()]
    assert "better" in other.text.lower()


async def test_streams_at_once_do_not_mix(inference: Caretaker):
    one, two = Listener(), Listener()
    async with recognizer(inference.socket) as embedded:
        first = await embedded.open(StreamRequest(track="a"), one)
        second = await embedded.open(StreamRequest(track="b"), two)
        beckett, cities = speech("beckett"), speech("two_cities")
        for batch, other in zip(batches(beckett[0]), batches(cities[0]), strict=False):
            first.send(batch)
            second.send(other)
        await asyncio.gather(first.drain(), second.drain())
        await asyncio.gather(first.close(), second.close())
    assert compare(beckett[1], one.text).rate <= 0.1
    assert "times" in two.text
    assert "failed" not in two.text


async def test_overload_skips_interims_and_keeps_every_final():
    """Eight speakers at once, faster than real time, on one thread."""
    pcm, words = speech("beckett")
    settings = EmbeddedSettings(embedded_threads=1, embedded_interim_ms=200)
    listeners = [Listener() for _ in range(8)]
    with caretaker(settings) as inference:
        async with recognizer(inference.socket, settings) as embedded:
            streams = [
                await embedded.open(StreamRequest(track=f"t{number}"), listener)
                for number, listener in enumerate(listeners)
            ]
            for batch in batches(pcm):
                for stream in streams:
                    stream.send(batch)
                await asyncio.sleep(0.01)
            await asyncio.gather(*(stream.drain() for stream in streams))
            await asyncio.gather(*(stream.close() for stream in streams))
            counts = embedded.counts
    for listener in listeners:
        assert compare(words, listener.text).rate <= 0.1
    assert counts.finals == sum(len(listener.finals) for listener in listeners)
    assert counts.interims_skipped > 0


@pytest.mark.parametrize("language", ["de", "zh-CN", "fr_FR"])
async def test_other_languages_are_refused(inference: Caretaker, language: str):
    async with recognizer(inference.socket) as embedded:
        with pytest.raises(RecognizerRefused, match=f"only knows English, not lang={language}"):
            await embedded.open(StreamRequest(track="t", language=language), Listener())


@pytest.mark.parametrize("language", [None, "", "en", "en-US", "EN_gb", "auto"])
async def test_english_is_accepted_however_it_is_written(
    inference: Caretaker, language: str | None
):
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="t", language=language), Listener())
        await stream.close()


async def test_a_stopped_recognizer_leaves_no_thread_and_no_task(inference: Caretaker):
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="t"), Listener())
        stream.send(silence(1))
        await stream.close()
    assert "voice-activity" not in [thread.name for thread in threading.enumerate()]
    assert asyncio.all_tasks() == {asyncio.current_task()}
