"""A dispatcher that hangs costs the speaker nothing: transcripts come as soon as without one."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import closing

from websockets.asyncio.client import connect

from tests.dispatch.support.media import silence
from tests.dispatch.support.talkative import Talkative
from tests.support.server import HOST, starting

FINALS = 150
PER_S = 300.0
NOISE_MS = 5.0
"""Of the machine's scheduler, at the 99th percentile of so few."""
TRIES = 4
"""What else the machine does comes and goes; what the dispatcher cost would be there each time."""


async def delays_ms(address: str, query: str, endpoint: Talkative) -> list[float]:
    """From a final's way out of the recognizer's service to its arrival at the client."""
    url = f"ws://{address}/transcribe?sessionId=hang-{len(query)}&sendBack=true&{query}"
    delays: list[float] = []
    async with connect(url, compression=None) as client:
        talking = asyncio.create_task(silence(client, "anna"))
        async for message in client:
            event = json.loads(message)
            if event.get("event") == "transcription-result":
                text = event["transcript"][0]["text"]
                delays.append((time.perf_counter() - endpoint.said_s[text]) * 1000)
                if len(delays) == FINALS:
                    break
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
    return sorted(delays)


async def test_a_dispatcher_that_hangs_delays_no_transcript() -> None:
    """The same gateway, the same service: a session that does not ask, then one that does."""
    at_50, at_99 = FINALS // 2, FINALS * 99 // 100
    with closing(socket.create_server((HOST, 0))) as deaf:
        hangs = {"EDGESCRIBE_DISPATCH_HTTP_URL": f"http://{HOST}:{deaf.getsockname()[1]}/"}
        async with Talkative(per_s=PER_S) as endpoint:
            settings = endpoint.environment | hangs
            with starting("--workers", "1", environment=settings) as server:
                server.wait_ready()
                for _ in range(TRIES):
                    unasked = await delays_ms(server.address, "useDispatcher=false", endpoint)
                    asked = await delays_ms(server.address, "useDispatcher=true", endpoint)
                    late_ms = asked[at_99] - 2 * unasked[at_99]
                    usually_late_ms = asked[at_50] - 2 * unasked[at_50]
                    if late_ms < NOISE_MS and usually_late_ms < 1.0:
                        break
    assert late_ms < NOISE_MS and usually_late_ms < 1.0
