"""A gateway that hears meetings window by window, while they are spoken."""

from __future__ import annotations

import asyncio
from typing import Any

from edge.demo.recorder import connect
from edge.demo.rest import Meeting
from edge.meeting.records import CHUNK_BYTES
from tests.asr.support.embedded import requires_embedded, speech
from tests.support.server import running

pytestmark = requires_embedded


async def test_w24_windows_come_with_their_chunks_and_the_tail_with_the_end() -> None:
    pcm, _ = speech("two_cities")
    settings = ("providers_priority=embedded", "asr_realtime_enabled=false", "asr_hop_seconds=5")
    options = [part for setting in settings for part in ("--set", setting)]
    with running("--workers", "2", *options) as server:
        address = f"127.0.0.1:{server.port}"
        meeting = Meeting(f"http://{address}", "windows")
        async with connect(address, session_id="windows", role="students") as recorder:
            for seq in range(1, 18):
                await recorder.chunk(pcm[(seq - 1) * CHUNK_BYTES : seq * CHUNK_BYTES])
            await recorder.all_acked()
            async with asyncio.timeout(15):
                while (await asyncio.to_thread(meeting.utterances, "students")).count < 2:
                    await asyncio.sleep(0.05)
            await asyncio.to_thread(meeting.finalize)
            recorder.check()
        result = await asyncio.to_thread(meeting.result, dict[str, Any])
    said = result["utterances_raw_by_stream"]["students"]
    spans = [(each["start_seq"], each["end_seq"]) for each in said]
    assert spans == [(1, 10), (6, 15), (8, 17)]
    assert result["asr_by_stream"]["students"]["mode"] == "windowed"
    assert result["asr_by_stream"]["students"]["last_window_end_seq"] == 17
    text = " ".join(each["text"] for each in said).lower()
    assert "best of times" in text and "season of light" in text
