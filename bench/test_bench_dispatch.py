"""Messages that go through a queue of the dispatcher in a second of one core, in order."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dispatch import Dispatcher, Envelope, Transport
from dispatch.consumer import Consumer, ConsumerPlan
from dispatch.local_queue import LocalQueue
from dispatch.messages import transcription
from dispatch.sources.interface import Source
from dispatch.sources.redis import RedisSource
from dispatch.transports.local import LocalTransport
from dispatch.transports.redis import RedisTransport
from edge.session.store.interface import Draft
from edge.session.store.opening import open_store
from tests.session.store.support.valkey import Valkey

SESSIONS = 50
EACH = 1000
EACH_SOON = 20
TEXT = "so the third item is the budget for the next quarter and who is to approve it"
PLAN = ConsumerPlan(batch=1000, batch_wait_s=0.0, poll_s=0.01)
WANTED = {"local": 2000, "redis": 5000}


class Listener(Transport):
    """Takes everything and keeps whether it came in order."""

    def __init__(self) -> None:
        self.last: dict[str, int] = {}
        self.count = 0

    async def send(self, envelopes: Sequence[Envelope]) -> int:
        for envelope in envelopes:
            session, _, offset = envelope.message_id.rpartition(":")
            assert int(offset) == self.last.get(session, 0) + 1, "out of order"
            self.last[session] = int(offset)
        self.count += len(envelopes)
        return len(envelopes)


def message(session: str, offset: int) -> Envelope:
    body = transcription(session, "anna", [TEXT], 1700000000000 + offset, "en")
    return Envelope(f"{session}:{offset}", session, body or b"", 1, "e", int(time.time() * 1000))


class Cost(msgspec.Struct):
    """Seconds of this process, of all cores, and of the clock."""

    cpu_s: float = 0.0
    clock_s: float = 0.0

    def __enter__(self) -> Cost:
        self.cpu_s, self.clock_s = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_s = time.process_time() - self.cpu_s
        self.clock_s = time.perf_counter() - self.clock_s

    def of(self, count: int) -> str:
        return f"{count / self.cpu_s:,.0f}/s of a core ({count / self.clock_s:,.0f}/s by the clock)"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    valkey = Valkey(tmp_path)
    valkey.start()
    yield valkey
    valkey.kill()


def cpu_s(server: Valkey) -> float:
    """What the server's process has used."""
    assert server.process is not None
    said = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(said[11]) + int(said[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(params=["local", "redis"])
def ways(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[str, Transport, Source[Any], Callable[[], float]]:
    path = tmp_path / "queue.db"
    if request.param == "local":
        return "local", LocalTransport(LocalQueue(path)), LocalQueue(path), lambda: 0.0
    server: Valkey = request.getfixturevalue("server")
    return (
        "redis",
        RedisTransport(server.url),
        RedisSource(server.url),
        lambda: cpu_s(server),
    )


async def put(transport: Transport, each: int) -> None:
    """All sessions at a time, ten messages a call."""

    async def one(session: str) -> None:
        for first in range(1, each + 1, 10):
            waiting = [message(session, first + n) for n in range(10)]
            while waiting:
                del waiting[: await transport.send(waiting)]

    await asyncio.gather(*(one(f"session-{number}") for number in range(SESSIONS)))


async def take(source: Source[Any], count: int) -> None:
    """A consumer of it, until so many have come, in order."""
    listener = Listener()
    consumer: Consumer[Any] = Consumer(source, listener, PLAN)
    task = asyncio.create_task(consumer.run())
    try:
        async with asyncio.timeout(300):
            while listener.count < count:
                await asyncio.sleep(0.02)
        consumer.stop()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert listener.count == count
    assert consumer.intake_counts.duplicates == 0


def test_messages_through_a_queue(
    ways: tuple[str, Transport, Source[Any], Callable[[], float]],
    in_full: bool,
    figure: Callable[[str], None],
) -> None:
    """What the transport and the consumer cost together is one core's, the server's apart."""
    name, transport, source, server_s = ways
    each = EACH if in_full else EACH_SOON
    count = SESSIONS * each

    async def run() -> tuple[Cost, Cost]:
        async with transport, source:
            with Cost() as putting:
                await put(transport, each)
            with Cost() as taking:
                await take(source, count)
        return putting, taking

    putting, taking = asyncio.run(run())
    both = Cost(putting.cpu_s + taking.cpu_s, putting.clock_s + taking.clock_s)
    figure(f"{name}: put {putting.of(count)}, consumed {taking.of(count)}, both {both.of(count)}")
    if used_s := server_s():
        figure(f"{name}: the server used {used_s:.2f} s for {count} messages")
    if in_full:
        assert count / both.cpu_s > WANTED[name]


@pytest.mark.parametrize("way", ["local", "redis"])
def test_messages_out_of_an_outbox(
    way: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    in_full: bool,
    figure: Callable[[str], None],
) -> None:
    """What a gateway's worker pays: from the session store's outbox into the queue."""
    each = 200 if in_full else EACH_SOON
    count = SESSIONS * each

    async def run() -> Cost:
        transport: Transport
        if way == "local":
            transport = LocalTransport(LocalQueue(tmp_path / "queue.db"))
        else:
            transport = RedisTransport(request.getfixturevalue("server").url)
        async with open_store(str(tmp_path / "sessions.db")) as store, transport:
            for number in range(SESSIONS):
                grant = await store.open_track(f"session-{number}", "anna")
                bodies = [message(grant.session, n).body for n in range(each)]
                await store.append(
                    grant,
                    [Draft("final", body) for body in bodies],
                    list(enumerate(bodies)),
                )
            dispatcher = Dispatcher(store, transport, idle_s=0.01)
            with Cost() as cost:
                task = asyncio.create_task(dispatcher.run())
                async with asyncio.timeout(300):
                    while dispatcher.counts.sent < count:
                        await asyncio.sleep(0.02)
            dispatcher.stop()
            await task
        return cost

    cost = asyncio.run(run())
    figure(f"out of a SQLite outbox into {way}: {cost.of(count)}")
    if in_full:
        assert count / cost.cpu_s > WANTED[way]
