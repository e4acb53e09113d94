"""Whether a peer has gone that nobody listens to: while reading is paused, no event tells.

Source: poll(2), tcp(7).
"""

from __future__ import annotations

import asyncio
import select
from enum import Enum

_HALF_CLOSED = getattr(select, "POLLRDHUP", 0)
"""Linux only; elsewhere a peer that leaves quietly is noticed when its data has been read."""
_GONE = select.POLLERR | select.POLLHUP


class Peer(Enum):
    """What the kernel knows of the peer."""

    THERE = 0
    SENDS_NO_MORE = 1
    """Its end of stream has come; it may have closed, or it may still read."""
    GONE = 2
    """The connection was reset. What it sent before can still be read."""


def look_for(transport: asyncio.Transport) -> Peer:
    """Ask the kernel about the peer of an open connection; never blocks."""
    handle = transport.get_extra_info("socket")
    if handle is None or transport.is_closing() or handle.fileno() < 0:
        return Peer.THERE
    poll = select.poll()
    poll.register(handle.fileno(), _HALF_CLOSED)
    events = sum(event for _, event in poll.poll(0))
    if events & _GONE:
        return Peer.GONE
    return Peer.SENDS_NO_MORE if events & _HALF_CLOSED else Peer.THERE
