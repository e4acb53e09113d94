"""The plain socket with other recognizers: rendered in the shape of Flux, from real speech."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from tests.ingest.support.listen import page
from tests.support.server import Server, running
from tests.support.speech import two_cities_pcm

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECONDS = 9


def speech_16k() -> bytes:
    """The first sentences of a reader, s16le mono at 16 kHz, and a pause."""
    samples = np.frombuffer(two_cities_pcm()[: SECONDS * 96000], "<i2")
    return samples.reshape(-1, 3).mean(axis=1).astype("<i2").tobytes() + bytes(32000)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    environment = {"PROVIDERS_PRIORITY": "embedded,dummy", "ENABLE_DUMMY_PROVIDER": "true"}
    with running("--workers", "1", environment=environment) as server:
        yield server


async def test_real_speech_in_browser_frames_becomes_turns(server: Server) -> None:
    async with page(server) as client:
        await client.until(lambda: client.messages)
        assert set(client.messages[0]) == {"type", "request_id", "sequence_id"}
        await client.send(speech_16k())
        await client.socket.send('{"type":"CloseStream"}')
        assert await client.closed(30) == (1000, "Session ended")
    text = " ".join(client.texts).lower()
    assert "best of times" in text
    assert "worst of times" in text
    assert [message["sequence_id"] for message in client.messages] == list(
        range(len(client.messages))
    )
    turns = client.turns()
    assert {turn["request_id"] for turn in turns} == {client.messages[0]["request_id"]}
    ends = client.turns("EndOfTurn")
    assert sorted(end["turn_index"] for end in ends) == list(range(len(ends)))
    for end in ends:
        assert end["text"] == end["transcript"]
        assert [word["word"] for word in end["words"]] == end["text"].split()
        assert all(0 <= word["confidence"] <= 1 for word in end["words"])
        assert end["end_of_turn_confidence"] == 1.0
        assert 0 <= end["audio_window_start"] < end["audio_window_end"] <= SECONDS + 2
    for end in ends:
        begun = [turn["event"] for turn in turns if turn["turn_index"] == end["turn_index"]]
        assert begun[0] in ("StartOfTurn", "EndOfTurn")
        assert "StartOfTurn" not in begun[1:]
        assert begun[-1] == "EndOfTurn"


async def test_a_recognizer_that_is_named(server: Server) -> None:
    """The dummy, which hears all and says nothing: the page is greeted and let go."""
    async with page(server, "provider=dummy&lang=en") as client:
        await client.send(speech_16k()[:96000])
        await client.socket.send('{"type":"CloseStream"}')
        assert await client.closed() == (1000, "Session ended")
    assert [message["type"] for message in client.messages] == ["Connected"]
