"""A recording to text through a gateway: packets at a few times real time, all finals awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from edge.demo.bridge import (
    CLOCK_HZ,
    media_message,
    session_end_message,
    start_message,
)
from edge.demo.client import connected, decode, transcribe_url
from edge.demo.recording import PacketSource
from edge.errors import EdgescribeError

TAG = "file-1"
PACE = 4.0
"""Times real time: fast for a person, slow enough that no recognizer's queue overflows."""
_SILENCE_S = 20.0
"""A gateway that says nothing for so long after the end has nothing more to say."""


class NotTranscribed(EdgescribeError):
    """The gateway refused the speech or failed at it; the message is the gateway's."""


class Segment(msgspec.Struct, frozen=True):
    """One final; times in ms of the recording, None from a gateway that sends none."""

    start_ms: int | float | None
    end_ms: int | float | None
    text: str
    confidence: float | None


class Transcript(msgspec.Struct, frozen=True):
    """A whole recording's text and its parts in order."""

    text: str
    segments: list[Segment]


async def transcribe(
    recording: PacketSource,
    address: str,
    *,
    defaults: dict[str, str] | None = None,
    on_segment: Callable[[Segment], None] = lambda segment: None,
    on_progress: Callable[[float], None] = lambda at_s: None,
) -> Transcript:
    """Transcribe through the gateway at ``address``; ``defaults`` go into the query.

    ``on_segment`` is told each final as it comes, ``on_progress`` the second of the recording that
    was sent. Raises ``Unreachable``, ``Disconnected`` or ``NotTranscribed``.
    """
    wanted = {"sendBack": "true", "times": "true", "errors": "true", **(defaults or {})}
    url = transcribe_url(address, wanted)
    segments: list[Segment] = []
    async with connected(url) as socket:
        sending = asyncio.create_task(_send(socket, recording, on_progress))
        try:
            async for segment in _finals(socket, sending):
                segments.append(segment)
                on_segment(segment)
        finally:
            sending.cancel()
            await asyncio.wait([sending])
    segments.sort(key=lambda segment: segment.start_ms or 0.0)
    return Transcript(" ".join(segment.text for segment in segments), segments)


async def _finals(socket: ClientConnection, sending: asyncio.Task[None]) -> AsyncIterator[Segment]:
    """Finals until all was sent and the gateway closes, or says nothing for 20 s."""
    while True:
        try:
            async with asyncio.timeout(_SILENCE_S):
                message = decode(await socket.recv())
        except TimeoutError:
            if sending.done():
                break
            continue
        except ConnectionClosed:
            if sending.done():
                await sending
                if socket.close_code == 1000:
                    return
            raise
        if message is None:
            continue
        if message.event == "error":
            raise NotTranscribed(f"the gateway cannot transcribe this: {message.message}")
        if message.is_result and not message.is_interim and message.text:
            yield Segment(message.start_ms, message.end_ms, message.text, message.confidence)


async def _send(
    socket: ClientConnection, recording: PacketSource, on_progress: Callable[[float], None]
) -> None:
    await socket.send(start_message(1, TAG))
    zero_s = time.perf_counter()
    for index, (timestamp, payload) in enumerate(recording.packets()):
        at_s = timestamp / CLOCK_HZ
        early_s = zero_s + at_s / PACE - time.perf_counter()
        if early_s > 0:
            await asyncio.sleep(early_s)
        await socket.send(media_message(index + 2, TAG, index, timestamp, payload))
        if index % 25 == 0:
            on_progress(max(0.0, at_s))
    await socket.send(session_end_message())
