"""What a process does about the end of its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, by: signal.Signals) -> None:
    """Have the kernel send this process ``by`` when its parent ends (prctl(2)); Linux only.

    A process that is stopped ends too, if ``by`` is SIGKILL. Raises ``SystemExit`` when ``parent``
    has ended already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(by), 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)
