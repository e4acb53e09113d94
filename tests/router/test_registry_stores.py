"""The shared registry in the stores that keep it: SQLite, and a real Valkey that may be away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from edge.server.routing import RegistryRecords
from edge.session.store.opening import open_store
from router import Entry
from router.errors import RegistryUnavailable
from tests.router.support.working import Worker, working
from tests.session.store.support.valkey import Valkey
from tests.support.server import QUIET_RECOGNIZER, Server, starting, wait_until

SAMPLE = "tests.router.support.sample"
ONE, TWO = Entry(source=f"{SAMPLE}:one"), Entry(source=f"{SAMPLE}:two")
NODE_FILE = """
[table]
zones = ["localhost"]
gateway_hosts = ["127.0.0.1"]
services = ["gateway", "later"]
"""
FOLLOWED_WITHIN_S = 1.0
AWAY_S = 1.0


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path, "--appendfsync", "always")
    server.start()
    yield server
    server.kill()


@contextlib.asynccontextmanager
async def workers(location: str, count: int) -> AsyncIterator[list[Worker]]:
    """Each with a store of its own, as processes and nodes have."""
    async with contextlib.AsyncExitStack() as stack:
        served = []
        for _ in range(count):
            store = await stack.enter_async_context(open_store(location))
            worker = working(RegistryRecords(store), admin_key="sesame")
            served.append(await stack.enter_async_context(worker))
        yield served


async def served_everywhere(among: list[Worker], word: bytes, within_s: float) -> None:
    """Wait until every worker's service ``db`` answers with a word."""
    began_s = time.monotonic()
    for worker in among:
        while word not in (await worker.ask("db.do")).body:
            assert time.monotonic() - began_s < within_s, word
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("engine", ["sqlite", "redis"])
async def test_every_worker_follows_within_a_second_and_after_a_restart(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    location = str(tmp_path / "sessions.db")
    if engine == "redis":
        location = request.getfixturevalue("valkey").url
    async with workers(location, 4) as served:
        for number, (entry, word) in enumerate([(ONE, b'"one"'), (TWO, b'"two"')]):
            await served[number].deployments.deploy("production", "db", entry)
            await served_everywhere(served, word, FOLLOWED_WITHIN_S)
    async with workers(location, 2) as again:
        await served_everywhere(again, b'"two"', FOLLOWED_WITHIN_S)
        await again[0].deployments.remove("production", "db")
        await served_everywhere(again, b"not deployed", FOLLOWED_WITHIN_S)


async def test_while_the_store_is_away_what_was_deployed_goes_on(valkey: Valkey) -> None:
    """And nothing is half deployed: the change is refused, and works once the store is back."""
    async with workers(valkey.url, 2) as served:
        first, second = served
        await first.deployments.deploy("production", "db", ONE)
        await served_everywhere(served, b'"one"', FOLLOWED_WITHIN_S)
        valkey.kill()
        until_s = time.monotonic() + AWAY_S
        changing = asyncio.ensure_future(first.deployments.deploy("production", "db", TWO))
        while time.monotonic() < until_s:
            for worker in served:
                assert b'"one"' in (await worker.ask("db.do")).body
            await asyncio.sleep(0.02)
        if not changing.done():
            changing.cancel()
        with pytest.raises((RegistryUnavailable, asyncio.CancelledError)):
            await changing
        await asyncio.to_thread(valkey.start)
        await second.deployments.deploy("production", "db", TWO)
        await served_everywhere(served, b'"two"', FOLLOWED_WITHIN_S)


def test_every_worker_of_every_node_follows_and_so_does_one_that_starts_later(
    valkey: Valkey, tmp_path: Path
) -> None:
    file = tmp_path / "router.toml"
    file.write_text(NODE_FILE, encoding="utf-8")
    environment = {
        **QUIET_RECOGNIZER,
        "EDGESCRIBE_ROUTER_FILE": str(file),
        "EDGESCRIBE_ADMIN_KEY": "sesame",
        "EDGESCRIBE_STORE": valkey.url,
    }
    workers = ("--workers", "2")
    with (
        starting(*workers, environment=environment) as first,
        starting(*workers, environment=environment) as second,
    ):
        for node in (first, second):
            node.wait_ready()
        deploy(first, "PUT", ONE)
        began_s = time.monotonic()
        for node in (first, second):
            served_by_all(node, began_s + FOLLOWED_WITHIN_S, b'"one"')
        second.kill_worker(second.workers()[0])
        wait_until(lambda: len(second.workers()) == 2, "the worker is replaced")
        second.wait_ready()
        served_by_all(second, time.monotonic() + 10, b'"one"')
        deploy(second, "DELETE")
        began_s = time.monotonic()
        for node in (first, second):
            served_by_all(node, began_s + FOLLOWED_WITHIN_S, b"not deployed")


def deploy(node: Server, method: str, entry: Entry | None = None) -> None:
    """Change the service ``later`` over the Deploy API."""
    body = None if entry is None else msgspec.json.encode(entry)
    headers = {"Host": "localhost", "Authorization": "Bearer sesame"}
    path = "/_deploy/services/production/later"
    assert node.get(path, method, body=body, headers=headers).status in (200, 201)


def served_by_all(node: Server, until_s: float, word: bytes) -> None:
    """So many connections in a row that each worker has had some."""
    in_a_row = 0
    while in_a_row < 16:
        answer = node.get("/", headers={"Host": "later.localhost"})
        in_a_row = in_a_row + 1 if word in answer.body else 0
        assert in_a_row or time.monotonic() < until_s, answer
