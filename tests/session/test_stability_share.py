"""Stability figures of several workers by way of one store, on both engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import StoreUnavailable
from edge.session.stability import Stability
from edge.session.stability_share import StabilityShare
from edge.session.store.interface import Record, SessionStore
from edge.session.store.opening import open_store
from edge.session.store.sqlite import SqliteStore
from edge.transport.interface import Close

MakeStore = Callable[[], SessionStore]


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """Another worker's store at the same place, not opened yet."""
    return lambda: open_store(str(tmp_path / "sessions.db"))


def sharing(stability: Stability, store: SessionStore) -> StabilityShare:
    return StabilityShare(stability, store, write_every_s=0.05, report_kept_s=0.0)


def connect(stability: Stability, count: int, prefix: str = "") -> list[object]:
    connections = [object() for _ in range(count)]
    for number, connection in enumerate(connections):
        stability.opened(connection)
        stability.welcomed(connection, f"{prefix}{number}" if prefix else "")
    return connections


async def until_reported(share: StabilityShare, connections: int) -> None:
    """Wait until the figures of all workers hold so many connections."""
    async with asyncio.timeout(10):
        while (await share.report()).windows["5m"].connections != connections:
            await asyncio.sleep(0.05)


async def test_any_worker_reports_what_all_have_seen(make_store: MakeStore) -> None:
    async with make_store() as here, make_store() as there:
        mine, theirs = Stability(), Stability()
        first, second = sharing(mine, here), sharing(theirs, there)
        first.start()
        second.start()
        connect(mine, 12)
        for connection in connect(theirs, 30):
            theirs.closed(connection, Close(1006))
        await until_reported(first, 42)
        await until_reported(second, 42)
        report = await first.report()
        assert report.is_complete and report.workers == 2
        assert report.windows["24h"].disconnection_rate.value == pytest.approx(30 / 42, abs=0.01)
        await second.stop()
        await until_reported(first, 42)
        await first.stop()


async def test_clients_that_come_back_after_a_drain_are_no_disconnections(
    make_store: MakeStore,
) -> None:
    async with make_store() as here, make_store() as there:
        old, new = Stability(), Stability()
        leaving, staying = sharing(old, here), sharing(new, there)
        staying.start()
        connections = connect(old, 25, "session ")
        old.is_draining = True
        for connection in connections:
            old.closed(connection, Close(1001, by_peer=False))
        connect(new, 25, "session ")
        await leaving.stop()
        async with asyncio.timeout(10):
            while (await staying.report()).windows["5m"].disconnection_rate.value != 0.0:
                await asyncio.sleep(0.05)
        assert (await staying.report()).windows["5m"].connections == 50
        await staying.stop()


async def test_a_store_that_is_away_leaves_this_workers_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqliteStore(tmp_path / "sessions.db") as store:
        stability = Stability()
        share = sharing(stability, store)
        share.start()
        connect(stability, 5)

        async def away(*_: object) -> list[Record]:
            raise StoreUnavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(store, "records", away)
            patch.setattr(store, "put", away)
            report = await share.report()
            assert not report.is_complete and report.windows["1h"].connections == 5
            await asyncio.sleep(0.1)
        assert (await share.report()).is_complete
        await share.stop()
