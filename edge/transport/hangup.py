"""Whether a peer has gone that nobody listens to: while reading is paused, no event tells.

Source: poll(2), tcp(7).
"""

from __future__ import annotations

import asyncio
import select

_GONE = select.POLLERR | select.POLLHUP


def has_gone(transport: asyncio.Transport) -> bool:
    """Whether an open connection was reset; what the peer sent before can still be read.

    Asks the kernel and never blocks. A peer that has merely closed is not seen: its end of stream
    may wait behind data that nobody takes. Its machine answers whatever is written with a reset.
    """
    handle = transport.get_extra_info("socket")
    if handle is None or transport.is_closing() or handle.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(handle.fileno(), 0)
    return any(events & _GONE for _, events in poll.poll(0))
