"""``make stutter``: the tests on a machine that stalls.

Comes in: what pytest is to run. Goes out: its exit status. The tests' event loops are told of a
socket later than it can be read, now and then, and processes below the tests are stopped for a
moment, all the while. What fails presumed an order or a pace that nobody promised, or has found a
fault. A test that stops a process itself can fail of this, too: it is continued behind its back.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import selectors
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

POLL_S = 0.003


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--held", type=float, default=0.0, help="share of events that come late")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.held:
        hold_events_back(config.option.held)


def short_or_long_s(short: float, long: float) -> float:
    """Mostly a moment, seldom a stall."""
    low, high = (0.005, short) if random.random() < 0.65 else (short, long)
    return random.uniform(low, high)


def hold_events_back(share: float) -> None:
    """Let every selector of this process tell of so many events late."""
    select = selectors.EpollSelector.select

    def late(self: Any, timeout: float | None = None) -> list[Any]:
        held: dict[int, float] = self.__dict__.setdefault("held_until_s", {})
        end_s = None if timeout is None else time.monotonic() + max(timeout, 0.0)
        while True:
            left_s = None if end_s is None else max(end_s - time.monotonic(), 0.0)
            events, told = select(self, left_s), []
            now_s = time.monotonic()
            for key, mask in events:
                if key.fd not in held and random.random() < share:
                    held[key.fd] = now_s + short_or_long_s(0.05, 0.4)
                elif held.get(key.fd, 0.0) <= now_s:
                    held.pop(key.fd, None)
                    told.append((key, mask))
            if told or not events or (end_s is not None and now_s >= end_s):
                return told
            time.sleep(POLL_S)

    selectors.EpollSelector.select = late  # type: ignore[method-assign]


def descendants(root: int) -> list[int]:
    """The processes below one that run or wait; nobody's own stopped ones."""
    children: dict[int, list[int]] = {}
    able: set[int] = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
            pid = int(stat.parent.name)
            children.setdefault(int(parent), []).append(pid)
            if state in "RS":
                able.add(pid)
    below, to_do = [], [root]
    while to_do:
        to_do += (found := children.get(to_do.pop(), []))
        below += found
    return [pid for pid in below if pid in able]


def stop_now_and_then(root: int, over: threading.Event) -> None:
    """Stop a random process below ``root`` for a moment, then the next, until it is over."""
    while not over.wait(random.uniform(0.0, 0.05)):
        if not (pids := descendants(root)):
            continue
        pid = random.choice(pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(short_or_long_s(0.05, 0.35))
            os.kill(pid, signal.SIGCONT)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.stutter")
    parser.add_argument("--held", type=float, default=0.03, help="share of events that come late")
    parser.add_argument("--stopped", type=int, default=2, help="processes stopped at a time")
    arguments, rest = parser.parse_known_args()
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.stutter"]
    over = threading.Event()
    with subprocess.Popen([*command, f"--held={arguments.held}", *rest]) as tests:
        stoppers = [
            threading.Thread(target=stop_now_and_then, args=(tests.pid, over))
            for _ in range(arguments.stopped)
        ]
        for stopper in stoppers:
            stopper.start()
        try:
            return tests.wait()
        finally:
            over.set()
            for stopper in stoppers:
                stopper.join()


if __name__ == "__main__":
    sys.exit(main())
