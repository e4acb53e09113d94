"""Where a meeting stands, as REST, the recorder's sockets and result.json show it.

Comes in: the records and the view of the log. Goes out: the objects of clients, whose members are
those of the recorder's protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

from msgspec import UNSET, Struct, UnsetType

from edge.meeting.book import ASR, CAPTURES, FAMILY, INGEST, PEOPLE, VOICES, Leaf
from edge.meeting.quantiles import quantile
from edge.meeting.records import (
    ROLES,
    Asr,
    Captures,
    Cluster,
    Ingest,
    People,
    Person,
    RecognizerState,
    Role,
    Value,
    Voices,
)
from edge.meeting.view import View, Views
from edge.session.store.interface import SessionStore

ByRole = dict[Role, int]
T = TypeVar("T", bound=Struct)


class IngestStatus(Struct, frozen=True, kw_only=True):
    """What of a role's audio is stored; also the ``status`` frame of its socket."""

    type: Literal["status"] = "status"
    session_id: str
    stream_role: Role
    meeting_id: str
    last_seq: int
    received_chunks: int
    duplicate_chunks: int
    missing_chunks: int
    bytes_stored: int
    started_at: str | None
    updated_at: str | None


class Recognition(Struct, frozen=True, kw_only=True):
    """What is known of the recognition of a meeting before anything is said."""

    enabled: bool
    provider: str
    model: str
    mode: Literal["realtime", "windowed"]
    window_seconds: int
    hop_seconds: int


class AsrStatus(Struct, frozen=True, kw_only=True):
    """How recognition of one role fares; latencies and windows are in ms."""

    enabled: bool
    provider: str
    model: str
    mode: Literal["realtime", "windowed"]
    asr_ws_state: RecognizerState
    backlog_chunks: int
    ingest_lag_seconds: int
    last_emit_at: str | None
    recent_ingest_to_utterance_ms: tuple[int, ...]
    ingest_to_utterance_p50_ms: float | None
    ingest_to_utterance_p95_ms: float | None
    window_seconds: int
    hop_seconds: int
    last_window_end_seq: int
    utterance_count: int
    total_windows_processed: int
    total_audio_seconds_processed: int
    last_window_latency_ms: float
    avg_window_latency_ms: float
    avg_rtf: float
    consecutive_failures: int
    next_retry_after_ms: int
    last_error: str | None
    last_success_at: str | None
    updated_at: str | None


class SpeakerState(Struct, frozen=True, kw_only=True):
    """Voices, people and captures: the ``state`` of a meeting."""

    clusters: tuple[Cluster, ...]
    bindings: dict[str, str]
    roster: tuple[Person, ...] | UnsetType = UNSET
    config: dict[str, Value]
    capture_by_stream: Captures


class Ingests(Struct, frozen=True, kw_only=True):
    """The ingest of all roles."""

    mixed: IngestStatus
    teacher: IngestStatus
    students: IngestStatus


class Asrs(Struct, frozen=True, kw_only=True):
    """The recognition of all roles."""

    mixed: AsrStatus
    teacher: AsrStatus
    students: AsrStatus


def ingest_status(session: str, role: Role, ingest: Ingest) -> IngestStatus:
    """The status object of one role."""
    return IngestStatus(
        session_id=session,
        stream_role=role,
        meeting_id=session,
        last_seq=ingest.last_seq,
        received_chunks=ingest.received_chunks,
        duplicate_chunks=ingest.duplicate_chunks,
        missing_chunks=ingest.missing_chunks,
        bytes_stored=ingest.bytes_stored,
        started_at=ingest.started_at,
        updated_at=ingest.updated_at,
    )


def asr_status(known: Recognition, asr: Asr, ingest: Ingest, utterances: int) -> AsrStatus:
    """The recognition of one role; ``utterances`` is how many it has."""
    samples = asr.recent_ingest_to_utterance_ms
    lag = max(0, ingest.last_seq - max(asr.sent_seq, ingest.sent_seq, asr.last_window_end_seq))
    is_live = known.enabled and known.mode == "realtime"
    return AsrStatus(
        enabled=known.enabled,
        provider=known.provider,
        model=known.model,
        mode=known.mode,
        asr_ws_state=asr.asr_ws_state,
        # What a live recognizer has not got waits for it, in memory or in the object store.
        backlog_chunks=lag if is_live else 0,
        ingest_lag_seconds=lag,
        last_emit_at=asr.last_emit_at,
        recent_ingest_to_utterance_ms=samples,
        ingest_to_utterance_p50_ms=quantile(samples, 0.5),
        ingest_to_utterance_p95_ms=quantile(samples, 0.95),
        window_seconds=known.window_seconds,
        hop_seconds=known.hop_seconds,
        last_window_end_seq=asr.last_window_end_seq,
        utterance_count=utterances,
        total_windows_processed=asr.total_windows_processed,
        total_audio_seconds_processed=asr.total_audio_seconds_processed,
        last_window_latency_ms=asr.last_window_latency_ms,
        avg_window_latency_ms=asr.avg_window_latency_ms,
        avg_rtf=asr.avg_rtf,
        consecutive_failures=asr.consecutive_failures,
        next_retry_after_ms=asr.next_retry_after_ms,
        last_error=asr.last_error,
        last_success_at=asr.last_success_at,
        updated_at=asr.updated_at,
    )


def speaker_state(people: People, voices: Voices, captures: Captures) -> SpeakerState:
    """The ``state`` of a meeting."""
    return SpeakerState(
        clusters=voices.clusters,
        bindings=voices.bindings,
        roster=people.roster,
        config=people.config,
        capture_by_stream=captures,
    )


class Standing(Struct, frozen=True, kw_only=True):
    """All that is known of a meeting at one moment; nothing of it is to be changed."""

    session: str
    people: People
    voices: Voices
    captures: Captures
    ingest: dict[Role, Ingest]
    asr: dict[Role, Asr]
    view: View
    recognition: Recognition

    @property
    def updated_at(self) -> str | None:
        """When people, voices or captures changed last."""
        changes = (self.people.updated_at, self.voices.updated_at, self.captures.mixed.updated_at)
        return max((at for at in changes if at), default=None)

    @property
    def state(self) -> SpeakerState:
        """The ``state`` of clients."""
        return speaker_state(self.people, self.voices, self.captures)

    @property
    def ingests(self) -> Ingests:
        """The status objects of all roles."""
        return Ingests(
            **{role: ingest_status(self.session, role, self.ingest[role]) for role in ROLES}
        )

    @property
    def asrs(self) -> Asrs:
        """The recognition of all roles."""
        return Asrs(
            **{
                role: asr_status(
                    self.recognition, self.asr[role], self.ingest[role], len(self.view.raw(role))
                )
                for role in ROLES
            }
        )


class Standings:
    """One worker's way to where meetings stand; ``recognition`` knows that of a provider."""

    def __init__(
        self, store: SessionStore, views: Views, recognition: Callable[[str], Recognition]
    ) -> None:
        self._store = store
        self._views = views
        self._recognition = recognition

    async def of(self, session: str) -> Standing:
        """Where a meeting stands; defaults for one that there is not. Nothing is written.

        Raises what the store raises.
        """
        view = await self._views.of(session)
        records = await self._store.records(session, FAMILY)
        bodies = {record.key: record.body for record in records}

        def read(leaf: Leaf[T]) -> T:
            body = bodies.get(leaf.key)
            return leaf.default if body is None else leaf.decode(body)

        people = read(PEOPLE)
        return Standing(
            session=session,
            people=people,
            voices=read(VOICES),
            captures=read(CAPTURES),
            ingest={role: read(INGEST[role]) for role in ROLES},
            asr={role: read(ASR[role]) for role in ROLES},
            view=view,
            recognition=self._recognition(people.provider),
        )
