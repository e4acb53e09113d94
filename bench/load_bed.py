"""Where loads run: a gateway alone on a core, a stand-in for its recognizers on another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from edge.demo.bridge import Line, encode_frames
from edge.demo.speech import demo_recordings, read_wav

LOOP_PACKETS = 200


def speech_packets() -> list[bytes]:
    """Four seconds of speech at 32 kbit/s, from 1.3 s on, when the first sentence begins."""
    frames = encode_frames(read_wav(demo_recordings()[0].path), Line(fec=False, dtx=False))
    return [payload for payload, _ in islice(frames, 65, 65 + LOOP_PACKETS)]


def cores() -> tuple[int, int]:
    """A core for the gateway and one for all that loads it; the same where there is but one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[-1], allowed[0]


def pin_all(pid: int, core: int) -> None:
    """Keep all threads of a process on one core."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def pss_kb(pid: int) -> int:
    """A process's share of the memory it maps, in kB, but for the pages of files.

    Those are code; its share of them rises and falls with any other process that maps the same
    libraries, by megabytes when some Python somewhere ends.
    """
    sizes_kb = {
        name: int(size.split()[0])
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        for name, _, size in [line.partition(":")]
    }
    return sizes_kb["Pss"] - sizes_kb.get("Pss_File", 0)


def descriptors(pid: int) -> list[str]:
    """What each open file descriptor of a process refers to, as the kernel names it."""
    targets = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            targets.append(os.readlink(link))
        except FileNotFoundError:
            continue
    return sorted(targets)


def threads(pid: int) -> int:
    """How many threads a process has."""
    return len(os.listdir(f"/proc/{pid}/task"))


class StandIn:
    """The process of ``bench.load_upstream``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())

    def connections(self) -> tuple[int, int]:
        """How many connections there have been, and how many are open."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        opened, still_open = self._process.stdout.readline().split()
        return int(opened), int(still_open)


@contextmanager
def stand_in(core: int) -> Iterator[StandIn]:
    """The stand-in for the recognizer, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.load_upstream"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    try:
        upstream = StandIn(process)
        pin_all(process.pid, core)
        yield upstream
    finally:
        process.terminate()
        process.communicate()
