"""The client protocols of this gateway; the first that matches a path answers it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from edge.ingest.counts import IngestCounts
from edge.ingest.deepgram import SUBPROTOCOL as DEEPGRAM_TOKEN
from edge.ingest.deepgram import DeepgramProtocol
from edge.ingest.interface import ClientProtocol, Refusal, UpgradeRequest
from edge.ingest.listen import ListenProtocol
from edge.ingest.media import MediaProtocol
from edge.ingest.meeting import MeetingProtocol
from edge.ingest.query import parse_media_query
from edge.ingest.realtime import SUBPROTOCOL as REALTIME
from edge.ingest.realtime import RealtimeProtocol
from edge.ingest.session_socket import SessionProtocol
from edge.ingest.settings import DoorName, ListenSettings
from edge.ingest.twilio import TwilioProtocol
from edge.meeting.meetings import Meetings
from edge.session.interface import SessionHost
from edge.transport.interface import Limits

DOORS: Mapping[DoorName, Callable[[IngestCounts], tuple[ClientProtocol, ...]]] = {
    "openai": lambda counts: (
        RealtimeProtocol(counts, REALTIME),
        RealtimeProtocol(counts, None),
    ),
    "deepgram": lambda counts: (
        DeepgramProtocol(counts, DEEPGRAM_TOKEN),
        DeepgramProtocol(counts, None),
    ),
    "twilio": lambda counts: (TwilioProtocol(counts),),
}
"""Those for other services' clients, which are asked for by name."""


def client_protocols(
    counts: IngestCounts,
    listen: ListenSettings,
    meetings: Meetings,
    doors: Collection[DoorName] = (),
) -> tuple[ClientProtocol, ...]:
    """All protocols, in the order in which they are asked; they count into ``counts``."""
    return (
        MeetingProtocol(counts, meetings),
        MediaProtocol(counts),
        SessionProtocol(counts, listen),
        ListenProtocol(counts, listen),
        *(protocol for name in DOORS if name in doors for protocol in DOORS[name](counts)),
        Nowhere(),
    )


class Nowhere:
    """Matches every path and refuses it."""

    limits = Limits()
    subprotocol: str | None = None

    def matches(self, request: UpgradeRequest) -> bool:
        """Always."""
        return True

    def accept(self, request: UpgradeRequest, host: SessionHost) -> Refusal:
        """Media servers expect a bad query to be named before a bad path."""
        query = parse_media_query(request.query)
        return Refusal(400, query if isinstance(query, str) else "Bad URL")
