"""A client that sends a long recording as fast as it is taken, through a running gateway."""

from __future__ import annotations

import asyncio
import time

from tests.asr.fakes.openai_endpoint import FakeOpenAI, Fault
from tests.asr.support.tones import packets, sentence
from tests.ingest.support.media import client, gateway
from tests.support.server import Server

FREE = {"EDGESCRIBE_MAX_EVENTS_PER_S": "1000000"}
WORDS = "alpha bravo charlie delta echo foxtrot golf hotel"
SOUND_MS = 8 * 600
PAUSE_MS = 3200
TIMES = 75
"""Ten minutes."""


def counted(server: Server, name: str) -> float:
    lines = server.get("/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def recording() -> list[bytes]:
    return packets(sentence(WORDS, 48000) + bytes(96 * PAUSE_MS)) * TIMES


async def test_ten_minutes_sent_at_once_are_heard_to_the_last_word_beside_a_neighbour() -> None:
    async with gateway(FakeOpenAI(), **FREE) as (server, _):
        async with client(server) as media, client(server) as neighbour:
            began_s = time.monotonic()
            sending = asyncio.create_task(media.send_packets("tag-1", recording()))
            await neighbour.say("tag-2", "india echo")
            await neighbour.until(lambda: neighbour.text("tag-2") == "india echo")
            assert not sending.done() or time.monotonic() - began_s < 5
            await sending
            await media.until(lambda: len(media.finals("tag-1")) == TIMES, 60)
            assert media.text("tag-1") == " ".join([WORDS] * TIMES)
        assert counted(server, "edgescribe_overflow_dropped_milliseconds_total") == 0
        assert counted(server, "edgescribe_audio_shed_milliseconds_total") == 0
        assert counted(server, "edgescribe_connections_slowed_total") > 0


async def test_who_is_ahead_of_a_recognizer_that_is_not_there_waits_for_it() -> None:
    """Twenty times what is kept at most comes while the first connection hangs."""
    fake = FakeOpenAI(faults=[Fault(hang=True)])
    fast = {"EDGESCRIBE_CONNECT_TIMEOUT_S": "1", "EDGESCRIBE_REPLAY_MS": "8000"}
    async with gateway(fake, **FREE, **fast) as (server, _):
        async with client(server) as media:
            await media.send_packets("tag-1", recording()[: 20 * 400])
            await media.until(lambda: len(media.finals("tag-1")) >= 20, 60)
            assert media.text("tag-1") == " ".join([WORDS] * 20)
        assert counted(server, "edgescribe_overflow_dropped_milliseconds_total") == 0
