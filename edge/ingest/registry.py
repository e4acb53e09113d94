"""The client protocols of this gateway; the first that matches a path answers it."""

from __future__ import annotations

from edge.ingest.counts import IngestCounts
from edge.ingest.interface import ClientProtocol, Refusal, UpgradeRequest
from edge.ingest.listen import ListenProtocol
from edge.ingest.media import MediaProtocol
from edge.ingest.meeting import MeetingProtocol
from edge.ingest.query import parse_media_query
from edge.ingest.session_socket import SessionProtocol
from edge.ingest.settings import ListenSettings
from edge.meeting.meetings import Meetings
from edge.session.interface import SessionHost
from edge.transport.interface import Limits


def client_protocols(
    counts: IngestCounts, listen: ListenSettings, meetings: Meetings
) -> tuple[ClientProtocol, ...]:
    """All protocols, in the order in which they are asked; they count into ``counts``."""
    return (
        MeetingProtocol(counts, meetings),
        MediaProtocol(counts),
        SessionProtocol(counts, listen),
        ListenProtocol(counts, listen),
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
