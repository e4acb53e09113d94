"""Memory that nobody uses goes back to the system.

The C library keeps what lies between two blocks in use, so that a worker would keep the size of its
largest moment. Called on the event loop, which it holds up for a fraction of a millisecond.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable


def releaser() -> Callable[[], object]:
    """A function that gives unused memory back; where the C library has none it does nothing.

    glibc's is ``malloc_trim`` (malloc_trim(3)).
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return lambda: None
    trim.argtypes = (ctypes.c_size_t,)
    return lambda: trim(0)
