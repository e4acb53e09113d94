"""What it costs to append to a session's log, beside the bare engine in the same run."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.session.store.interface import Draft, Durability, SessionStore
from edge.session.store.opening import open_store
from tests.session.store.support.valkey import Valkey

BODY = b"x" * 200
SESSIONS = 100
APPENDS = 4000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    valkey = Valkey(tmp_path)
    valkey.start()
    yield valkey
    valkey.kill()


async def per_second(store: SessionStore) -> float:
    """Fenced appends of 200 bytes per second, 100 sessions at once."""
    grants = [await store.open_track(f"s{n}", "t") for n in range(SESSIONS)]

    async def speak(number: int) -> None:
        for _ in range(APPENDS // SESSIONS):
            await store.append(grants[number], [Draft("final", BODY)])

    begun = time.perf_counter()
    await asyncio.gather(*(speak(n) for n in range(SESSIONS)))
    return APPENDS / (time.perf_counter() - begun)


async def measured(location: str, durability: Durability) -> tuple[float, float]:
    """Appends per second of many sessions, and the ms of one alone."""
    async with open_store(location, durability) as store:
        rate = await per_second(store)
        grant = await store.open_track("lone", "t")
        begun = time.perf_counter()
        for _ in range(300):
            await store.append(grant, [Draft("final", BODY)])
        return rate, (time.perf_counter() - begun) / 300 * 1000


def bare_per_second(path: Path, durability: str) -> float:
    """Single commits of the bare engine."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute(f"PRAGMA synchronous={durability}")
    db.execute("CREATE TABLE entries (session, offset, body, PRIMARY KEY (session, offset))")
    begun = time.perf_counter()
    for number in range(1000):
        db.execute("INSERT INTO entries VALUES (1, ?, ?)", (number, BODY))
    elapsed_s = time.perf_counter() - begun
    db.close()
    return 1000 / elapsed_s


@pytest.mark.parametrize("durability", ["normal", "full"])
def test_appends_to_sqlite(
    tmp_path: Path, durability: Durability, figure: Callable[[str], None]
) -> None:
    rate, alone_ms = asyncio.run(measured(str(tmp_path / "s.db"), durability))
    bare = bare_per_second(tmp_path / "bare.db", durability)
    figure(
        f"sqlite {durability}: {rate:.0f}/s of {SESSIONS} sessions, {alone_ms:.3f} ms alone; "
        f"bare single commits {bare:.0f}/s"
    )
    assert rate > 1000


def test_appends_to_redis(server: Valkey, figure: Callable[[str], None]) -> None:
    rate, alone_ms = asyncio.run(measured(server.url, "normal"))
    begun = time.perf_counter()
    for number in range(1000):
        server.client.xadd("bare", {"b": BODY}, id=f"{number + 1}-0")
    bare_ms = time.perf_counter() - begun
    figure(
        f"redis: {rate:.0f}/s of {SESSIONS} sessions, {alone_ms:.3f} ms alone; "
        f"bare XADD {bare_ms:.3f} ms"
    )
    assert rate > 300


@pytest.mark.parametrize("engine", ["sqlite", "redis"])
def test_an_append_costs_the_same_in_a_long_log(
    tmp_path: Path, server: Valkey, engine: str, figure: Callable[[str], None]
) -> None:
    async def compared() -> tuple[float, float]:
        async with open_store(str(tmp_path / "l.db") if engine == "sqlite" else server.url) as log:
            grant = await log.open_track("s", "t")

            async def timed_ms() -> float:
                begun = time.perf_counter()
                for _ in range(500):
                    await log.append(grant, [Draft("final", BODY)])
                return (time.perf_counter() - begun) * 2

            await timed_ms()
            short = await timed_ms()
            for _ in range(200):
                await log.append(grant, [Draft("final", BODY)] * 500)
            return short, await timed_ms()

    short_ms, long_ms = asyncio.run(compared())
    figure(f"{engine}: append {short_ms:.3f} ms in a short log, {long_ms:.3f} ms after 100,000")
