"""Where a worker's time goes, per packet: a profile of a running load.

    python -m bench.breakdown [--seconds 20] [any other option of bench.load]

Runs ``bench.load`` and lets ``perf record`` look at the busiest worker meanwhile; each sample
counts for the part of the way that its library or kernel function belongs to. Needs Linux, perf
(Debian: linux-perf) and the right to profile one's own processes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import msgspec

from bench.load_run import PACKETS_PER_S
from edge.demo.gateway import cpu_s

START_S = 12.0
"""Until the load is steady."""
PROFILE_S = 6
SAMPLES_PER_S = 2999
_PARTS = {
    "libopus": "decode",
    "libm.": "decode",
    "opus.": "decode",
    "frames.": "frame, upstream message",
    "envelope.": "envelope",
    "intake.": "envelope",
    "track.": "sequence and keep",
    "resample.": "resample",
    "loop.": "event loop",
    "libpython": "Python",
    "_core": "results (JSON)",
    "[kernel": "kernel",
}
_KERNEL = (
    (("recv", "tcp_rcv", "copy_to_iter", "sock_rfree"), "kernel: read"),
    (("send", "write", "xmit", "transmit", "tcp_ack", "netif", "copy_from_iter"), "kernel: write"),
    (("epoll", "ep_", "poll", "schedule", "finish_task", "timer", "idle"), "kernel: wake-ups"),
)


def part(library: str, function: str) -> str:
    """What a sample is counted for."""
    name = next((name for start, name in _PARTS.items() if library.startswith(start)), "rest")
    if name != "kernel":
        return name
    return next(
        (name for words, name in _KERNEL if any(word in function for word in words)),
        "kernel: rest",
    )


def _descendants(pid: int) -> list[int]:
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            found += [child, *_descendants(child)]
    return found


def _busiest(pid: int) -> int:
    """The worker: of all processes below the load's that are gateways, the one that works most."""
    workers = [
        child
        for child in _descendants(pid)
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    return max(workers, key=cpu_s)


def profile(pid: int) -> Counter[str]:
    """Samples by part of the way."""
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "perf.data")
        record = ["perf", "record", "-F", str(SAMPLES_PER_S), "-p", str(pid), "-o", data]
        subprocess.run([*record, "--", "sleep", str(PROFILE_S)], check=True, capture_output=True)
        report = subprocess.run(
            ["perf", "report", "-i", data, "--no-children", "-n", "-F", "sample,dso,sym"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    samples: Counter[str] = Counter()
    for line in report.splitlines():
        fields = line.split()
        if len(fields) >= 4 and fields[0].isdigit():
            samples[part(fields[1], fields[3])] += int(fields[0])
    return samples


def main() -> int:
    load = subprocess.Popen(
        [sys.executable, "-m", "bench.load", "--json", *sys.argv[1:]], stdout=subprocess.PIPE
    )
    try:
        time.sleep(START_S)
        samples = profile(_busiest(load.pid))
        assert load.stdout is not None
        figures = msgspec.json.decode(load.stdout.readline())
    finally:
        load.terminate()
        load.wait()
    total = samples.total()
    packet_us = figures["cpu_ms_per_stream_s"] * 1000 / PACKETS_PER_S
    floor_us = figures["floor_ms_per_stream_s"] * 1000 / PACKETS_PER_S
    for name, count in samples.most_common():
        print(f"{name:<26}{packet_us * count / total:6.2f} us {100 * count / total:5.1f} %")
    print(f"{'in all':<26}{packet_us:6.2f} us, {packet_us / floor_us:.2f} x the floor")
    return 0


if __name__ == "__main__":
    sys.exit(main())
