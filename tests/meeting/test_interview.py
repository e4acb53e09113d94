"""A whole interview of real speech: streamed, polled, finalized, and heard as well as a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest

from edge.asr.embedded import EmbeddedRecognizer
from edge.asr.interface import StreamRequest
from edge.demo.capture import Captured, stream
from edge.demo.gateway import running
from edge.demo.recorder import CHUNK_BYTES, Role, Stored, connect
from edge.demo.rest import Event, Meeting, Utterance
from edge.demo.speech import Speech
from edge.demo.wer import compare
from tests.asr.support.embedded import Listener, caretaker, recognizer, requires_embedded
from tests.meeting.support.interview import interview

SESSION = "interview"
SPEED = 8.0
POLL_S = 2.0
MOST_BEHIND_MS = 5000
WORSE_BY = 0.02
ROLES: tuple[Role, Role] = ("teacher", "students")


class Result(msgspec.Struct, kw_only=True):
    """Of result.json, what is judged here."""

    session_id: str
    finalized_at: str
    events: list[Event]
    ingest_by_stream: dict[Role, Stored]
    utterances_raw_by_stream: dict[Role, list[Utterance]]
    utterances_merged_by_stream: dict[Role, list[Utterance]]


@requires_embedded
@pytest.mark.timeout(120)
async def test_both_sides_of_an_interview_are_in_the_result_as_well_heard_as_their_files() -> None:
    sides = interview()
    speeches = [side.speech for side in sides]
    with caretaker() as process:
        async with recognizer(process.socket) as whole:
            wholes = await asyncio.gather(*(in_one_piece(whole, each) for each in speeches))
    own = ("--set", "providers_priority=embedded")
    async with running(workers=2, arguments=own) as gateway:
        meeting = Meeting(f"http://{gateway.address}", SESSION)
        await asyncio.to_thread(
            meeting.configure,
            {"interviewer_name": "Bill", "teams_participants": ["Bill", "Alice"]},
        )
        async with polled(meeting) as polls:
            done = await asyncio.gather(
                *(
                    recorded(gateway.address, role, speech)
                    for role, speech in zip(ROLES, speeches, strict=True)
                )
            )
        finalized = await asyncio.to_thread(meeting.finalize, {"by": "the desktop client"})
        result = await asyncio.to_thread(meeting.result, Result)
    assert (result.session_id, result.finalized_at) == (SESSION, finalized.finalized_at)
    assert polls, "the desktop client polled"
    for role, side, as_file, captured in zip(ROLES, sides, wholes, done, strict=True):
        stored = result.ingest_by_stream[role]
        assert stored.last_seq == stored.received_chunks == captured.last_seq
        assert stored.bytes_stored == len(side.speech.pcm)
        assert (stored.missing_chunks, stored.duplicate_chunks) == (0, 0)
        raw = result.utterances_raw_by_stream[role]
        assert_in_order(raw, captured.last_seq)
        for poll in polls:
            ids = [each.utterance_id for each in poll[role]]
            assert ids == [each.utterance_id for each in raw][: len(ids)]
        errors_of_file = compare(side.text, as_file).rate
        for view in (raw, result.utterances_merged_by_stream[role]):
            heard = " ".join(each.text for each in view)
            assert compare(side.text, heard).rate <= errors_of_file + WORSE_BY, heard
    spoken = [each.utterance_id for each in result.utterances_raw_by_stream["teacher"]]
    named = [event for event in result.events if event.stream_role == "teacher"]
    assert [event.utterance_id for event in named] == spoken
    assert {event.speaker_name for event in named} == {"Bill"}


def assert_in_order(utterances: Sequence[Utterance], last_seq: int) -> None:
    """They follow one another, and lie in the chunks that hold them."""
    before_ms = 0
    for each in utterances:
        assert before_ms <= each.start_ms < each.end_ms <= 1000 * last_seq
        assert each.start_seq == each.start_ms // 1000 + 1
        assert each.end_seq == -(-each.end_ms // 1000)
        assert each.text.strip()
        before_ms = each.end_ms
    assert utterances


async def recorded(address: str, role: Role, speech: Speech) -> Captured:
    """Stream one side."""
    async with connect(address, session_id=SESSION, role=role) as recorder:
        return await stream(recorder, speech, speed=SPEED)


async def in_one_piece(recognizer: EmbeddedRecognizer, speech: Speech) -> str:
    """What the recognizer makes of a recording as fast as it takes it."""
    listener = Listener()
    heard = await recognizer.open(StreamRequest(track="whole"), listener)
    for start in range(0, len(speech.pcm), CHUNK_BYTES):
        heard.send(speech.pcm[start : start + CHUNK_BYTES])
        while heard.backlog_ms > MOST_BEHIND_MS:
            await asyncio.sleep(0.01)
    await heard.drain()
    await heard.close()
    return listener.text


@asynccontextmanager
async def polled(meeting: Meeting) -> AsyncIterator[list[dict[Role, list[Utterance]]]]:
    """Ask every 2 s what the desktop client asks; gives the raw utterances of each time."""
    polls: list[dict[Role, list[Utterance]]] = []

    async def poll() -> None:
        while True:
            await asyncio.to_thread(meeting.state)
            seen = {}
            for role in ROLES:
                raw = await asyncio.to_thread(meeting.utterances, role, limit=50)
                await asyncio.to_thread(meeting.utterances, role, view="merged", limit=50)
                assert raw.count == len(raw.items)
                seen[role] = raw.items
            await asyncio.to_thread(meeting.events, limit=100)
            polls.append(seen)
            await asyncio.sleep(POLL_S)

    polling = asyncio.create_task(poll())
    try:
        yield polls
    finally:
        polling.cancel()
        await asyncio.wait([polling])
        if not polling.cancelled():
            polling.result()
