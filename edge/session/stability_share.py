"""One set of stability figures for all workers of all nodes, by way of the session store.

Each worker keeps one small record up to date; whoever is asked reads them all. A record outlives
its worker by a day, so that the death of one does not hide what it saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Coroutine, Sequence

import msgspec
from prometheus_client import Gauge

from edge.errors import Conflict, StoreError
from edge.logs import Repeats, get_logger
from edge.session.stability import Measure, Report, Snapshot, Stability, report
from edge.session.store.interface import Record, SessionStore, shared_scope

SCOPE = shared_scope("stability")
WORKERS = "workers"
DRAINED = "drained"
WRITE_EVERY_S = 5.0
KEPT_S = 90_000.0
"""Longer than the longest window."""
DRAINED_KEPT_S = 300.0
DEADLINE_S = 3.0
REPORT_KEPT_S = 2.0
"""However many ask, the records are read once in so long."""

_VALUE = Gauge(
    "edgescribe_session_stability",
    "Stability of connections over all workers and nodes: seconds, milliseconds or ratio",
    ["metric", "window"],
    multiprocess_mode="mostrecent",
)
_VERDICT = Gauge(
    "edgescribe_session_stability_verdict",
    "What to think of edgescribe_session_stability: 0 insufficient data, 1 good, 2 warn, 3 bad",
    ["metric", "window"],
    multiprocess_mode="mostrecent",
)
_VERDICTS = ("insufficient_data", "good", "warn", "bad")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Snapshot).decode
_decode_keys = msgspec.msgpack.Decoder(list[int]).decode
_log = get_logger("edge.session.stability_share")


class StabilityShare:
    """Writes one worker's figures and reads everybody's; owns one task between start and stop."""

    def __init__(
        self,
        stability: Stability,
        store: SessionStore,
        write_every_s: float = WRITE_EVERY_S,
        report_kept_s: float = REPORT_KEPT_S,
    ) -> None:
        self._stability = stability
        self._store = store
        self._write_every_s = write_every_s
        self._report_kept_s = report_kept_s
        self._name = secrets.token_hex(8)
        self._version = 0
        self._task: asyncio.Task[None] | None = None
        self._reading = asyncio.Lock()
        self._report: Report | None = None
        self._read_s = 0.0
        self._faults = Repeats(_log)

    def start(self) -> None:
        """Begin to write, from a random moment on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Say goodbye, so that this worker's end is no loss of its connections; bounded."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._try(self._say_goodbye())

    async def report(self) -> Report:
        """The figures of all workers; of this one alone while the store does not answer."""
        async with self._reading:
            if self._report is None or time.monotonic() - self._read_s > self._report_kept_s:
                self._report = await self._read()
                self._read_s = time.monotonic()
            return self._report

    async def measure(self) -> None:
        """Bring the Prometheus gauges up to date."""
        for window, figures in (await self.report()).windows.items():
            for metric in figures.__struct_fields__:
                figure = getattr(figures, metric)
                if isinstance(figure, Measure):
                    value = float("nan") if figure.value is None else figure.value
                    _VALUE.labels(metric, window).set(value)
                    _VERDICT.labels(metric, window).set(_VERDICTS.index(figure.verdict))

    async def _run(self) -> None:
        await asyncio.sleep(self._write_every_s * random.uniform(0.0, 0.2))
        while True:
            await self._try(self._write(is_stopped=False))
            await self._try(self._look_for_drained())
            await asyncio.sleep(self._write_every_s * random.uniform(0.7, 1.1))

    async def _try(self, work: Coroutine[None, None, None]) -> None:
        """The store may be away: figures wait, nothing else does."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                await work
            self._faults.summarize()
        except (StoreError, TimeoutError, msgspec.MsgspecError) as error:
            self._faults.note("stability figures cannot be shared", reason=str(error))

    async def _write(self, *, is_stopped: bool) -> None:
        body = _encode(self._stability.snapshot(is_stopped=is_stopped))
        try:
            self._version = await self._put(body)
        except Conflict as conflict:
            self._version = conflict.version
            self._version = await self._put(body)

    async def _put(self, body: bytes) -> int:
        return await self._store.put(SCOPE, WORKERS, self._name, body, self._version, KEPT_S)

    async def _say_goodbye(self) -> None:
        if keys := self._stability.drained_keys:
            await self._store.put(SCOPE, DRAINED, self._name, _encode(keys), 0, DRAINED_KEPT_S)
        await self._write(is_stopped=True)

    async def _look_for_drained(self) -> None:
        for record in await self._store.records(SCOPE, DRAINED):
            self._stability.resumes(_decode_keys(record.body))

    async def _read(self) -> Report:
        own = _encode(self._stability.snapshot())
        try:
            async with asyncio.timeout(DEADLINE_S):
                records = await self._store.records(SCOPE, WORKERS)
        except (StoreError, TimeoutError):
            return report([_decode(own)], time.time(), is_complete=False)
        others = [record for record in records if record.key != self._name]
        return await asyncio.to_thread(_combine, own, others)


def _combine(own: bytes, others: Sequence[Record]) -> Report:
    snapshots = [_decode(own)]
    for record in others:
        with contextlib.suppress(msgspec.MsgspecError):
            snapshots.append(_decode(record.body))
    return report(snapshots, time.time())
