"""Many meetings at once: how long an ack takes while recorders stream and poll at real time.

    python -m bench.meeting [--sessions 100] [--seconds 60] [--json] ...

Each session has two recorders, teacher and students, that send a chunk of real speech a second and
the state of their capture after it, as the desktop client does; the chunks of all are spread over
the second. Each session is polled every 2 s with the six requests of that client. Chunks go to the
file store of a gateway started for it. An ack is timed from the client's send to its arrival.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec
import uvloop

from bench.load_bed import is_worker, waited_s
from edge.demo.capture import capture_of
from edge.demo.gateway import HOST, GatewayProcess, cpu_s, running
from edge.demo.latency import percentile
from edge.demo.recorder import Recorder, Role, ServerFrame, chunks_of, connect
from edge.demo.speech import demo_recordings, read_wav

LIMIT_MS = 50.0
ROLES: tuple[Role, Role] = ("teacher", "students")
POLL_S = 2.0
POLLED = (
    "state",
    *(
        f"utterances?stream_role={role}&view={view}&limit=50"
        for role in ROLES
        for view in ("raw", "merged")
    ),
    "events?limit=100",
)
OPENED_AT_ONCE = 20


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to do."""

    sessions: int = 100
    seconds: float = 60.0
    """Of the measured window."""
    settle_s: float = 5.0
    """Before it."""
    workers: int = 2
    provider: str = "dummy"
    polls: bool = True


class MeetingLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What one run measured."""

    sessions: int
    seconds: float
    workers: int
    provider: str
    chunks: int
    """Acked in the window."""
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    polls: int
    poll_p99_ms: float
    cpu_percent: float
    """Of a core, all the gateway's processes."""
    waited_percent: float
    """Of the time, in which other programs kept a worker's loop from running; the mean."""
    client_late_ms: float
    """The longest a chunk was sent after it was due."""


class Clock(msgspec.Struct):
    """When the window is, on ``time.perf_counter``, and what fell into it."""

    begins_s: float
    ends_s: float
    acks_ms: list[float] = []
    polls_ms: list[float] = []
    late_s: float = 0.0

    def is_open(self) -> bool:
        """Whether what ends now counts."""
        return self.begins_s <= time.perf_counter() < self.ends_s


def parse(argv: Sequence[str] | None = None) -> tuple[Options, bool]:
    """What to do, and whether to print JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.meeting",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--sessions", type=int, default=100)
    add("--seconds", type=float, default=60.0, help="of the measured window (default 60)")
    add("--settle", type=float, default=5.0, help="seconds before it (default 5)")
    add("--workers", type=int, default=2)
    add("--provider", default="dummy", choices=("dummy", "embedded"))
    add("--no-polls", action="store_true", help="send only")
    add("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    options = Options(
        sessions=args.sessions,
        seconds=args.seconds,
        settle_s=args.settle,
        workers=args.workers,
        provider=args.provider,
        polls=not args.no_polls,
    )
    return options, args.json


async def measure(options: Options) -> MeetingLoad:
    """Run one load against a gateway of its own."""
    environment = {
        **os.environ,
        "ENABLE_DUMMY_PROVIDER": "true",
        "PROVIDERS_PRIORITY": options.provider,
    }
    speech = list(chunks_of(read_wav(demo_recordings()[0].path)))[:-1]
    async with (
        running(workers=options.workers, environment=environment) as gateway,
        AsyncExitStack() as stack,
    ):
        recorders, clock = await _opened(stack, gateway, options)
        streams = [
            _stream(recorder, speech, clock, number / len(recorders))
            for number, recorder in enumerate(recorders)
        ]
        polls = [
            _poll(gateway.port, number, clock, number / options.sessions * POLL_S)
            for number in range(options.sessions * options.polls)
        ]
        counting = asyncio.create_task(_used(gateway, clock))
        await asyncio.gather(*streams, *polls)
        used = await counting
        await asyncio.gather(*(recorder.close() for recorder in recorders))
    return MeetingLoad(
        sessions=options.sessions,
        seconds=options.seconds,
        workers=options.workers,
        provider=options.provider,
        chunks=len(clock.acks_ms),
        p50_ms=percentile(clock.acks_ms, 0.50),
        p95_ms=percentile(clock.acks_ms, 0.95),
        p99_ms=percentile(clock.acks_ms, 0.99),
        max_ms=max(clock.acks_ms, default=0.0),
        polls=len(clock.polls_ms),
        poll_p99_ms=percentile(clock.polls_ms, 0.99),
        cpu_percent=100 * used.cpu_s / options.seconds,
        waited_percent=100 * used.waited_s / options.seconds,
        client_late_ms=1000 * clock.late_s,
    )


async def _opened(
    stack: AsyncExitStack, gateway: GatewayProcess, options: Options
) -> tuple[list[Recorder], Clock]:
    """All recorders, ready to stream, and the window that begins after they have settled."""
    clock = Clock(0.0, 0.0)
    places = asyncio.Semaphore(OPENED_AT_ONCE)

    async def open_one(number: int, role: Role) -> Recorder:
        def note(frame: ServerFrame) -> None:
            if frame.type == "ack" and clock.is_open():
                clock.acks_ms.append(1000 * recorder.latest_ack_s)

        async with places:
            recorder = await stack.enter_async_context(
                connect(gateway.address, session_id=f"meeting-{number}", role=role, on_frame=note)
            )
            await recorder.hello()
            return recorder

    recorders = await asyncio.gather(
        *(open_one(number, role) for number in range(options.sessions) for role in ROLES)
    )
    clock.begins_s = time.perf_counter() + options.settle_s
    clock.ends_s = clock.begins_s + options.seconds
    return recorders, clock


async def _stream(
    recorder: Recorder, speech: Sequence[bytes], clock: Clock, phase_s: float
) -> None:
    """A chunk a second until the window ends, each then acked."""
    state = capture_of(recorder.role, "running")
    due_s = time.perf_counter() + phase_s
    number = 0
    while due_s < clock.ends_s:
        await asyncio.sleep(due_s - time.perf_counter())
        recorder.check()
        await recorder.chunk(speech[number % len(speech)])
        clock.late_s = max(clock.late_s, time.perf_counter() - due_s)
        await recorder.capture_status(state)
        number += 1
        due_s += 1.0
    await recorder.all_acked()


async def _poll(port: int, number: int, clock: Clock, phase_s: float) -> None:
    """What the desktop client asks every 2 s, on one connection."""
    reader, writer = await asyncio.open_connection(HOST, port)
    due_s = time.perf_counter() + phase_s
    while due_s < clock.ends_s:
        await asyncio.sleep(due_s - time.perf_counter())
        for what in POLLED:
            begun_s = time.perf_counter()
            request = f"GET /v1/sessions/meeting-{number}/{what} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
            writer.write(request.encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200"), head
            await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
            if clock.is_open():
                clock.polls_ms.append(1000 * (time.perf_counter() - begun_s))
        due_s += POLL_S
    writer.close()
    await writer.wait_closed()


class Used(msgspec.Struct, frozen=True):
    """What processes took within the window, in seconds."""

    cpu_s: float
    waited_s: float
    """For a core, a mean of the workers' main threads."""


async def _used(gateway: GatewayProcess, clock: Clock) -> Used:
    """What the gateway takes within the window."""
    await asyncio.sleep(clock.begins_s - time.perf_counter())
    workers = [pid for pid in gateway.pids() if is_worker(pid)]
    before = {pid: cpu_s(pid) for pid in gateway.pids()}
    waited = sum(map(waited_s, workers))
    await asyncio.sleep(clock.ends_s - time.perf_counter())
    return Used(
        sum(cpu_s(pid) - used for pid, used in before.items()),
        (sum(map(waited_s, workers)) - waited) / max(1, len(workers)),
    )


def table(load: MeetingLoad) -> str:
    """The figures for a person."""
    rows = [
        (
            "meetings",
            f"{load.sessions} of two roles for {load.seconds:.0f} s"
            f" ({load.workers} workers, {load.provider})",
        ),
        (
            "ack",
            f"p50 {load.p50_ms:.2f} ms, p95 {load.p95_ms:.2f} ms, p99 {load.p99_ms:.2f} ms,"
            f" max {load.max_ms:.2f} ms over {load.chunks} chunks (limit of p99: {LIMIT_MS:g} ms)",
        ),
        ("request of the polls", f"p99 {load.poll_p99_ms:.2f} ms over {load.polls}"),
        (
            "CPU of the gateway",
            f"{load.cpu_percent:.0f} % of a core; its workers were kept waiting for one"
            f" {load.waited_percent:.0f} % of the time",
        ),
        ("the client", f"was up to {load.client_late_ms:.1f} ms behind"),
    ]
    return "\n".join(f"{name:<24}{value}" for name, value in rows)


def main() -> int:
    options, as_json = parse()
    load = uvloop.run(measure(options))
    print(msgspec.json.encode(load).decode() if as_json else table(load))
    if load.p99_ms >= LIMIT_MS:
        print(f"FAILED: p99 is {load.p99_ms:.1f} ms, not below {LIMIT_MS:g} ms", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
