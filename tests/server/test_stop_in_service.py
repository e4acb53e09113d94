"""A stop while people speak and what serves them hangs: everything ends in time, with no orphan."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.asr.fakes.openai_endpoint import KEY, FakeOpenAI, Fault
from tests.asr.support.embedded import requires_embedded
from tests.support.server import STOP_WITHIN_S, Server, running, wait_until
from tests.support.speech import speak

SPEAKERS = 6
HALF_A_SECOND = 25
"""Packets, and no pause after them."""


@asynccontextmanager
async def in_service(server: Server) -> AsyncIterator[list[ClientConnection]]:
    """Clients with two tags each, taken by the gateway."""
    clients = [
        await connect(f"{server.transcribe_url}&sessionId=s{number}") for number in range(SPEAKERS)
    ]
    for client in clients:
        await speak(client, "a", HALF_A_SECOND)
        await speak(client, "b", HALF_A_SECOND)

    def all_taken() -> bool:
        return bool(json.loads(server.get("/status").body)["tracks"] == 2 * SPEAKERS)

    await asyncio.to_thread(wait_until, all_taken, "all tags are taken")
    yield clients
    await asyncio.gather(*(client.close() for client in clients))


async def goodbye(client: ClientConnection) -> int:
    try:
        while True:
            await client.recv()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 1006


def environment(endpoint: FakeOpenAI) -> dict[str, str]:
    return {
        "OPENAI_API_KEY": KEY,
        "OPENAI_REALTIME_URL": endpoint.url,
        "PROVIDERS_PRIORITY": "openai",
        "OPENAI_TURN_DETECTION": "null",
    }


@pytest.mark.parametrize(
    ("number", "group", "drain"),
    [
        (signal.SIGTERM, False, ("--set", "drain_deadline_s=1")),
        (signal.SIGINT, True, ("--set", "drain_deadline_s=1")),
        (signal.SIGTERM, True, ()),
    ],
    ids=["SIGTERM", "SIGINT-group", "SIGTERM-group-and-the-defaults"],
)
async def test_repeated_signals_with_live_sessions_and_a_deaf_recognizer_end_everything(
    number: signal.Signals, group: bool, drain: tuple[str, ...]
) -> None:
    endpoint = FakeOpenAI(transcribe=lambda pcm: "", faults=lambda attempt: Fault(deaf=True))
    async with endpoint:
        with running("--workers", "2", *drain, environment=environment(endpoint)) as server:
            async with in_service(server) as clients:
                began_s = time.monotonic()
                for _ in range(5):
                    server.send_signal(number, group=group)
                    await asyncio.sleep(0.05)
                codes = await asyncio.gather(*map(goodbye, clients))
            assert set(codes) == {1001}
            assert await asyncio.to_thread(server.wait) == 0
            assert time.monotonic() - began_s < STOP_WITHIN_S
            assert "Traceback" not in server.log


@requires_embedded
async def test_an_inference_process_that_hangs_holds_no_stop_up_and_is_no_orphan() -> None:
    arguments = ("--workers", "2", "--set", "drain_deadline_s=1")
    with running(*arguments, environment={"PROVIDERS_PRIORITY": "embedded"}) as server:
        wait_until(lambda: "recognizer is ready" in server.log, "the inference process", 30)
        (caretaker,) = server.processes_named("Sanic-Inference")
        (child,) = children(caretaker)
        async with in_service(server):
            os.kill(child, signal.SIGSTOP)
            server.send_signal(signal.SIGTERM, group=True)
            server.process.wait(STOP_WITHIN_S)
        wait_until(lambda: not exists(child), "the inference process has ended", 2)
        server.wait()


@requires_embedded
def test_an_inference_process_that_hangs_is_replaced_while_the_gateway_runs() -> None:
    arguments = ("--workers", "1", "--set", "hang_deadline_s=1")
    with running(*arguments, environment={"PROVIDERS_PRIORITY": "embedded"}) as server:
        wait_until(lambda: "recognizer is ready" in server.log, "the inference process", 30)
        (caretaker,) = server.processes_named("Sanic-Inference")
        (child,) = children(caretaker)
        os.kill(child, signal.SIGSTOP)
        wait_until(lambda: server.log.count("recognizer is ready") == 2, "its successor", 20)
        assert children(caretaker) != [child]
        assert "hangs" in server.log


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
