"""A store that forgets: clients are told that the history is another one, never left with a gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from edge.session.store.opening import open_store
from tests.asr.fakes.openai_endpoint import FakeOpenAI
from tests.ingest.support.media import openai_environment
from tests.nodes.support.checker import log_faults, log_of
from tests.nodes.support.clients import Client, Listener, Speaker, run_clients
from tests.session.store.support.valkey import Valkey
from tests.support.server import running

WITHIN_S = 30.0
NO_LOG = ("--appendonly", "no")


@asynccontextmanager
async def talk(valkey: Valkey, session: str, **settings: str) -> AsyncIterator[list[Client]]:
    """A speaker and a listener on two workers."""
    valkey.start()
    try:
        async with FakeOpenAI() as service:
            changes = openai_environment(service, EDGESCRIBE_STORE=valkey.url, **settings)
            with running("--workers", "2", environment=changes) as server:
                clients: list[Client] = [
                    Speaker(server.address, session, "voice"),
                    Listener(server.address, session),
                ]
                async with run_clients(clients):
                    yield clients
    finally:
        valkey.kill()


async def shown(clients: list[Client], more_than: int) -> None:
    """Wait until each client was shown so many finals of its present epoch."""
    async with asyncio.timeout(WITHIN_S):
        while any(len(finals(client)) <= more_than for client in clients):
            await asyncio.sleep(0.05)


def finals(client: Client) -> list[int]:
    return [
        offset
        for (epoch, offset), event in client.seen.items()
        if epoch == client.epoch and event["k"] == "final"
    ]


async def test_a_store_that_lost_everything_begins_a_new_epoch_and_goes_on(tmp_path: Path) -> None:
    """Restarted without its log; no gateway is restarted, and what is said next is in order."""
    valkey = Valkey(tmp_path, *NO_LOG)
    async with talk(valkey, "m") as clients:
        await shown(clients, 1)
        before = {client.name: client.epoch for client in clients}
        valkey.kill()
        valkey.start()
        async with asyncio.timeout(WITHIN_S):
            while any(client.epoch == before[client.name] for client in clients):
                await asyncio.sleep(0.05)
        await shown(clients, 1)
        for client in clients:
            assert not client.faults
            changed = [w for w in client.welcomes if w.epoch != before[client.name]]
            assert changed and not changed[0].recovered
        async with open_store(valkey.url) as store:
            assert not log_faults(*await log_of(store, "m"))


async def test_a_store_that_is_away_for_ten_seconds_costs_nothing(tmp_path: Path) -> None:
    """The speaker hears itself all the while; then everything is in the same history."""
    valkey = Valkey(tmp_path, "--appendfsync", "always")
    async with talk(valkey, "m", EDGESCRIBE_DURABILITY="full") as clients:
        await shown(clients, 1)
        before = {client.name: client.epoch for client in clients}
        valkey.kill()
        await asyncio.sleep(10)
        valkey.start()
        await shown(clients, 5)
        assert {client.name: client.epoch for client in clients} == before
        for client in clients:
            assert not client.faults
            assert all(welcome.recovered for welcome in client.welcomes if welcome.resumed)
