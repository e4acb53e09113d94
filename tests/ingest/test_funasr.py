"""A media server's talk through a running gateway to Fun-ASR, as the environment has it."""

from __future__ import annotations

import asyncio

from tests.asr.fakes.funasr_endpoint import KEY, FakeFunASR
from tests.ingest.support.media import client
from tests.support.server import running


async def test_a_talk_is_transcribed_with_the_settings_of_the_environment() -> None:
    async with FakeFunASR(sentence_silence_ms=400) as endpoint:
        environment = {
            "ALIYUN_DASHSCOPE_API_KEY": KEY,
            "PROVIDERS_PRIORITY": "funasr",
            "ASR_ENABLED": "YES",
            "ASR_WS_URL": endpoint.address + "/",
            "ASR_MODEL": "fun-asr-realtime-2026-02-28",
            "ASR_STREAM_CHUNK_BYTES": "1600",
            "ASR_SEND_PACING_MS": "1",
        }
        with running("--workers", "1", environment=environment) as server:
            query = "sendBack=true&sendBackInterim=true&times=true&lang=en-US"
            async with client(server, query) as media:
                await media.until(lambda: media.of("info"))
                assert media.of("info")[0]["provider"] == "funasr"
                await media.say("ada", "alpha bravo")
                await media.say("bob", "charlie", pause_ms=0)
                await media.until(lambda: media.finals("ada") and media.finals("bob"))
                assert media.text("ada") == "alpha bravo"
                assert media.text("bob") == "charlie", "committed when packets stop"
                final = media.finals("ada")[0]
                assert abs(final["end_ms"] - final["start_ms"] - 1200) <= 60
                assert final["message_id"].startswith("ada-")
                assert media.interims("ada")[0]["message_id"] == final["message_id"]
            assert await asyncio.to_thread(server.stop) == 0
            assert KEY not in server.log
        assert max(size for heard in endpoint.connections for size in heard.sizes) <= 1600
        assert all(task.parameters["language_hints"] == ["en"] for task in endpoint.tasks)
        assert not any(heard.violations for heard in endpoint.connections)
