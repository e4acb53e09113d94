"""Utterances written in short."""

from __future__ import annotations

from edge.meeting.records import Merged, Utterance


def said(start_seq: int, end_seq: int, text: str, number: int = 0) -> Utterance:
    """An utterance that covers whole chunks; ``number`` tells its id and its making."""
    return Utterance(
        utterance_id=f"s-students-{end_seq:08d}-{number}",
        session_id="s",
        stream_role="students",
        text=text,
        start_seq=start_seq,
        end_seq=end_seq,
        start_ms=(start_seq - 1) * 1000,
        end_ms=end_seq * 1000,
        duration_ms=(end_seq - start_seq + 1) * 1000,
        asr_model="model",
        asr_provider="embedded",
        confidence=None,
        created_at=f"2026-01-01T00:00:00.{number:03d}Z",
        latency_ms=None,
    )


def again(merged: Merged) -> Utterance:
    """What was merged, as if it had been said so."""
    return Utterance(
        utterance_id=merged.source_utterance_ids[0],
        session_id=merged.session_id,
        stream_role=merged.stream_role,
        text=merged.text,
        start_seq=merged.start_seq,
        end_seq=merged.end_seq,
        start_ms=merged.start_ms,
        end_ms=merged.end_ms,
        duration_ms=merged.duration_ms,
        asr_model=merged.asr_model,
        asr_provider=merged.asr_provider,
        confidence=None,
        created_at=merged.created_at,
        latency_ms=None,
    )
