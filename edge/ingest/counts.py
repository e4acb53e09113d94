"""What a worker's client connections sent, counted in plain integers for the metrics flush."""

from __future__ import annotations

import msgspec


class IngestCounts(msgspec.Struct, kw_only=True):
    """Totals since the worker started, over all connections."""

    audio_packets: int = 0
    """Media events with a payload that belonged to an open tag."""
    audio_bytes: int = 0
    """Their payload bytes, after base64."""
    bad_events: int = 0
    """Messages that are no event: not JSON, no tag, conflicting members, a payload not base64."""
    ignored_events: int = 0
    """Events that are ignored by design."""
    empty_payloads: int = 0
    """Media events whose payload decoded to nothing."""
    refused_packets: int = 0
    """Packets of tags that are refused."""
    slowed: int = 0
    """Times a connection was read more slowly because it sent too many events or too much audio."""
