"""A dispatcher as a process of its own: takes messages from a queue and hands them to a sink."""

from __future__ import annotations

from typing import Generic

import msgspec

from dispatch.dispatcher import Counts, Dispatcher, Retrying
from dispatch.intake import Intake, IntakeCounts
from dispatch.interface import Transport
from dispatch.outbox import Outbox, RowT
from dispatch.seen import MAX_SEEN, RETENTION_S, Seen


class ConsumerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How a consumer works."""

    batch: int = 10
    """Messages that are leased at a time."""
    batch_wait_s: float = 5.0
    """How long a batch may wait to become full; 0 hands over whatever is there."""
    retrying: Retrying = Retrying()
    lease_s: float = 30.0
    """At least three times a sink's deadline: nobody else may take what is being delivered."""
    poll_s: float = 0.1
    """How soon an empty source is asked again."""
    stop_within_s: float = 10.0
    seen_max: int = MAX_SEEN
    retention_s: float = RETENTION_S
    """How long the id of a message that was taken is remembered."""


DEFAULT_PLAN = ConsumerPlan()


class Consumer(Generic[RowT]):
    """Delivers a source's messages to a sink: in order per session, each once if it can be told.

    One that the sink refuses is tried again and then buried, without holding up its batch beyond
    its session; while the sink cannot be reached everything waits. ``run`` until it is stopped.
    """

    def __init__(
        self, source: Outbox[RowT], sink: Transport, plan: ConsumerPlan = DEFAULT_PLAN
    ) -> None:
        self._intake = Intake(
            source,
            batch_wait_s=plan.batch_wait_s,
            seen=Seen(plan.retention_s, plan.seen_max),
        )
        self._dispatcher = Dispatcher(
            self._intake,
            sink,
            plan.retrying,
            limit=plan.batch,
            lease_s=plan.lease_s,
            idle_s=plan.poll_s,
            stop_within_s=plan.stop_within_s,
        )

    @property
    def counts(self) -> Counts:
        """What became of messages that reached the sink."""
        return self._dispatcher.counts

    @property
    def intake_counts(self) -> IntakeCounts:
        """What became of the others."""
        return self._intake.counts

    async def run(self) -> None:
        """Deliver until stopped; source and sink are open meanwhile."""
        await self._dispatcher.run()

    def stop(self) -> None:
        """End ``run`` soon: finish what is under way, give back the rest."""
        self._intake.stop()
        self._dispatcher.stop()
