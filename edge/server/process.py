"""What every process of a gateway does about signals and about its parent's end.

Comes in: nothing but the operating system. Goes out: processes that outlive nobody and that let the
main process alone decide about a stop.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edge.parent import end_with_parent

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_signals_held() -> Iterator[None]:
    """Hold SIGTERM and SIGINT back; processes started meanwhile begin with both held back."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def release_stop_signals() -> None:
    """Let SIGTERM and SIGINT through again, the ones that came meanwhile first."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def ignore_stop_signals() -> None:
    """For a process that ends anyway: its exit status is to tell how it ended, not who was late."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def settle_helper(parent: int) -> None:
    """Body of a bookkeeping process: deaf to stops meant for the gateway, ends with its parent."""
    ignore_stop_signals()
    end_with_parent(parent, signal.SIGKILL)


def run_beside(target: Callable[..., None], arguments: dict[str, Any]) -> None:
    """Body of a process that serves all workers; ``target`` decides what a stop signal does."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    release_stop_signals()
    target(**arguments)
