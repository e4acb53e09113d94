"""What tracks do, over all workers, from whichever worker is asked; not a word of what they say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from websockets.asyncio.client import connect

from tests.asr.fakes.openai_endpoint import KEY, FakeOpenAI
from tests.support.server import Server, running
from tests.support.speech import speak

SAID = "it was the best of times"
CLIENTS = 6
PACKETS = 60


async def tracks(server: Server, query: str = "") -> Any:
    answer = await asyncio.to_thread(server.get, f"/debug/tracks{query}")
    assert answer.status == 200, answer
    assert SAID.encode() not in answer.body
    return json.loads(answer.body)


async def told(server: Server) -> AsyncIterator[Any]:
    while True:
        yield await tracks(server)
        await asyncio.sleep(0.05)


async def test_the_tracks_of_all_workers_are_shown_by_any_of_them() -> None:
    async with FakeOpenAI(transcribe=lambda pcm: SAID) as endpoint, AsyncExitStack() as stack:
        environment = {
            "OPENAI_API_KEY": KEY,
            "OPENAI_REALTIME_URL": endpoint.url,
            "PROVIDERS_PRIORITY": "openai",
            "OPENAI_TURN_DETECTION": "null",
        }
        server = stack.enter_context(running("--workers", "2", environment=environment))
        assert await tracks(server) == {"tracks": [], "total": 0, "missing_workers": []}
        for number in range(CLIENTS):
            url = f"{server.transcribe_url}&sessionId=s{number}"
            client = await stack.enter_async_context(connect(url))
            await speak(client, "a-tag", PACKETS)
        async with asyncio.timeout(10):
            async for everything in told(server):
                live = [each for each in everything["tracks"] if each["state"] == "live"]
                heard = [each["packets"] == PACKETS and each["backlog_ms"] < 500 for each in live]
                if len(live) == CLIENTS and all(heard):
                    break
        assert {each["worker"] for each in live} == {0, 1}
        assert {each["session"] for each in live} == {f"s{number}" for number in range(CLIENTS)}
        for each in live:
            assert (each["tag"], each["provider"], each["has_client"]) == ("a-tag", "openai", True)
            assert each["audio_ms"] >= PACKETS * 20 and each["since_packet_s"] >= 0
            assert 0 < each["age_s"] < 60 and each["lost"] == each["corrupt"] == 0
        one = await tracks(server, "?session=s3&limit=1")
        assert [each["session"] for each in one["tracks"]] == ["s3"] and one["total"] == 1
        few = await tracks(server, "?limit=2")
        assert len(few["tracks"]) == 2 and few["total"] == CLIENTS
        several = await asyncio.gather(*(tracks(server) for _ in range(8)))
        assert {each["total"] for each in several} == {CLIENTS}
        assert not any(each["missing_workers"] for each in several)
