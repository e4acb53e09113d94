"""What a client protocol must offer: recognize its upgrade requests and take or refuse them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, runtime_checkable
from urllib.parse import parse_qsl

import msgspec

from edge.session.interface import SessionHost
from edge.transport.interface import Limits, Receiver


class UpgradeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A WebSocket upgrade as it came in, before it is answered."""

    path: str
    """Percent-encoded path without the query."""
    query: str = ""
    """Raw query string without the question mark."""
    headers: Mapping[str, str] = MappingProxyType({})
    """By lower-cased name; of several of a name the first. They may hold keys."""
    subprotocols: tuple[str, ...] = ()
    """What the client offers in ``Sec-WebSocket-Protocol``, its favourite first."""

    def __repr__(self) -> str:
        """The path only: the rest may hold keys."""
        return f"UpgradeRequest({self.path!r})"


def dispatch_asked(query: str) -> bool | None:
    """What ``useDispatcher`` in a query says: ``true`` is on, anything else off, None: nothing."""
    if "useDispatcher" not in query:
        return None
    values = dict(reversed(parse_qsl(query, keep_blank_values=True)))
    return values["useDispatcher"] == "true" if "useDispatcher" in values else None


class Refusal(msgspec.Struct, frozen=True):
    """An upgrade that is answered with a bare HTTP status and body instead."""

    status: int
    body: str
    retry_after_s: int = 0
    """Sent as ``Retry-After`` unless 0."""


class ClientProtocol(Protocol):
    """One way of talking to clients; stateless, shared by all connections of a worker."""

    limits: Limits
    """What its connections may do; a longer message closes one with 1009."""
    subprotocol: str | None
    """Confirmed at the upgrade, when the client offered it; None confirms none."""

    def matches(self, request: UpgradeRequest) -> bool:
        """Whether this protocol answers such an upgrade: its path, the subprotocols on offer."""
        ...

    def accept(self, request: UpgradeRequest, host: SessionHost) -> Receiver | Refusal:
        """Validate a request; return the receiver of its connection or why there is none."""
        ...


@runtime_checkable
class LeaveTaking(Protocol):
    """A client protocol that has something to say when the gateway stops."""

    def draining(self, deadline_s: float) -> None:
        """The gateway stops: within so long all tracks are flushed."""
        ...

    async def stop(self) -> None:
        """All tracks are flushed and their finals logged: close what is left. Once is enough."""
        ...
