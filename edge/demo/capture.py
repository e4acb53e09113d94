"""A recording streamed as a desktop client streams what it captures: paced, with its state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
from msgspec import UNSET

from edge.demo.recorder import RATE_HZ, Capture, Recorder, Role, chunks_of
from edge.demo.speech import Speech

_BYTES_PER_S = 2 * RATE_HZ


class Captured(msgspec.Struct, frozen=True):
    """What was streamed, all of it acked."""

    first_seq: int
    last_seq: int
    """Below ``first_seq`` when there was nothing to send."""
    audio_s: float
    missing_count: int
    """Chunks of the role that the gateway has not got, those of earlier clients included."""
    slowest_ack_s: float


async def stream(
    recorder: Recorder,
    speech: Speech,
    *,
    speed: float = 1.0,
    on_progress: Callable[[float], None] = lambda at_s: None,
) -> Captured:
    """Introduce the client, send a recording in chunks, wait for every ack, close.

    A chunk is sent when it would have been heard, at ``speed`` times the pace of speech; 0 sends
    without delay. Numbers go on after what the gateway has. ``on_progress`` is told the second of
    the recording that has been sent. Raises ``Refused``, ``Unanswered`` or ``Disconnected``.
    """
    await recorder.hello()
    first_seq = recorder.last_seq + 1
    await recorder.capture_status(capture_of(recorder.role, "running"))
    zero_s, at_s = time.perf_counter(), 0.0
    for pcm in chunks_of(speech):
        at_s += len(pcm) / _BYTES_PER_S
        if speed:
            await asyncio.sleep(zero_s + at_s / speed - time.perf_counter())
        recorder.check()
        await recorder.chunk(pcm)
        await recorder.capture_status(capture_of(recorder.role, "running"))
        on_progress(at_s)
    await recorder.capture_status(capture_of(recorder.role, "idle"))
    await recorder.all_acked()
    await recorder.close("recording-ended")
    return Captured(
        first_seq, recorder.last_seq, at_s, recorder.missing_count, recorder.slowest_ack_s
    )


def capture_of(role: Role, state: str) -> Capture:
    """What the desktop client tells of a capture that never had to recover."""
    return Capture(
        capture_state=state,
        recover_attempts=0 if role == "students" else UNSET,
        last_recover_at=None if role == "students" else UNSET,
        last_recover_error=None if role == "students" else UNSET,
        echo_suppressed_chunks=0 if role == "teacher" else UNSET,
        echo_suppression_recent_rate=0.0 if role == "teacher" else UNSET,
    )
