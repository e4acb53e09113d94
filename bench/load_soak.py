"""Whether a worker stays as it is: streams that come and go every second, for as long as wanted.

    python -m bench.load_soak [--minutes 30] [--json]

Always 100 streams in 20 sessions. Four sessions stay for the whole run. Of the others the oldest
leaves each second and a new one comes; two of three say ``session-end``, the third drops its
connection. Each second, too, one tag falls silent for good and a new one starts in its session.

Memory is the worker's own (its share of pages that are not those of files), taken every 5 s. After
a warm-up of 3 minutes it counts as flat when neither of these differs from the median of the first
5 minutes by more than 2 % of it: the median of the last 5 minutes, and the growth over the whole
time of a straight line fitted to all samples. When all sessions have gone the worker must have as
many asyncio tasks, threads and file descriptors as before they came, and the recognizer's stand-in
no connection. Runs of less than half an hour shorten all times in proportion.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence

import msgspec
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from bench.load_bed import Bed, BedOptions, bed, descriptors, pss_kb, threads
from bench.load_client import LoadClient, Session, Stream
from edge.demo.gateway import cpu_s
from edge.demo.latency import percentile

SESSIONS = 20
STAYING = 4
TAGS = 5
FULL_LENGTH_S = 30 * 60.0
WARM_UP_S = 3 * 60.0
WINDOW_S = 5 * 60.0
SAMPLE_S = 5.0
SETTLE_WITHIN_S = 30.0
FLAT_PERCENT = 2.0


class Holdings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has at one moment."""

    tasks: int
    threads: int
    descriptors: dict[str, int]
    """Open file descriptors by kind: socket, pipe, the path of a file."""
    sessions: int
    tracks: int
    recognizer_connections: int


class Soak(msgspec.Struct, frozen=True, kw_only=True):
    """What a run measured."""

    minutes: float
    streams: int
    sessions: int
    """Opened over the run."""
    cut: int
    """Of which the gateway ended itself."""
    tags: int
    recognizer_connections: int
    packets_sent: int
    results: int
    delay_p50_ms: float
    delay_p99_ms: float
    cpu_percent: float
    """Of one core, the worker's mean."""
    idle_kb: int
    first_kb: int
    """Median of the first window after the warm-up."""
    last_kb: int
    """Median of the last window."""
    least_kb: int
    most_kb: int
    last_percent: float
    """``last_kb`` against ``first_kb``."""
    trend_percent: float
    """Growth of the fitted line from the warm-up to the end, against ``first_kb``."""
    after_kb: int
    """When all sessions had gone."""
    before: Holdings
    after: Holdings
    samples_kb: list[int]

    @property
    def faults(self) -> list[str]:
        """What was not as it should be."""
        found = []
        if abs(self.last_percent) > FLAT_PERCENT or abs(self.trend_percent) > FLAT_PERCENT:
            found.append(f"memory is not flat within {FLAT_PERCENT:g} %")
        if self.before != self.after:
            found.append(f"before: {self.before}; after: {self.after}")
        if self.cut:
            found.append(f"the gateway ended {self.cut} sessions")
        if not self.results:
            found.append("no transcript came")
        return found


class Crowd:
    """The sessions of a run: who is there, who comes, who leaves."""

    def __init__(self, client: LoadClient, query: str) -> None:
        self._client = client
        self._query = query
        self._random = random.Random(1)
        self._rotating: deque[list[Stream]] = deque()
        self._leaving: set[asyncio.Task[None]] = set()
        self._there: set[Session] = set()
        self.cut = 0
        """Sessions that the gateway ended."""
        self.sessions = 0
        self.tags = 0

    async def enter(self) -> None:
        """Open all sessions of the beginning."""
        for number in range(SESSIONS):
            streams = await self._open()
            self._client.streams += streams
            if number >= STAYING:
                self._rotating.append(streams)

    async def turn(self) -> None:
        """One session leaves, one comes, one tag is replaced."""
        leaving = self._rotating.popleft()
        coming = await self._open()
        for old, new in zip(leaving, coming, strict=True):
            self._replace(old, new)
        self._rotating.append(coming)
        self._leave(leaving[0].session, politely=self.sessions % 3 != 0)
        streams = self._rotating[len(self._rotating) // 2]
        index = self._random.randrange(len(streams))
        new = self._tag(streams[index].session)
        self._replace(streams[index], new)
        streams[index] = new

    async def go(self) -> None:
        """All sessions leave, by ``session-end``."""
        self._client.streams.clear()
        for session in tuple(self._there):
            self._leave(session, politely=True)
        await asyncio.gather(*self._leaving)

    async def _open(self) -> list[Stream]:
        session = await self._client.connect(f"soak-{self.sessions}", self._query)
        self.sessions += 1
        self._there.add(session)
        return [self._tag(session) for _ in range(TAGS)]

    def _tag(self, session: Session) -> Stream:
        stream = self._client.stream_of(session, f"{self.tags:08x}-{self.tags}", 7 * self.tags)
        stream.start()
        self.tags += 1
        return stream

    def _replace(self, old: Stream, new: Stream) -> None:
        streams = self._client.streams
        streams[streams.index(old)] = new

    def _leave(self, session: Session, *, politely: bool) -> None:
        self._there.discard(session)
        self.cut += session.transport is None
        if not politely:
            session.drop()
            return
        task = asyncio.get_running_loop().create_task(session.end())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


async def soak(seconds: float) -> Soak:
    """Run one soak."""
    async with bed(BedOptions()) as place:
        await place.warm_up(min(4.0, seconds))
        return await _run(place, seconds)


async def _run(place: Bed, seconds: float) -> Soak:
    (worker,) = place.workers
    before = await _settled(place, None)
    idle_kb, opened = pss_kb(worker), place.upstream.connections()[0]
    client = place.client()
    crowd = Crowd(client, place.options.query)
    await crowd.enter()
    streams = len(client.streams)
    began_s, cpu_before_s = time.monotonic(), cpu_s(worker)
    samples = await _turns(client, crowd, worker, seconds)
    took_s, cpu_used_s = time.monotonic() - began_s, cpu_s(worker) - cpu_before_s
    await crowd.go()
    after = await _settled(place, before)
    delays_ms = [each.delay_ms for each in client.arrivals if each.delay_ms is not None]
    return Soak(
        minutes=took_s / 60,
        streams=streams,
        sessions=crowd.sessions,
        cut=crowd.cut,
        tags=crowd.tags,
        recognizer_connections=place.upstream.connections()[0] - opened,
        packets_sent=client.due,
        results=len(delays_ms),
        delay_p50_ms=percentile(delays_ms, 0.5),
        delay_p99_ms=percentile(delays_ms, 0.99),
        cpu_percent=100 * cpu_used_s / took_s,
        idle_kb=idle_kb,
        after_kb=pss_kb(worker),
        before=before,
        after=after,
        samples_kb=[round(kb) for _, kb in samples],
        **flatness(samples, seconds),
    )


async def _turns(
    client: LoadClient, crowd: Crowd, worker: int, seconds: float
) -> list[tuple[float, float]]:
    """Send for so long while the crowd turns each second; the worker's memory meanwhile."""
    sending = asyncio.ensure_future(client.stream(seconds))
    sampling = asyncio.ensure_future(_sample(worker, seconds))
    began_s = time.monotonic()
    turns = 0
    while not sending.done():
        turns += 1
        pause_s = began_s + turns - time.monotonic()
        await asyncio.wait([sending], timeout=max(0.0, pause_s))
        if not sending.done():
            await crowd.turn()
    await sending
    return await sampling


def flatness(samples: Sequence[tuple[float, float]], seconds: float) -> dict[str, float]:
    """The figures of memory samples ``(seconds, kB)`` by which a run is judged."""
    share = min(1.0, seconds / FULL_LENGTH_S)
    warm = [(at_s, kb) for at_s, kb in samples if at_s >= WARM_UP_S * share]
    window_s = WINDOW_S * share
    first = statistics.median(kb for at_s, kb in warm if at_s <= warm[0][0] + window_s)
    last = statistics.median(kb for at_s, kb in warm if at_s >= warm[-1][0] - window_s)
    line = statistics.linear_regression([at_s for at_s, _ in warm], [kb for _, kb in warm])
    grown_kb = line.slope * (warm[-1][0] - warm[0][0])
    return {
        "first_kb": round(first),
        "last_kb": round(last),
        "least_kb": round(min(kb for _, kb in warm)),
        "most_kb": round(max(kb for _, kb in warm)),
        "last_percent": 100 * (last - first) / first,
        "trend_percent": 100 * grown_kb / first,
    }


async def _sample(worker: int, seconds: float) -> list[tuple[float, float]]:
    """The worker's memory, again and again for so long."""
    interval_s = SAMPLE_S * min(1.0, seconds / FULL_LENGTH_S)
    began_s = time.monotonic()
    samples: list[tuple[float, float]] = []
    while (at_s := time.monotonic() - began_s) < seconds:
        samples.append((at_s, pss_kb(worker)))
        await asyncio.sleep(began_s + len(samples) * interval_s - time.monotonic())
    return samples


async def _settled(place: Bed, wanted: Holdings | None) -> Holdings:
    """What the worker has once it carries nothing: as ``wanted``, or twice the same a second apart.

    After ``SETTLE_WITHIN_S`` it is what there is.
    """
    until_s = time.monotonic() + SETTLE_WITHIN_S
    held = await _holdings(place)
    while time.monotonic() < until_s:
        await asyncio.sleep(1.5)
        previous, held = held, await _holdings(place)
        is_idle = not (held.sessions or held.tracks or held.recognizer_connections)
        if is_idle and held == (wanted or previous):
            break
    return held


async def _holdings(place: Bed) -> Holdings:
    (worker,) = place.workers
    kinds = Counter(target.partition(":")[0] for target in descriptors(worker))
    gauges = {
        family.name: sum(sample.value for sample in family.samples)
        for family in text_string_to_metric_families(await place.gateway.metrics_text())
        if family.type == "gauge"
    }
    return Holdings(
        tasks=round(gauges["edgescribe_tasks"]),
        threads=threads(worker),
        descriptors=dict(sorted(kinds.items())),
        sessions=round(gauges["otp_sessions_active"] + gauges["otp_sessions_detached"]),
        tracks=round(gauges["otp_participants_active"]),
        recognizer_connections=place.upstream.connections()[1],
    )


def table(soak: Soak) -> str:
    """The figures for a person."""
    rows = (
        ("streams", f"{soak.streams} for {soak.minutes:.1f} minutes"),
        (
            "came and went",
            f"{soak.sessions} sessions, {soak.tags} tags,"
            f" {soak.recognizer_connections} recognizer connections",
        ),
        ("packets, results", f"{soak.packets_sent} sent, {soak.results} received"),
        ("added latency", f"p50 {soak.delay_p50_ms:.2f} ms, p99 {soak.delay_p99_ms:.2f} ms"),
        ("CPU of the worker", f"{soak.cpu_percent:.0f} % of a core"),
        (
            "memory",
            f"first median {soak.first_kb} kB, last {soak.last_kb} kB ({soak.last_percent:+.2f} %),"
            f" trend {soak.trend_percent:+.2f} %, least {soak.least_kb}, most {soak.most_kb} kB",
        ),
        ("memory without load", f"{soak.idle_kb} kB before, {soak.after_kb} kB after"),
        ("left behind", "nothing" if soak.before == soak.after else "see below"),
        ("held when idle", f"{soak.after.tasks} tasks, {soak.after.threads} threads,"
         f" {sum(soak.after.descriptors.values())} descriptors"),
    )  # fmt: skip
    return "\n".join(f"{name:<24}{value}" for name, value in rows)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.load_soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(argv)


def main() -> int:
    args = parse()
    result = uvloop.run(soak(args.minutes * 60))
    print(msgspec.json.encode(result).decode() if args.json else table(result))
    for fault in result.faults:
        print(f"FAILED: {fault}", file=sys.stderr)
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
