"""Texts that are handed over natively: every reading offers them, and nothing overtakes them."""

from __future__ import annotations

import asyncio
import base64
from types import SimpleNamespace

import msgspec
import pytest

from _native.intake import MediaIntake
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack
from tests.support.speech import speech_packets
from tests.transport.support import TEXT, RawClient, Recorder, masked, serving

PACKETS = speech_packets(50)


def media(number: int) -> bytes:
    payload = base64.b64encode(PACKETS[number % len(PACKETS)]).decode()
    packet = {"tag": "a", "chunk": number, "timestamp": number * 960, "payload": payload}
    return msgspec.json.encode({"event": "media", "media": packet})


class Taking(Recorder):
    """A receiver with one running track, ``a``, that has heard packet 0."""

    def __init__(self) -> None:
        super().__init__()
        self.audio = AudioTrack(TrackSettings())
        self.audio.packet(0, 0, PACKETS[0], 0.0)
        self.intake = MediaIntake({"a": SimpleNamespace(intake=self.audio.intake)})
        self.taken = 0

    def opened(self, socket: object) -> None:
        super().opened(socket)  # type: ignore[arg-type]
        self.socket.hand_over(self.intake, self.settle)

    def settle(self) -> float:
        self.taken += self.intake.settle()[0]
        self.changed.set()
        return 0.0

    async def until_taken(self, count: int) -> None:
        async with asyncio.timeout(20):
            while self.taken < count:
                self.changed.clear()
                await self.changed.wait()


@pytest.mark.parametrize("at_once", [1, 5, 40])
async def test_packets_never_become_messages_however_many_are_read_at_once(at_once: int) -> None:
    async with serving() as server:
        server.make = Taking
        client = await RawClient.connect(server)
        receiver = await server.recorder()
        assert isinstance(receiver, Taking)
        for first in range(1, 81, at_once):
            last = min(first + at_once, 81)
            client.send(b"".join(masked(TEXT, media(number)) for number in range(first, last)))
            await receiver.until_taken(last - 1)
        assert receiver.messages == []
        assert receiver.audio.stats.received == 81
        assert server.lanes.counts().messages_in == 80
        await client.leave()


async def test_a_pause_holds_back_what_could_be_taken_too() -> None:
    async with serving() as server:
        server.make = Taking
        client = await RawClient.connect(server)
        receiver = await server.recorder()
        assert isinstance(receiver, Taking)
        receiver.on_message = lambda message: receiver.socket.pause()
        stream = [media(1), b"pause", media(2), media(3)]
        client.send(b"".join(masked(TEXT, message) for message in stream))
        await receiver.received(1)
        assert (receiver.taken, receiver.messages) == (1, [b"pause"])
        receiver.on_message = lambda message: None
        receiver.socket.resume()
        await receiver.until_taken(3)
        assert receiver.messages == [b"pause"], "what had to wait is offered, too"
        await client.leave()
