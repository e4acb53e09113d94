"""One worker's gateway: takes upgrades, carries sessions and tracks, drains them.

The object that ``edge.compose`` builds and the server calls; everything else of a worker hangs on it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Protocol

import msgspec

from edge.asr.interface import StreamRequest
from edge.asr.registry import Recognizers
from edge.asr.supervisor import Supervisor, SupervisorSettings
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack, TrackStats
from edge.ingest.interface import ClientProtocol, Refusal, UpgradeRequest
from edge.ingest.query import parse_media_query
from edge.logs import get_logger
from edge.session.live import (
    LiveSession,
    LiveTrack,
    Offer,
    SessionOutlet,
    SessionRequest,
)
from edge.session.metronome import Metronome
from edge.session.settings import SessionSettings
from edge.transport.interface import Close, Receiver

_log = get_logger("edge.session.gateway")


class Counts(msgspec.Struct, frozen=True):
    """What a worker carries right now."""

    active: int
    """Sessions with a client."""
    detached: int
    """Sessions whose client is gone and whose last finals are still awaited."""
    tracks: int


class Acceptance(msgspec.Struct, frozen=True):
    """An upgrade that is taken: who receives its messages, and how long one may be."""

    receiver: Receiver
    max_message_bytes: int
