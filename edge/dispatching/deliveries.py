"""The worker's task that empties the store's outbox, and what it counts as metrics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from prometheus_client import Counter, Gauge, Histogram

from dispatch.dispatcher import Dispatcher, Retrying
from dispatch.interface import Transport
from dispatch.messages import Envelope
from edge import metrics, tracing
from edge.dispatching.settings import DispatchSettings
from edge.errors import EdgescribeError
from edge.logs import get_logger
from edge.session.store.interface import OutboxRow, SessionStore

FLUSH_S = 1.5
"""A stop waits so long for what is being delivered; the rest stays in the outbox."""
AT_ONCE = 32
"""Messages; to lease and send more in one step takes milliseconds."""
SHARE = 0.25
"""Of the worker's event loop; the rest is for those who speak."""
IDLE_S = 1.0
"""Who appends in this worker wakes the task; this is for what other workers left behind."""

_MESSAGES = Counter(
    "edgescribe_dispatch_messages",
    "Finals for the dispatcher; dead: refused for good, overflowed: the outbox was full",
    ["outcome"],
)
_WAITING = Gauge(
    "edgescribe_dispatch_outbox_messages",
    "Finals that wait to be dispatched, in the whole store",
    multiprocess_mode="livemax",
)
_AGE = Gauge(
    "edgescribe_dispatch_outbox_age_seconds",
    "How long the oldest of them waits",
    multiprocess_mode="livemax",
)
_SENT = Counter("otp_dispatcher_messages_sent", "Finals that the dispatcher has acknowledged")
_DEPTH = Gauge(
    "otp_dispatcher_queue_depth",
    "Like edgescribe_dispatch_outbox_messages",
    multiprocess_mode="livemax",
)
_LATENCY = Histogram(
    "edgescribe_dispatch_latency_seconds",
    "From a final to the acknowledgement of its message",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600, 3600),
)

_log = get_logger("edge.dispatching")


class OpenedLate(Transport):
    """A transport that is opened with the first message, again and again while that fails."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._opening = asyncio.Lock()
        self._is_open = False

    async def send(self, envelopes: Sequence[Envelope]) -> int:
        async with self._opening:
            if not self._is_open:
                await self._transport.open()
                self._is_open = True
        with tracing.span("dispatch", messages=len(envelopes)) as span:
            sent = await self._transport.send(envelopes)
            span.note(acknowledged=sent)
            return sent

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            await self._transport.close()


class Deliveries:
    """One worker's; the store is open from before ``start`` until after ``stop``."""

    def __init__(
        self, settings: DispatchSettings, store: SessionStore, transport: Transport
    ) -> None:
        self._transport = OpenedLate(transport)
        self._dispatcher: Dispatcher[OutboxRow] = Dispatcher(
            store,
            self._transport,
            Retrying(max_retries=settings.dispatch_max_retries),
            outbox_max=settings.dispatch_outbox_max,
            limit=AT_ONCE,
            idle_s=IDLE_S,
            stop_within_s=FLUSH_S,
            share=SHARE,
            acknowledged=_acknowledged,
        )
        self._task: asyncio.Task[None] | None = None
        self._measuring: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Something was put into the outbox."""
        self._dispatcher.wake()

    def start(self) -> None:
        """Begin; the target need not be there."""
        counters = {
            name: _MESSAGES.labels(name) for name in ("sent", "retried", "dead", "overflowed")
        }
        metrics.FLUSHER.watch(self._dispatcher.counts, counters)
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run())
        self._measuring = loop.create_task(self._measure())

    async def stop(self) -> None:
        """Deliver what can be delivered at once; the rest is for the workers that follow."""
        if self._task is None or self._measuring is None:
            return
        self._measuring.cancel()
        with contextlib.suppress(TimeoutError, EdgescribeError):
            async with asyncio.timeout(FLUSH_S):
                await self._dispatcher.drained()
        self._dispatcher.stop()
        await asyncio.gather(self._task, self._measuring, return_exceptions=True)

    async def _run(self) -> None:
        async with self._transport:
            await self._dispatcher.run()

    async def _measure(self) -> None:
        counts = self._dispatcher.counts
        while True:
            _WAITING.set(counts.waiting)
            _DEPTH.set(counts.waiting)
            _AGE.set(counts.oldest_age_s)
            await asyncio.sleep(1.0)


def _acknowledged(latency_ms: float) -> None:
    """One message has arrived, so long after its final."""
    _SENT.inc()
    _LATENCY.observe(latency_ms / 1000)
