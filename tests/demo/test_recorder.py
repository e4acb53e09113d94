"""The recorder's client: addresses, chunks, frames on the wire, and ends of all kinds."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from edge.demo import recorder
from edge.demo.capture import stream
from edge.demo.client import Disconnected, Unreachable
from edge.demo.recorder import CHUNK_BYTES, RATE_HZ, Refused, Unanswered, chunks_of, recorder_url
from edge.demo.speech import Speech
from tests.demo.recordings import tone
from tests.demo.scripted_meeting import Meeting, serving


@pytest.mark.parametrize(
    ("address", "given", "url"),
    [
        ("http://h:80", {"session_id": "m1"}, "ws://h:80/v1/audio/ws/m1"),
        (
            "https://h/p/",
            {"session_id": "m1", "role": "teacher"},
            "wss://h/p/v1/audio/ws/m1/teacher",
        ),
        ("h:80", {"session_id": "面 1", "role": "mixed"}, "ws://h:80/v1/audio/ws/%E9%9D%A2%201"),
        ("ws://h/v1/audio/ws/m1/Students", {}, "ws://h/v1/audio/ws/m1/students"),
        (
            "ws://h/v1/audio/ws/m1/students?provider=dummy",
            {"role": "teacher", "session_id": "m2", "query": {"transcripts": "true"}},
            "ws://h/v1/audio/ws/m2/teacher?transcripts=true&provider=dummy",
        ),
    ],
)
def test_an_address_is_a_base_or_a_whole_url(
    address: str, given: dict[str, object], url: str
) -> None:
    assert recorder_url(address, **given)[0] == url  # type: ignore[arg-type]


def test_a_session_without_a_name_is_a_new_one() -> None:
    _, first, role = recorder_url("http://h")
    assert recorder_url("http://h")[1] != first
    assert role == "mixed"


@pytest.mark.parametrize(
    "address", ["ftp://h", "http://", "ws://h:x", "ws://h/v1/audio/ws/m1/parents"]
)
def test_what_is_no_address_is_named(address: str) -> None:
    with pytest.raises(Unreachable, match="is not a gateway's address"):
        recorder_url(address)


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000, 48000])
def test_chunks_hold_the_whole_recording_at_its_times(rate_hz: int) -> None:
    speech = tone(2.5, rate_hz)
    chunks = list(chunks_of(speech))
    assert [len(chunk) for chunk in chunks] == [CHUNK_BYTES, CHUNK_BYTES, CHUNK_BYTES // 2]
    heard = np.frombuffer(b"".join(chunks), "<i2")[:: RATE_HZ // 8000].astype(float)
    spoken = np.frombuffer(speech.pcm, "<i2")[:: rate_hz // 8000].astype(float)
    assert np.corrcoef(heard, spoken)[0, 1] > 0.99


async def test_a_recording_is_streamed_as_the_desktop_client_does() -> None:
    """hello, then one chunk and one state of the capture after the other, then close."""
    meeting = Meeting(last_seq=7)
    speech = tone(2.25)
    async with (
        serving(meeting) as address,
        recorder.connect(address, session_id="m1", role="teacher") as client,
    ):
        done = await stream(client, speech, speed=0)
    assert meeting.paths == ["/v1/audio/ws/m1/teacher"]
    assert meeting.names() == [
        "hello",
        "capture_status",
        *["chunk", "capture_status"] * 3,
        "capture_status",
        "close",
    ]
    hello = meeting.frames[0]
    assert hello["capture_mode"] == "dual_stream" and hello["meeting_id"] == "m1"
    chunks = [frame for frame in meeting.frames if frame["type"] == "chunk"]
    assert [chunk["seq"] for chunk in chunks] == [8, 9, 10]
    assert [chunk.get("final") for chunk in chunks] == [None, None, True]
    assert b"".join(meeting.chunks.values()) == speech.pcm
    assert {chunk["stream_role"] for chunk in chunks} == {"teacher"}
    payloads = [frame["payload"] for frame in meeting.frames if frame["type"] == "capture_status"]
    echo = {"echo_suppressed_chunks": 0, "echo_suppression_recent_rate": 0.0}
    assert payloads[0] == {"capture_state": "running", **echo}
    assert payloads[-1] == {"capture_state": "idle", **echo}
    assert (done.first_seq, done.last_seq, done.missing_count) == (8, 10, 0)
    assert done.audio_s == pytest.approx(2.25)


async def test_a_chunk_is_sent_when_it_would_have_been_heard() -> None:
    meeting = Meeting()
    async with serving(meeting) as address:
        began_s = time.perf_counter()
        async with recorder.connect(address, role="students") as client:
            await stream(client, tone(3.0), speed=10)
        assert time.perf_counter() - began_s >= 0.3
    students = meeting.frames[1]["payload"]
    assert students == {
        "capture_state": "running",
        "recover_attempts": 0,
        "last_recover_at": None,
        "last_recover_error": None,
    }


async def test_what_the_gateway_refuses_ends_the_stream_in_its_words() -> None:
    meeting = Meeting()
    meeting.refused = {2: "the object store is full"}
    async with serving(meeting) as address, recorder.connect(address) as client:
        with pytest.raises(Refused, match="the object store is full"):
            await stream(client, tone(3.0), speed=0)


async def test_a_chunk_without_an_ack_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = Meeting()
    meeting.silent = {"chunk"}
    async with serving(meeting) as address, recorder.connect(address) as client:
        await client.chunk(bytes(CHUNK_BYTES))
        with pytest.raises(Unanswered, match="for an ack of each chunk"):
            await client.all_acked(within_s=0.1)


async def test_a_gateway_that_leaves_is_told() -> None:
    meeting = Meeting()
    meeting.close_code = 1011
    async with serving(meeting) as address:
        with pytest.raises(Disconnected, match="1011 recording-ended"):
            async with recorder.connect(address) as client:
                await stream(client, Speech(bytes(CHUNK_BYTES), RATE_HZ), speed=0)


async def test_acks_are_timed_one_by_one() -> None:
    meeting = Meeting()
    acks: list[int | None] = []

    def note(frame: recorder.ServerFrame) -> None:
        if frame.type == "ack":
            acks.append(frame.seq)

    async with serving(meeting) as address, recorder.connect(address, on_frame=note) as client:
        await asyncio.gather(*(client.chunk(bytes(CHUNK_BYTES)) for _ in range(4)))
        await client.all_acked()
        assert (acks, client.acks, client.pending) == ([1, 2, 3, 4], 4, {})
        assert 0 < client.slowest_ack_s < 5
