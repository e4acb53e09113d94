"""A media server that sends silence, for tests in which nobody has to say anything."""

from __future__ import annotations

import asyncio
import itertools

from websockets.asyncio.client import ClientConnection

from tests.ingest.support.media import media_event, start_event

PACKET = b"\xf8\xff\xfe"
"""20 ms of silence in Opus."""
PACKET_S = 0.02


async def silence(client: ClientConnection, *tags: str, first: int = 0) -> None:
    """Send silence of these participants in real time, until it is cancelled."""
    for tag in tags:
        await client.send(start_event(tag))
    for number in itertools.count(first):
        for tag in tags:
            await client.send(media_event(tag, number, PACKET))
        await asyncio.sleep(PACKET_S)
