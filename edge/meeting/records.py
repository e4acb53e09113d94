"""What is known of a meeting besides its log: small records, each changed by compare-and-set.

Times called ``…_at`` are ISO 8601 in UTC with milliseconds and ``Z``. Numbers of chunks count from
1 within a role; a chunk is one second of 16 kHz mono 16-bit samples, the last of a stream may be
shorter.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Role = Literal["mixed", "teacher", "students"]
ROLES: tuple[Role, ...] = ("mixed", "teacher", "students")
CaptureState = Literal["idle", "running", "recovering", "failed"]
RecognizerState = Literal["disconnected", "connecting", "running", "error"]
IdentitySource = Literal[
    "teams_participants", "preconfig", "name_extract", "teacher", "inference_resolve"
]
Value = str | int | float | bool

RATE_HZ = 16000
CHUNK_BYTES = 2 * RATE_HZ
CHUNK_MS = 1000
MAX_SAMPLES = 200
"""Latencies remembered for the quantiles."""


def iso(unix_ms: float | None = None) -> str:
    """A time, now by default, as it is written everywhere here."""
    at = datetime.now(UTC) if unix_ms is None else datetime.fromtimestamp(unix_ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_role(text: str | None, default: Role = "mixed") -> Role | None:
    """A role as clients write it, in any case; blank is the default, None what is no role."""
    name = (text or "").strip().lower() or default
    return next((role for role in ROLES if role == name), None)


class Person(Struct, frozen=True):
    """One entry of the roster; ``email`` is absent for those who were named only."""

    name: str
    email: str | UnsetType | None = UNSET


class People(Struct, frozen=True, kw_only=True):
    """Who is expected, and what else was configured."""

    config: dict[str, Value] = {}
    roster: tuple[Person, ...] | UnsetType = UNSET
    """Absent until it is set."""
    provider: str = ""
    """The recognizer that was chosen; empty lets the gateway choose."""
    updated_at: str | None = None


class Cluster(Struct, frozen=True):
    """A voice as the inference service knows it."""

    cluster_id: str
    centroid: tuple[float, ...]
    sample_count: Annotated[int, Meta(ge=0)]
    bound_name: str | UnsetType | None = UNSET


class Voices(Struct, frozen=True, kw_only=True):
    """The voices told apart so far, and whose they are, by cluster; changed by resolving only."""

    clusters: tuple[Cluster, ...] = ()
    bindings: dict[str, str] = {}
    updated_at: str | None = None


class Capture(Struct, frozen=True, kw_only=True):
    """How a client's capture of one role fares, as it says itself."""

    capture_state: CaptureState = "idle"
    recover_attempts: int = 0
    last_recover_at: str | None = None
    last_recover_error: str | None = None
    echo_suppressed_chunks: int = 0
    echo_suppression_recent_rate: float = 0.0
    updated_at: str | None = None


class Captures(Struct, frozen=True, kw_only=True):
    """The captures of all roles; that of ``mixed`` is derived from the others."""

    mixed: Capture = Capture()
    teacher: Capture = Capture()
    students: Capture = Capture()

    def of(self, role: Role) -> Capture:
        """One role's."""
        capture: Capture = getattr(self, role)
        return capture


class Ingest(Struct, frozen=True, kw_only=True):
    """What of a role's audio is stored."""

    last_seq: int = 0
    received_chunks: int = 0
    duplicate_chunks: int = 0
    bytes_stored: int = 0
    missing: tuple[tuple[int, int], ...] = ()
    """Numbers below ``last_seq`` that were never stored: first and last of each run, in order."""
    short: tuple[int, int] | None = None
    """Number and bytes of a last chunk that is shorter than a second."""
    sent_seq: int = 0
    """The last chunk that the live recognizer had got when the newest was counted."""
    started_at: str | None = None
    updated_at: str | None = None

    @property
    def missing_chunks(self) -> int:
        """How many numbers are missing."""
        return sum(last - first + 1 for first, last in self.missing)

    def has(self, seq: int) -> bool:
        """Whether a chunk is stored."""
        if not 0 < seq <= self.last_seq:
            return False
        return not any(first <= seq <= last for first, last in self.missing)

    def stored(self, first: int, last: int) -> list[int]:
        """The numbers in a range that are stored, in order."""
        return [seq for seq in range(max(1, first), min(last, self.last_seq) + 1) if self.has(seq)]


class Asr(Struct, frozen=True, kw_only=True):
    """How recognition of one role fares; ``edge.meeting.view`` knows what follows from the log."""

    asr_ws_state: RecognizerState = "disconnected"
    sent_seq: int = 0
    """The last chunk that was handed to the recognizer."""
    total_windows_processed: int = 0
    total_audio_seconds_processed: int = 0
    last_window_end_seq: int = 0
    last_window_latency_ms: float = 0
    avg_window_latency_ms: float = 0
    avg_rtf: float = 0
    consecutive_failures: int = 0
    next_retry_after_ms: int = 0
    """Unix time in ms before which windows are run only when asked for; 0: none."""
    last_error: str | None = None
    last_success_at: str | None = None
    last_emit_at: str | None = None
    recent_ingest_to_utterance_ms: tuple[int, ...] = ()
    updated_at: str | None = None


class Utterance(Struct, frozen=True, kw_only=True):
    """Something that was said, as REST and result.json give it; made from a ``FinalEntry``."""

    utterance_id: str
    session_id: str
    stream_role: Role
    text: str
    start_seq: int
    end_seq: int
    start_ms: int
    end_ms: int
    duration_ms: int
    asr_model: str
    asr_provider: str
    confidence: float | None
    created_at: str
    latency_ms: int | None


class Merged(Struct, frozen=True, kw_only=True):
    """One or several utterances that say the same or overlap, as one."""

    merged_id: str
    session_id: str
    stream_role: Role
    text: str
    start_seq: int
    end_seq: int
    start_ms: int
    end_ms: int
    duration_ms: int
    asr_model: str
    asr_provider: str
    created_at: str
    source_utterance_ids: tuple[str, ...]


class Evidence(Struct, frozen=True, kw_only=True):
    """Why the inference service decided as it did."""

    sv_score: float
    threshold_low: float
    threshold_high: float
    segment_count: int
    name_hit: str | None = None
    roster_hit: bool | None = None


class SpeakerSaid(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Who said an utterance, as REST and result.json give it: one line of ``events``."""

    ts: str
    stream_role: Role
    source: Literal["inference_resolve", "teacher_direct"]
    identity_source: IdentitySource | None = None
    utterance_id: str | None = None
    cluster_id: str | None = None
    speaker_name: str | None = None
    decision: Literal["auto", "confirm", "unknown"] | None = None
    evidence: Evidence | None = None
    note: str | None = None


encode = msgspec.json.Encoder().encode
