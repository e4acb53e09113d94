"""The dummy takes everything and says nothing."""

from __future__ import annotations

from edge.asr.dummy import DummyRecognizer
from edge.asr.interface import StreamEnded, StreamEvent, StreamRequest
from tests.asr.support.supervision import scene, until


async def test_it_takes_audio_and_never_answers() -> None:
    events: list[StreamEvent] = []
    stream = await DummyRecognizer().open(StreamRequest(track="tag-1"), events.append)
    stream.send(bytes(4800))
    stream.commit()
    await stream.drain()
    assert stream.backlog_ms == 0
    assert events == []
    await stream.close()
    await stream.close()
    assert events == [StreamEnded()]


async def test_it_serves_a_track() -> None:
    async with scene(DummyRecognizer()) as played:
        await played.speaker.say("alpha")
        await until(lambda: played.counts.connects["dummy"])
        await played.supervisor.finish(5)
        assert played.counts.audio_bytes["dummy"] == 1200 * 48
        assert played.listener.finals == played.listener.errors == []
