"""A Redis server is killed while messages go through it: each arrives, in order per session.

``python -m tests.dispatch.queue_kills [--kills 15] [--messages 10000]`` is the long form.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dispatch import Dispatcher, Envelope, Retrying, Transport
from dispatch.consumer import Consumer, ConsumerPlan
from dispatch.local_queue import LocalQueue
from dispatch.sources.redis import RedisSource
from dispatch.transports.redis import RedisTransport
from tests.dispatch.support.targets import envelope_of
from tests.session.store.support.valkey import Valkey

SESSIONS = 20
FEED_EVERY_S = 0.02
DEADLINE_S = 1.0
WITHIN_S = 120.0
QUICK = Retrying(first_delay_s=0.05, max_delay_s=0.5, probe_every_s=0.1)


class Outcome(msgspec.Struct):
    """What the sink saw: ``faults`` are ids that did not follow the one before them."""

    arrived: int = 0
    faults: list[str] = msgspec.field(default_factory=list)
    duplicates: int = 0
    kills: int = 0
    took_s: float = 0.0


class Sink(Transport):
    """Takes its time, and messages in order only."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.last: dict[str, int] = {}

    async def send(self, envelopes: Sequence[Envelope]) -> int:
        for envelope in envelopes:
            offset = int(envelope.message_id.rpartition(":")[2])
            if offset != self.last.get(envelope.session, 0) + 1:
                self.outcome.faults.append(envelope.message_id)
            self.last[envelope.session] = offset
        self.outcome.arrived += len(envelopes)
        await asyncio.sleep(random.uniform(0.0, 0.02))
        return len(envelopes)


async def feed(outbox: LocalQueue, messages: int) -> None:
    for offset in range(1, messages // SESSIONS + 1):
        await outbox.put([envelope_of(f"s{n}", offset) for n in range(SESSIONS)])
        await asyncio.sleep(FEED_EVERY_S)


async def queue_kills(folder: Path, messages: int, kills: int) -> Outcome:
    """From an outbox through Redis to a sink, while the server is killed and started again."""
    outcome = Outcome()
    server = Valkey(folder, "--appendfsync", "always")
    await asyncio.to_thread(server.start)
    begun_s = time.monotonic()
    try:
        async with (
            LocalQueue(folder / "outbox.db") as outbox,
            RedisTransport(server.url, deadline_s=DEADLINE_S) as transport,
            RedisSource(server.url, lease_s=3.0, deadline_s=DEADLINE_S) as source,
            asyncio.TaskGroup() as tasks,
            asyncio.timeout(WITHIN_S),
        ):
            dispatcher = Dispatcher(outbox, transport, QUICK, limit=20, lease_s=5, idle_s=0.05)
            plan = ConsumerPlan(
                batch=50, batch_wait_s=0.0, poll_s=0.02, retrying=QUICK, lease_s=5.0
            )
            consumer = Consumer(source, Sink(outcome), plan)
            for work in (dispatcher.run(), consumer.run(), feed(outbox, messages)):
                tasks.create_task(work)
            while outcome.arrived < messages:
                await asyncio.sleep(random.uniform(0.2, 1.0))
                if outcome.kills < kills:
                    await asyncio.to_thread(server.kill)
                    outcome.kills += 1
                    await asyncio.to_thread(server.start)
            outcome.duplicates = consumer.intake_counts.duplicates
            dispatcher.stop()
            consumer.stop()
    finally:
        server.kill()
    outcome.took_s = time.monotonic() - begun_s
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=15)
    parser.add_argument("--messages", type=int, default=10_000)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(queue_kills(Path(folder), arguments.messages, arguments.kills))
    print(outcome)
    if outcome.faults or outcome.arrived != arguments.messages:
        raise SystemExit("messages were lost, repeated or out of order")


if __name__ == "__main__":
    main()
