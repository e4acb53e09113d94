"""A speaker who stops without a pause: what was said is turned to text all the same."""

from __future__ import annotations

import asyncio

import pytest

from tests.asr.fakes.openai_endpoint import FakeOpenAI
from tests.asr.support.tones import packets, sentence, silence
from tests.ingest.support.media import client, gateway

NO_VAD = {"OPENAI_TURN_DETECTION": "null"}
"""A recognizer that ends no utterance by itself."""


async def test_a_tail_after_a_final_is_flushed_when_packets_stop() -> None:
    """A final that comes after the tail began does not stand for the tail."""
    endpoint = FakeOpenAI(delay_s=lambda item: 0.3)
    settings = {"FORCE_COMMIT_TIMEOUT": "0.6", "EDGESCRIBE_MAX_GAP_FILL_MS": "0"}
    async with gateway(endpoint, **settings) as (server, _), client(server) as media:
        spoken = sentence("alpha", 48000) + silence(500, 48000) + sentence("bravo", 48000)
        await media.send_packets("a", packets(spoken))
        await media.until(lambda: len(media.finals("a")) == 2)
        assert media.text("a") == "alpha bravo"
        assert [heard.commits for heard in endpoint.connections] == [1]


@pytest.mark.parametrize("timeout", ["0", "-1"])
async def test_zero_and_less_switch_it_off(timeout: str) -> None:
    async with (
        gateway(FakeOpenAI(), FORCE_COMMIT_TIMEOUT=timeout, **NO_VAD) as (server, endpoint),
        client(server) as media,
    ):
        await media.say("a", "alpha", pause_ms=0)
        await asyncio.sleep(2.5)
        assert [heard.commits for heard in endpoint.connections] == [0]
        await media.send('{"event":"session-end"}')
        await media.closed()
        assert media.text("a") == "alpha"


async def test_each_stretch_of_sound_is_committed_once() -> None:
    async with (
        gateway(FakeOpenAI(), FORCE_COMMIT_TIMEOUT="0.3", **NO_VAD) as (server, endpoint),
        client(server) as media,
    ):
        for number, word in enumerate(("alpha", "bravo", "charlie"), 1):
            await media.say("a", word, pause_ms=0)
            await media.until(lambda wanted=number: len(media.finals("a")) == wanted)
        await asyncio.sleep(1.0)
        assert media.text("a") == "alpha bravo charlie"
        assert [heard.commits for heard in endpoint.connections] == [3]
