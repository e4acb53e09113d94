"""Keeps the inference process alive: a managed process of the launcher runs ``run_caretaker``.

Comes in: settings and the socket's path. Goes out: nothing; workers find the process at the socket.
A process of its own starts the inference process because it must outlive any worker, and with
``subprocess``, because managed processes are daemonic and may have no ``multiprocessing`` children.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from edge.asr.embedded.messages import check_socket_path
from edge.asr.embedded.process import FAREWELL_S, run_inference
from edge.asr.embedded.settings import EmbeddedSettings

FIRST_BACKOFF_S: Final = 0.1
LONGEST_BACKOFF_S: Final = 3.0
HEALTHY_S: Final = 30.0
"""A process that lived this long starts the backoff anew."""
LOOK_S: Final = 0.1
"""How often the caretaker looks at its child, its parent and its signals."""

logger = logging.getLogger("edge.asr.embedded")

_BOOT: Final = (
    "import sys, msgspec; sys.path[:] = msgspec.json.decode(sys.argv[1]); "
    "from edge.asr.embedded.caretaker import _child; _child(*sys.argv[2:])"
)


def run_caretaker(settings: EmbeddedSettings, socket_path: str) -> None:
    """Run the inference process, and another when it dies, until SIGINT or SIGTERM.

    At the signal, or when the parent process has gone, the inference process is asked to end: it
    serves the workers that are still connected (a drain needs their last finals) and ends as soon
    as they have left, at once when there are none. Later signals change nothing. A caretaker that
    is killed takes the inference process with it, because that one reads the end of its pipe.
    Raises ``SettingError`` when the socket's path is too long.
    """
    check_socket_path(Path(socket_path))
    signalled = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal signalled
        signalled = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    parent = os.getppid()

    def ending() -> bool:
        return signalled or os.getppid() != parent

    backoff_s = FIRST_BACKOFF_S
    while not ending():
        began_s = time.monotonic()
        child = _start(settings, socket_path)
        while child.poll() is None and not ending():
            time.sleep(LOOK_S)
        _end(child)
        if ending():
            return
        if time.monotonic() - began_s > HEALTHY_S:
            backoff_s = FIRST_BACKOFF_S
        logger.error(
            "the inference process ended with status %d, another starts in %.1f s",
            child.returncode,
            backoff_s,
        )
        time.sleep(backoff_s * random.uniform(0.5, 1.0))
        backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)


def _start(settings: EmbeddedSettings, socket_path: str) -> subprocess.Popen[bytes]:
    arguments = [msgspec.json.encode(value).decode() for value in (sys.path, settings)]
    return subprocess.Popen(
        [sys.executable, "-c", _BOOT, *arguments, socket_path], stdin=subprocess.PIPE
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    """Let ``child`` end by itself within its farewell, then kill it; it is reaped either way."""
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    try:
        child.wait(FAREWELL_S + 1)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _child(settings: str, socket_path: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    run_inference(msgspec.json.decode(settings, type=EmbeddedSettings), Path(socket_path))
