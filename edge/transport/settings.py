"""Settings of client connections."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edge.option import option


class LaneSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Deadlines and bounds of every client WebSocket."""

    client_ping_interval_s: Annotated[
        float, option("Seconds between pings to a client; 0 sends none", ge=0)
    ] = 20.0
    """Keeps proxies between us and the client from cutting a quiet connection."""
    client_pong_deadline_s: Annotated[
        float, option("A client silent for so long after a ping is closed (1011)", gt=0)
    ] = 20.0
    """Any bytes from the client count as an answer: a busy sender is alive."""
    client_send_timeout_s: Annotated[
        float, option("A client is closed (1008) when a byte waits for it for so long", gt=0)
    ] = 10.0
    """Measured on the oldest byte that the client's machine has not taken."""
    client_outbox_bytes: Annotated[
        int, option("A client is closed (1008) when more bytes wait for it", ge=16 * 1024)
    ] = 1024 * 1024
    """Per connection; an empty outbox takes one message of any length."""
    client_inbox_bytes: Annotated[
        int,
        option("Messages kept for a paused client session before reading stops", ge=16 * 1024),
    ] = 256 * 1024
    """Per connection; beyond it the client's TCP window closes."""
    client_receive_buffer_bytes: Annotated[
        int,
        option("Kernel's receive buffer of a client's socket; 0 leaves it to the system", ge=0),
    ] = 256 * 1024
    """The kernel may hold twice that. Clients far away that send much need more (RFC 6349, 3.3)."""
    client_read_interval_ms: Annotated[
        int,
        option(
            "Milliseconds between reads of a client that streams, if no audio is due before",
            ge=0,
            le=100,
        ),
    ] = 40
    """Waking up for each packet costs more than the packet does. Applies to connections without TLS
    that have sent 40 small pieces a second; whatever else they send, a ping say, waits with it."""
    client_close_timeout_s: Annotated[
        float, option("Longest wait for a client's part of the closing handshake", gt=0)
    ] = 5.0
    """Then the connection is cut."""
