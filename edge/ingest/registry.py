"""The client protocols of this gateway; the first that matches a path answers it."""

from __future__ import annotations

from edge.ingest.counts import IngestCounts
from edge.ingest.interface import ClientProtocol
from edge.ingest.media import MediaProtocol


def client_protocols(counts: IngestCounts) -> tuple[ClientProtocol, ...]:
    """All protocols, in the order in which they are asked; they count into ``counts``."""
    return (MediaProtocol(counts),)
