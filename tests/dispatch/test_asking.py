"""Which sessions are dispatched, what of them, and what the log says; through the public door."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from dispatch.local_queue import LocalQueue
from dispatch.messages import DispatcherTranscriptionMessage, decode_message
from edge.dispatching.ways import QUEUE_FILE
from edge.session.store.opening import open_store
from tests.dispatch.support.media import silence
from tests.dispatch.support.talkative import Talkative
from tests.nodes.support.checker import log_of
from tests.support.server import QUIET_RECOGNIZER, Server, edgescribe, starting

UNSET = {
    "": False,
    "useDispatcher=true": True,
    "useDispatcher=false": False,
    "useDispatcher=TRUE": False,
    "useDispatcher=1": False,
    "useDispatcher=": False,
    "useDispatcher": False,
}
"""Queries, and whether they are dispatched where the setting says nothing."""
SET = {**dict.fromkeys(UNSET, False), "": True, "useDispatcher=true": True}
"""The same with ``USE_DISPATCHER=true``."""
ENOUGH = 3


class Receiver:
    """Takes posts; ``took`` has their bodies and keys."""

    def __init__(self) -> None:
        self.took: list[tuple[str, DispatcherTranscriptionMessage]] = []

    async def take(self, request: web.BaseRequest) -> web.StreamResponse:
        message = decode_message(await request.read())
        self.took.append((request.headers["Idempotency-Key"], message))
        return web.json_response({"success": True, "dispatched": 1})

    def of(self, session: str) -> list[tuple[str, DispatcherTranscriptionMessage]]:
        return [each for each in self.took if each[1].session_id == session]


@asynccontextmanager
async def receiving() -> AsyncIterator[tuple[Receiver, str]]:
    """A receiver and its URL."""
    receiver = Receiver()
    runner = web.ServerRunner(web.Server(receiver.take))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield receiver, f"http://127.0.0.1:{runner.addresses[0][1]}/dispatch"
    await runner.cleanup()


async def talk(server: Server, session: str, query: str, path: str = "transcribe") -> list[Any]:
    """The first results of a session; whoever hears them leaves for good."""
    found: list[Any] = []
    if path == "transcribe":
        url = f"ws://{server.address}/transcribe?sessionId={session}&sendBack=true&{query}"
    else:
        url = f"ws://{server.address}/listen?session={session}&speaker=anna&{query}"
    async with connect(url, compression=None) as client:
        if path == "transcribe":
            talking = asyncio.create_task(silence(client, "anna-b1"))
        else:
            talking = asyncio.create_task(samples(client))
        async with asyncio.timeout(10):
            async for message in client:
                event = json.loads(message)
                if event.get("event") in ("transcription-result", "EndOfTurn"):
                    found.append(event)
                    if len(found) == ENOUGH:
                        break
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
    return found


async def samples(client: Any) -> None:
    while True:
        await client.send(bytes(3200))
        await asyncio.sleep(0.1)


async def settled(server: Server, sessions: list[str]) -> None:
    """Wait until what was said is in the logs, and nothing waits any more."""
    async with open_store(str(server.data_dir / "sessions.db")) as store, asyncio.timeout(15):
        for session in sessions:
            while await store.head(session) is None:
                await asyncio.sleep(0.05)
            while (await finals_of(store, session)) < ENOUGH:
                await asyncio.sleep(0.05)
        while await store.outbox_size():
            await asyncio.sleep(0.05)


async def finals_of(store: Any, session: str) -> int:
    _, entries = await log_of(store, session)
    return sum(entry.kind == "final" for entry in entries)


@pytest.mark.parametrize("environment", [{}, {"USE_DISPATCHER": "true"}], ids=["unset", "set"])
async def test_the_query_wins_over_the_setting(environment: dict[str, str]) -> None:
    table = SET if environment else UNSET
    async with receiving() as (receiver, url), Talkative(per_s=20) as endpoint:
        settings = endpoint.environment | environment | {"EDGESCRIBE_DISPATCH_HTTP_URL": url}
        with starting("--workers", "1", environment=settings) as server:
            await asyncio.to_thread(server.wait_ready)
            asked = {f"row-{row}": query for row, query in enumerate(table)}
            asked |= {"plain-true": "useDispatcher=true", "plain-unset": ""}
            results = await asyncio.gather(
                *(
                    talk(server, session, query, "listen" if "plain" in session else "transcribe")
                    for session, query in asked.items()
                )
            )
            await settled(server, list(asked))
            log = server.log
    wanted = {session for session, query in asked.items() if table[query]}
    assert {message.session_id for _, message in receiver.took} == wanted
    for session in asked:
        assert (f"Using dispatcher for sessionId: {session}" in log) == (session in wanted)
    said = {result["transcript"][0]["text"]: result for result in results[1]}
    took = receiver.of("row-1")
    assert said.keys() <= {message.text for _, message in took}
    for name, message in took:
        session, _, offset = name.rpartition(":")
        assert session == "row-1" and int(offset) > 0
        assert message.endpoint_id == results[1][0]["participant"]["id"]
        assert abs(message.timestamp - time.time() * 1000) < 60_000
    assert "number" not in log, "what was said is nobody's business"


def test_without_a_way_out_whoever_asks_is_refused_before_the_upgrade() -> None:
    settings = QUIET_RECOGNIZER | {"EDGESCRIBE_DISPATCH_LOCAL": "off"}
    with starting("--workers", "1", environment=settings) as server:
        server.wait_ready()

        async def ask(query: str) -> InvalidStatus | None:
            url = f"ws://{server.address}/transcribe?sessionId=s&sendBack=true{query}"
            try:
                async with connect(url, compression=None):
                    return None
            except InvalidStatus as refusal:
                return refusal

        refusal = asyncio.run(ask("&useDispatcher=true"))
        assert refusal is not None and refusal.response.status_code == 400
        assert b"dispatch_local" in refusal.response.body
        assert asyncio.run(ask("")) is None


async def test_with_no_setting_finals_go_to_the_queue_of_the_machine() -> None:
    """And the command line shows what waits, what was given up, and brings it back."""
    async with Talkative(per_s=20, most=2 * ENOUGH) as endpoint:
        with starting("--workers", "1", environment=endpoint.environment) as server:
            await asyncio.to_thread(server.wait_ready)
            await talk(server, "s", "useDispatcher=true")
            while not endpoint.is_done:
                await asyncio.sleep(0.05)
            await settled(server, ["s"])
            metrics = await until_counted(server, ENOUGH)
            async with LocalQueue(server.data_dir / QUEUE_FILE) as queue:
                rows = await queue.claim("test", 100)
                await queue.bury("test", rows[0], "no use")
                await queue.retry("test", rows[1], 0)
            status = await command(server, "status", "--json")
            letters = await command(server, "dead-letters", "--json")
            plain = await command(server, "dead-letters", "--redrive")
            async with LocalQueue(server.data_dir / QUEUE_FILE) as queue:
                assert await queue.outbox_size() == len(rows)
    outbox, waiting = json.loads(status)["places"]
    assert json.loads(status)["way"] == "local"
    assert (outbox["where"], outbox["waiting"], outbox["dead"]) == ("outbox", 0, 0)
    assert (waiting["where"], waiting["waiting"], waiting["dead"]) == ("queue", len(rows) - 1, 1)
    [letter], name = json.loads(letters), f"s:{rows[0].offset}"
    assert (letter["where"], letter["id"], letter["reason"]) == ("queue", name, "no use")
    assert "1 put back" in plain and name in plain
    assert "edgescribe_dispatch_latency_seconds_count" in metrics
    assert "edgescribe_dispatch_outbox_messages 0.0" in metrics
    assert "edgescribe_dispatch_outbox_age_seconds 0.0" in metrics


async def until_counted(server: Server, sent: int) -> str:
    """The metrics, once so many messages are in them."""
    async with asyncio.timeout(10):
        while True:
            metrics = (await asyncio.to_thread(server.get, "/metrics")).body.decode()
            found = re.search(r'dispatch_messages_total{outcome="sent"} (\d+)', metrics)
            if found and int(found[1]) >= sent:
                return metrics
            await asyncio.sleep(0.1)


async def command(server: Server, *arguments: str) -> str:
    """What ``edgescribe dispatch`` prints beside the gateway."""
    data = str(server.data_dir)
    done = await asyncio.to_thread(edgescribe, "dispatch", *arguments, "--data-dir", data)
    assert done.returncode == 0, done.stderr
    return done.stdout
