"""A stop while people speak: nothing new is taken, what was said is finished, then goodbye."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.asr.fakes.openai_endpoint import KEY, FakeOpenAI, Fault
from tests.support.server import Server, running, wait_until
from tests.support.speech import speak

A_SECOND = 50
"""Packets, and no pause after them."""
SAID = "it was the best of times"


@asynccontextmanager
async def gateway(
    final_after_s: float, *arguments: str, fault: Fault | None = None
) -> AsyncIterator[Server]:
    """One worker whose recognizer answers a flush after ``final_after_s``, or is at fault."""
    endpoint = FakeOpenAI(
        transcribe=lambda pcm: SAID,
        delay_s=lambda item: final_after_s,
        faults=lambda attempt: fault or Fault(),
    )
    async with endpoint:
        environment = {
            "OPENAI_API_KEY": KEY,
            "OPENAI_REALTIME_URL": endpoint.url,
            "PROVIDERS_PRIORITY": "openai",
            "OPENAI_TURN_DETECTION": "null",
        }
        with running("--workers", "1", *arguments, environment=environment) as server:
            yield server


async def rest_of(client: ClientConnection) -> tuple[list[dict[str, object]], int]:
    """All messages until the close, and its code."""
    messages = []
    try:
        while True:
            messages.append(json.loads(await client.recv()))
    except ConnectionClosed as closed:
        assert closed.rcvd is not None, "there was no close frame"
        return messages, closed.rcvd.code


async def tracks(server: Server) -> int:
    body = await asyncio.to_thread(lambda: server.get("/status").body)
    return int(json.loads(body)["tracks"])


async def test_the_last_final_comes_before_the_goodbye() -> None:
    async with gateway(1.0) as server:
        client = await connect(server.transcribe_url + "&sessionId=one")
        await speak(client, "a", A_SECOND)
        while await tracks(server) != 1:
            await asyncio.sleep(0.02)
        server.process.terminate()
        messages, code = await rest_of(client)
        assert await asyncio.to_thread(server.wait) == 0
    finals = [message for message in messages if message.get("event") == "transcription-result"]
    assert SAID in json.dumps(finals)
    assert code == 1001


async def test_a_stopping_gateway_takes_nothing_new_but_is_alive() -> None:
    async with gateway(2.0) as server:
        client = await connect(server.transcribe_url)
        await speak(client, "a", A_SECOND)
        while await tracks(server) != 1:
            await asyncio.sleep(0.02)
        server.process.terminate()

        def stopping() -> bool:
            answer = server.get("/ready")
            return answer.status == 503 and json.loads(answer.body) == {
                "ready": False,
                "reason": "stopping",
            }

        await asyncio.to_thread(wait_until, stopping, "/ready says stopping")
        assert (await asyncio.to_thread(server.get, "/health")).status == 200
        assert json.loads((await asyncio.to_thread(server.get, "/status")).body)["draining"] == 1
        with pytest.raises(InvalidStatus) as refused:
            await connect(server.transcribe_url)
        assert refused.value.response.status_code == 503
        _, code = await rest_of(client)
        assert code == 1001
        assert await asyncio.to_thread(server.wait) == 0


async def test_a_recognizer_that_never_answers_cannot_hold_a_stop_up() -> None:
    async with gateway(600.0, "--set", "drain_deadline_s=0.5") as server:
        client = await connect(server.transcribe_url)
        await speak(client, "a", A_SECOND)
        while await tracks(server) != 1:
            await asyncio.sleep(0.02)
        server.process.terminate()
        _, code = await rest_of(client)
        assert code == 1001
        assert await asyncio.to_thread(server.wait, 8.0) == 0


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("fault", [Fault(hang=True), Fault(deaf=True)])
async def test_a_stop_ends_what_it_no_longer_waits_for(fault: Fault, stays: bool) -> None:
    """No task is left to the closing event loop, which would log errors about it."""
    async with gateway(0.0, "--set", "drain_deadline_s=0.5", fault=fault) as server:
        client = await connect(server.transcribe_url)
        await speak(client, "a", A_SECOND)
        while await tracks(server) != 1:
            await asyncio.sleep(0.02)
        if not stays:
            await client.close()
        assert await asyncio.to_thread(server.stop) == 0
        assert "[error" not in server.log
