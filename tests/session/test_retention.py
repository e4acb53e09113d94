"""Retention: old sessions go, once for all workers, and nobody brings them back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edge.errors import SessionDeleted
from edge.session import retention
from edge.session.retention import Retention
from edge.session.store.interface import Draft, SessionStore
from edge.session.store.sqlite import SqliteStore


async def names(store: SessionStore) -> list[str]:
    return [info.name for info in await store.sessions()]


async def write(store: SessionStore, name: str) -> None:
    await store.note(name, [Draft("event", b"{}")])


async def test_sessions_that_nobody_changes_go_and_others_stay(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "sessions.db") as store:
        await write(store, "old")
        task = Retention(1.0, store)
        task.start()
        async with asyncio.timeout(10):
            while "old" in await names(store):
                await write(store, "new")
                await asyncio.sleep(0.1)
        assert await names(store) == ["new"]
        await task.stop()


async def test_a_late_writer_cannot_bring_an_expired_session_back(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "sessions.db") as store:
        grant = await store.open_track("old", "alice")
        await store.append(grant, [Draft("final", b"{}")])
        await asyncio.sleep(0.05)
        assert await Retention(0.01, store).sweep() == 1
        with pytest.raises(SessionDeleted):
            await store.append(grant, [Draft("final", b"{}")])
        with pytest.raises(SessionDeleted):
            await store.open_track("old", "alice")
        with pytest.raises(SessionDeleted):
            await write(store, "old")
        assert await names(store) == [] and await store.head("old") is None


async def test_one_of_all_workers_sweeps_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PAUSE_S", 0.0)
    path = tmp_path / "sessions.db"
    async with SqliteStore(path) as here, SqliteStore(path) as there:
        for number in range(50):
            await write(here, f"s{number}")
        await asyncio.sleep(0.05)
        sweeps = (Retention(0.01, here).sweep(), Retention(0.01, there).sweep())
        assert sorted(await asyncio.gather(*sweeps)) == [0, 50]
        assert await names(here) == []


async def test_the_turn_of_a_worker_that_died_passes_to_another(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "sessions.db") as store:
        await Retention(0.01, store).sweep()
        await write(store, "old")
        other = Retention(0.01, store)
        async with asyncio.timeout(10):
            while await other.sweep() == 0:
                await asyncio.sleep(0.05)
        assert await names(store) == []


async def test_nothing_goes_when_sessions_are_kept_for_ever(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "sessions.db") as store:
        await write(store, "old")
        await asyncio.sleep(0.02)
        assert await Retention(0, store).sweep() == 0
        assert await names(store) == ["old"]
