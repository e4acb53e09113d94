"""What every transport promises, on real queues and services."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dispatch import Envelope, Refused, Transport, Unreachable
from tests.dispatch.support.targets import (
    BindingTarget,
    Heard,
    HttpTarget,
    LocalTarget,
    RedisTarget,
    SqsTarget,
    Target,
    WebSocketTarget,
    envelope_of,
    envelopes,
)

WAYS = ("sqs", "redis", "local", "binding", "http", "websocket")
DEADLINE_S = 5.0
SHORT_S = 0.3


@pytest.fixture(params=WAYS)
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Target]:
    """Away until it is started."""
    made: Target
    match request.param:
        case "sqs":
            made = SqsTarget(request.getfixturevalue("moto"))
        case "redis":
            made = RedisTarget(request.getfixturevalue("shared_valkey"))
        case "local":
            made = LocalTarget(tmp_path)
        case "binding":
            made = BindingTarget()
        case "http":
            made = HttpTarget()
        case _:
            made = WebSocketTarget()
    yield made
    await made.stop()


async def deliver(transport: Transport, waiting: list[Envelope]) -> int:
    """Send as a dispatcher does, until all is taken or something is not; how many were."""
    count = 0
    while count < len(waiting):
        taken = await transport.send(waiting[count:])
        assert 1 <= taken <= len(waiting) - count
        count += taken
    return count


def by_session(heard: list[Heard]) -> dict[str, list[bytes]]:
    bodies = defaultdict[str, list[bytes]](list)
    for one in heard:
        bodies[one.session].append(one.body)
    return dict(bodies)


async def test_sessions_go_beside_each_other_and_each_in_order(target: Target) -> None:
    await target.start()
    sessions = {name: envelopes(name, 8) for name in ("red", "a b/ü?", "x" * 200, "{}")}
    async with target.transport(DEADLINE_S) as transport:
        await asyncio.gather(*(deliver(transport, waiting) for waiting in sessions.values()))
    heard = await target.heard()
    assert by_session(heard) == {
        name: [envelope.body for envelope in waiting] for name, waiting in sessions.items()
    }


async def test_a_redelivery_is_known_by_its_id(target: Target) -> None:
    """Queues keep it once; services are told the same id, if there is a place, and the attempt."""
    await target.start()
    async with target.transport(DEADLINE_S) as transport:
        for attempt in (1, 2):
            await deliver(transport, [envelope_of("red", 7, attempt=attempt)])
    heard = await target.heard()
    assert len(heard) == (1 if target.keeps_once else 2)
    assert len({one.body for one in heard}) == 1
    assert {one.message_id for one in heard} <= {"red:7", None}
    attempts = [one.attempt for one in heard if one.attempt is not None]
    assert attempts == list(range(1, len(attempts) + 1))


async def test_a_target_that_hangs_costs_the_deadline_and_nothing_else(target: Target) -> None:
    await target.start()
    async with target.transport(SHORT_S) as transport:
        await retried(transport, [envelope_of("red", 1)])
        await target.hang()
        start_s = time.monotonic()
        try:
            with pytest.raises(Unreachable):
                await transport.send([envelope_of("red", 2)])
            took_s = time.monotonic() - start_s
        finally:
            await target.wake()
        assert SHORT_S * 0.9 < took_s < SHORT_S + 1.0
        await retried(transport, [envelope_of("red", 2), envelope_of("red", 3)])
    bodies = by_session(await target.heard())["red"]
    assert list(dict.fromkeys(bodies)) == [envelope.body for envelope in envelopes("red", 3)]


async def retried(transport: Transport, waiting: list[Envelope]) -> None:
    """Send until the target is back."""
    async with asyncio.timeout(20):
        while waiting:
            try:
                del waiting[: await transport.send(waiting)]
            except Unreachable as error:
                await asyncio.sleep(max(0.02, error.retry_after_s or 0.0))


async def test_a_target_that_is_away_is_unreachable_until_it_is_there(target: Target) -> None:
    async with target.transport(DEADLINE_S) as transport:
        for _ in range(3):
            with pytest.raises(Unreachable):
                await transport.send(envelopes("red", 3))
    await target.start()
    async with target.transport(DEADLINE_S) as transport:
        await retried(transport, envelopes("red", 3))
    assert len(await target.heard()) == 3


async def test_what_is_refused_is_told_and_what_is_before_and_after_it_is_taken(
    target: Target,
) -> None:
    await target.start()
    poison = target.poison("red", 3)
    if poison is None:
        return
    waiting = envelopes("red", 5)
    waiting[2] = poison
    async with target.transport(DEADLINE_S) as transport:
        assert await deliver(transport, waiting[:2]) == 2
        with pytest.raises(Refused):
            await transport.send(waiting[2:])
        assert await transport.send(waiting[1:3]) == 1, "one that is known, and the poison"
        assert await deliver(transport, waiting[3:]) == 2
    bodies = by_session(await target.heard())["red"]
    expected = [waiting[index].body for index in (0, 1, 3, 4)]
    assert list(dict.fromkeys(bodies)) == expected


async def test_closing_leaves_nothing_behind(target: Target) -> None:
    """No task, no thread, no open file; also with a delivery that was cancelled half-way."""
    await target.start()
    tasks, threads = asyncio.all_tasks(), threading.active_count()
    files = len(os.listdir("/proc/self/fd"))
    async with target.transport(DEADLINE_S) as transport:
        for session in ("red", "green"):
            await deliver(transport, envelopes(session, 3))
        await target.hang()
        under_way = asyncio.create_task(transport.send([envelope_of("red", 4)]))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(under_way, 0.1)
        await target.wake()
    async with asyncio.timeout(5):
        while (
            asyncio.all_tasks() - tasks
            or threading.active_count() > threads
            or len(os.listdir("/proc/self/fd")) > files
        ):
            await asyncio.sleep(0.01)
