"""What it costs to append to a session's log, beside the bare engine in the same run."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.store_worker import BODY, SESSIONS
from edge.session.store.follower import Followers
from edge.session.store.interface import Draft, Durability, SessionStore
from edge.session.store.opening import open_store
from tests.session.store.support.valkey import Valkey

REPOSITORY = Path(__file__).parents[1]
FINAL = [Draft("final", BODY)]
WORKERS = 2
APPENDS = 20_000
FEW = 500
IDLE_S = 10.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    valkey = Valkey(tmp_path)
    valkey.start()
    yield valkey
    valkey.kill()


@pytest.fixture(params=["sqlite", "redis"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "s.db")
    url: str = request.getfixturevalue("server").url
    return url


def together_per_second(location: str, durability: str, appends: int = APPENDS) -> float:
    """Fenced appends of 200 bytes per second, of two processes with 100 sessions each."""
    command = [sys.executable, "-m", "bench.store_worker", location, durability, str(appends)]
    workers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        )
        for _ in range(WORKERS)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    said = [worker.communicate("\n")[0].split() for worker in workers]
    begun_s, ended_s = min(float(line[0]) for line in said), max(float(line[1]) for line in said)
    return WORKERS * appends / (ended_s - begun_s)


def rates_of(location: str, durability: str, appends: int, in_full: bool) -> list[float]:
    """Several runs, or one short one."""
    if not in_full:
        return [together_per_second(location, durability, FEW)]
    return [together_per_second(location, durability, appends) for _ in range(3)]


async def alone_ms(location: str, durability: Durability) -> float:
    """The median of single appends, nothing else at work."""
    async with open_store(location, durability) as store:
        grant, took_ms = await store.open_track("lone", "t"), []
        for _ in range(500):
            begun = time.perf_counter()
            await store.append(grant, FINAL)
            took_ms.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took_ms)


def bare_sqlite_per_second(path: Path, durability: str) -> float:
    """Single commits of the bare engine from one thread."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute(f"PRAGMA synchronous={durability}")
    db.execute("CREATE TABLE entries (session, offset, body, PRIMARY KEY (session, offset))")
    begun = time.perf_counter()
    for number in range(3000):
        db.execute("INSERT INTO entries VALUES (1, ?, ?)", (number, BODY))
    elapsed_s = time.perf_counter() - begun
    db.close()
    return 3000 / elapsed_s


def bare_valkey_per_second(server: Valkey) -> float:
    """Single ``XADD`` of a blocking client, one after the other."""
    begun = time.perf_counter()
    for number in range(3000):
        server.client.xadd("bare", {"b": BODY}, id=f"{number + 1}-0")
    return 3000 / (time.perf_counter() - begun)


@pytest.mark.parametrize("durability", ["normal", "full"])
def test_appends_to_sqlite(
    tmp_path: Path, durability: Durability, figure: Callable[[str], None], in_full: bool
) -> None:
    location = str(tmp_path / "s.db")
    rates = rates_of(location, durability, APPENDS, in_full)
    alone = asyncio.run(alone_ms(location, durability))
    bare = bare_sqlite_per_second(tmp_path / "bare.db", durability)
    figure(
        f"sqlite {durability}: {statistics.median(rates):.0f}/s from {WORKERS} processes with "
        f"{SESSIONS} sessions each ({min(rates):.0f} to {max(rates):.0f}), "
        f"{alone:.3f} ms alone; bare single commits {bare:.0f}/s"
    )
    assert statistics.median(rates) >= 10_000 or durability == "full" or not in_full


def test_appends_to_redis(server: Valkey, figure: Callable[[str], None], in_full: bool) -> None:
    rates = rates_of(server.url, "normal", APPENDS // 2, in_full)
    alone = asyncio.run(alone_ms(server.url, "normal"))
    bare = bare_valkey_per_second(server)
    figure(
        f"redis: {statistics.median(rates):.0f}/s from {WORKERS} processes with {SESSIONS} "
        f"sessions each ({min(rates):.0f} to {max(rates):.0f}), {alone:.3f} ms alone; "
        f"bare XADD one after the other {bare:.0f}/s"
    )
    assert statistics.median(rates) >= 5_000 or not in_full


async def test_an_append_costs_the_same_in_a_long_log(
    location: str, figure: Callable[[str], None], in_full: bool
) -> None:
    """Short runs in two logs by turns, so that whatever else happens meets both."""
    rounds, in_a_round, blocks = (60, 50, 200) if in_full else (2, 5, 2)
    async with open_store(location) as store:
        logs = {
            "short": await store.open_track("short", "t"),
            "long": await store.open_track("long", "t"),
        }
        for _ in range(blocks):
            await store.append(logs["long"], FINAL * 500)
        took_ms: dict[str, list[float]] = {"short": [], "long": []}
        for number in range(rounds):
            order = ["short", "long"] if number % 2 else ["long", "short"]
            for name in order:
                begun = time.perf_counter()
                for _ in range(in_a_round):
                    await store.append(logs[name], FINAL)
                took_ms[name].append((time.perf_counter() - begun) * 1000 / in_a_round)
    short, long = (statistics.median(took_ms[name]) for name in ("short", "long"))
    figure(
        f"{type(store).__name__}: an append takes {short:.4f} ms in a new log, {long:.4f} ms after "
        f"{500 * blocks:,} entries ({(long / short - 1) * 100:+.1f} %), medians of {rounds} rounds "
        "by turns"
    )
    assert long <= short * 1.1 or not in_full


async def test_listening_to_500_sessions_costs_nothing(
    location: str, figure: Callable[[str], None], in_full: bool
) -> None:
    window_s = IDLE_S if in_full else 0.2
    async with open_store(location) as store, open_store(location) as other:
        followers, rooms = Followers(store), []
        for number in range(500 if in_full else 20):
            await store.note(f"s{number}", [Draft("event", b"x")])
            rooms.append(followers.follow(f"s{number}"))
            await rooms[-1].__aenter__()
        shares = []
        for is_busy in (False, True):
            await asyncio.sleep(1.5 if in_full else 0)
            begun_s, cpu_s = time.perf_counter(), time.process_time()
            while time.perf_counter() - begun_s < window_s:
                await asyncio.sleep(0.1)
                if is_busy:
                    await other.note("elsewhere", [Draft("event", b"x")])
            elapsed_s = time.perf_counter() - begun_s
            shares.append((time.process_time() - cpu_s) / elapsed_s * 100)
        for room in rooms:
            await room.__aexit__(None, None, None)
    figure(
        f"{type(store).__name__}: {len(rooms)} sessions followed take {shares[0]:.2f} % of a core "
        f"when nothing happens, {shares[1]:.2f} % with 10 entries a second in another session "
        "(writing them included)"
    )
    assert shares[0] < 1 or not in_full


async def stalls_ms(store: SessionStore, timers: int) -> list[float]:
    """How late a timer of 1 ms comes while one track appends without a pause."""
    loop, late_ms = asyncio.get_running_loop(), []
    grant = await store.open_track("s", "t")

    async def speak() -> None:
        while True:
            await store.append(grant, FINAL)

    speaking = asyncio.create_task(speak())
    for _ in range(timers):
        begun_s = loop.time()
        await asyncio.sleep(0.001)
        late_ms.append((loop.time() - begun_s - 0.001) * 1000)
    speaking.cancel()
    await asyncio.wait([speaking])
    return sorted(late_ms)


@pytest.mark.parametrize("durability", ["normal", "full"])
async def test_an_append_does_not_hold_the_loop_up(
    tmp_path: Path, durability: Durability, figure: Callable[[str], None], in_full: bool
) -> None:
    async with open_store(str(tmp_path / "s.db"), durability) as store:
        late_ms = await stalls_ms(store, 2000 if in_full else 50)
    p50, p99 = (late_ms[int(len(late_ms) * share)] for share in (0.5, 0.99))
    figure(
        f"sqlite {durability}: while a track appends without a pause, a timer is {p50:.2f} ms late "
        f"at p50, {p99:.2f} ms at p99, {late_ms[-1]:.2f} ms at most"
    )
    assert p99 < 10 or not in_full
