"""A gateway that finds a long outbox starts as fast as any and empties it."""

from __future__ import annotations

from pathlib import Path

from tests.dispatch.backlog import started
from tests.session.store.support.valkey import Valkey

LEAST_PER_S = 200
READY_WITHIN_S = 10.0
"""The suite's machine does other things, too; alone it is one or two."""


async def test_a_hundred_thousand_messages_that_wait_hold_no_start_up(tmp_path: Path) -> None:
    outcome = await started(str(tmp_path / "sessions.db"), 100_000, 500, {}, drained=False)
    assert outcome.ready_s < READY_WITHIN_S
    assert outcome.per_s > LEAST_PER_S


async def test_nor_do_those_in_redis_of_many_sessions(tmp_path: Path) -> None:
    server = Valkey(tmp_path)
    server.start()
    try:
        outcome = await started(server.url, 5_000, 100, {}, drained=False)
    finally:
        server.kill()
    assert outcome.ready_s < READY_WITHIN_S
    assert outcome.per_s > LEAST_PER_S
