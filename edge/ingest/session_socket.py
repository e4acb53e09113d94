"""``edge.session.v1``: sockets that speak into a session or follow it, and come back to it.

docs/session-protocol.md is its description for page authors.
"""

from __future__ import annotations

import random
import secrets
import uuid

import msgspec

from edge.ingest.counts import IngestCounts
from edge.ingest.interface import Refusal, UpgradeRequest
from edge.ingest.listen_query import ListenQuery, parse_listen_query
from edge.ingest.session_messages import SUBPROTOCOL, Drain, encode
from edge.ingest.session_presence import Attendance
from edge.ingest.session_receiver import SessionReceiver
from edge.ingest.session_room import Rooms
from edge.ingest.settings import ListenSettings, serves
from edge.session.entries import JoinEntry, LeaveEntry
from edge.session.interface import SessionHost
from edge.session.ledger import Ledger
from edge.transport.interface import Limits

OUTBOX_BYTES = 1024 * 1024
SEND_TIMEOUT_S = 5.0
PING_INTERVAL_S = 15.0
SLOW = 4008
LAST_FINALS_S = 1.0
"""What is in the log reaches followers within this when the gateway stops."""
RETRY_AFTER_S = 5
RETRY_MS = (100, 2000)
"""Clients of a gateway that stops come back spread over this time."""


class SessionProtocol:
    """Answers upgrades of the session sockets' paths that offer ``edge.session.v1``."""

    limits = Limits(
        max_message_bytes=64 * 1024,
        outbox_bytes=OUTBOX_BYTES,
        send_timeout_s=SEND_TIMEOUT_S,
        ping_interval_s=PING_INTERVAL_S,
        slow_code=SLOW,
    )
    subprotocol: str | None = SUBPROTOCOL

    def __init__(self, counts: IngestCounts, settings: ListenSettings) -> None:
        self.counts = counts
        self.settings = settings
        self._hall: Hall | None = None

    def matches(self, request: UpgradeRequest) -> bool:
        """Whether the path is a session socket's and the client speaks this protocol."""
        return SUBPROTOCOL in request.subprotocols and serves(self.settings, request.path)

    def accept(self, request: UpgradeRequest, host: SessionHost) -> SessionReceiver | Refusal:
        """Validate the query; what a client is to the session it says in its ``hello``."""
        query = parse_listen_query(request.query)
        if isinstance(query, str):
            return Refusal(400, query)
        if query.provider is not None:
            provider = host.offer.aliases.get(query.provider, query.provider)
            if provider not in host.offer.available_providers:
                names = ", ".join(host.offer.available_providers)
                return Refusal(400, f"Invalid provider parameter: this gateway has {names}")
            query = msgspec.structs.replace(query, provider=provider)
        if query.session is None:
            query = msgspec.structs.replace(query, session=str(uuid.uuid4()))
        if self._hall is None:
            self._hall = Hall(host, self.settings, self.counts)
        if not self._hall.has_room(query):
            return Refusal(503, "Overloaded", RETRY_AFTER_S)
        return SessionReceiver(query, self._hall, host)

    def draining(self, deadline_s: float) -> None:
        """Tell all clients that the gateway stops."""
        if self._hall is not None:
            self._hall.draining(deadline_s)

    async def stop(self) -> None:
        """Close what is left, so that clients go on elsewhere at once."""
        if self._hall is not None:
            await self._hall.stop()


class Hall:
    """What all connections of one worker share."""

    def __init__(self, host: SessionHost, settings: ListenSettings, counts: IngestCounts) -> None:
        self.host = host
        self.settings = settings
        self.counts = counts
        self.ledger: Ledger = host.ledger
        self.rooms = Rooms(self.ledger)
        self.attendance = Attendance(self.ledger.store, self._note)
        self._receivers: set[SessionReceiver] = set()

    def has_room(self, query: ListenQuery) -> bool:
        """Whether one more connection can be taken."""
        if len(self._receivers) >= self.settings.session_connections:
            return False
        return self.host.has_room(query.session, query.speaker)

    def enter(self, receiver: SessionReceiver) -> str:
        """A connection has opened; its name."""
        self._receivers.add(receiver)
        return secrets.token_hex(8)

    def leave(self, receiver: SessionReceiver) -> None:
        """A connection is over."""
        self._receivers.discard(receiver)

    def draining(self, deadline_s: float) -> None:
        """Tell all clients when to come back; they are jittered, each its own time."""
        for receiver in tuple(self._receivers):
            retry_in_ms = random.randint(*RETRY_MS)
            receiver.draining(encode(Drain(retry_in_ms, round(1000 * deadline_s))))

    async def stop(self) -> None:
        """Close every connection with 1012, after the last finals, and let the rooms go."""
        await self.rooms.caught_up(LAST_FINALS_S)
        for receiver in tuple(self._receivers):
            receiver.restarting()
        await self.attendance.stop()
        await self.rooms.stop()

    def _note(self, session: str, speaker: str, joins: bool) -> None:
        self.ledger.note(session, JoinEntry(speaker) if joins else LeaveEntry(speaker))
