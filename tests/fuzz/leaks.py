"""What the leak sanitizer says while Python still runs: memory that nothing refers to any more."""

from __future__ import annotations

import ctypes
import gc


def is_leaking() -> bool | None:
    """Whether some memory can be reached no more, with a report on standard error.

    None when this process does not run under the sanitizer.
    """
    check = getattr(ctypes.CDLL(None), "__lsan_do_recoverable_leak_check", None)
    if check is None:
        return None
    gc.collect()
    return bool(check())
