"""Short trials of a running gateway's meetings: chunks through a socket, windows through REST."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np

from edge.demo.recorder import (
    ANSWER_WITHIN_S,
    RATE_HZ,
    Refused,
    Role,
    Unanswered,
    connect,
)
from edge.demo.rest import Meeting
from edge.errors import EdgescribeError

_AMPLITUDE = 0x6FFF


class SmokeFailed(EdgescribeError):
    """The gateway works, but not as it must; the message says what is not so."""


class IngestPassed(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial of ingest prints."""

    ok: bool = True
    session_id: str
    received_chunks: int
    last_seq: int
    bytes_stored: int


class RecognitionPassed(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial of recognition prints."""

    ok: bool = True
    session_id: str
    stream_role: Role
    last_seq: int
    generated: int
    last_window_end_seq: int
    utterance_count: int
    text: str


async def smoke_ingest(
    base_http: str, base_ws: str, session_id: str, *, chunks: int = 3, role: Role = "mixed"
) -> IngestPassed:
    """Send tones without waiting, then ask whether each was stored once. Raises ``SmokeFailed``.

    A session that holds chunks already fails: their numbers are the same.
    """
    async with connect(
        base_ws, session_id=session_id, role=role, timeout_s=ANSWER_WITHIN_S
    ) as recorder:
        try:
            await recorder.say_hello()
            for seq in range(1, chunks + 1):
                await recorder.chunk(tone(220 + 10 * seq), seq)
            await recorder.all_acked(ANSWER_WITHIN_S)
            await recorder.status()
            await recorder.close("smoke-complete")
        except (Refused, Unanswered) as error:
            raise SmokeFailed(f"session {session_id}: {error}") from None
    stored = (await asyncio.to_thread(Meeting(base_http, session_id).state)).stored(role)
    found = {
        "acks": recorder.acks,
        "received_chunks": stored.received_chunks,
        "missing_count of the last ack": recorder.missing_count,
        "missing_chunks": stored.missing_chunks,
    }
    for what, count in found.items():
        wanted = 0 if what.startswith("missing") else chunks
        if count != wanted:
            raise SmokeFailed(f"session {session_id}: {what} is {count}, not {wanted}")
    return IngestPassed(
        session_id=session_id,
        received_chunks=stored.received_chunks,
        last_seq=stored.last_seq,
        bytes_stored=stored.bytes_stored,
    )


def smoke_recognition(
    meeting: Meeting,
    session_id: str,
    role: Role,
    *,
    view: str = "raw",
    min_utterances: int = 1,
    max_windows: int = 1,
    reset_first: bool = False,
    allow_empty_text: bool = False,
) -> RecognitionPassed:
    """Transcribe windows of a session that has audio, and look at what came of it.

    Raises ``SmokeFailed`` for fewer than ``min_utterances`` or none with a word in it.
    """
    stored = meeting.state().stored(role)
    if reset_first:
        meeting.reset_recognition(role)
    run = meeting.run_windows(role, max_windows)
    utterances = meeting.utterances(role, view=view)
    where = f"session {session_id}, {role}"
    because = f"; the gateway says: {run.last_error}" if run.last_error else ""
    if utterances.count < min_utterances:
        raise SmokeFailed(
            f"{where}: {utterances.count} utterances, not {min_utterances},"
            f" of {stored.received_chunks} stored chunks{because}"
        )
    texts = [each.text.strip() for each in utterances.items]
    if not allow_empty_text and not any(texts):
        raise SmokeFailed(f"{where}: not one of {len(texts)} utterances has text{because}")
    return RecognitionPassed(
        session_id=session_id,
        stream_role=role,
        last_seq=stored.last_seq,
        generated=run.generated,
        last_window_end_seq=run.last_window_end_seq,
        utterance_count=utterances.count,
        text=next((text for text in reversed(texts) if text), ""),
    )


def tone(hz: float) -> bytes:
    """One chunk of a sine."""
    at_s = np.arange(RATE_HZ) / RATE_HZ
    return (_AMPLITUDE * np.sin(2 * np.pi * hz * at_s)).astype("<i2").tobytes()
