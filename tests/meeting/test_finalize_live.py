"""A gateway's meeting while its clients are connected: finalized, gone on with, reset, deleted."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Iterator
from typing import Any

import pytest

from edge.demo.recorder import Recorder, Role, connect
from edge.demo.rest import Meeting
from edge.meeting.records import CHUNK_BYTES
from tests.asr.support.embedded import requires_embedded, speech
from tests.support.server import Server, running

pytestmark = requires_embedded

ROLES: tuple[Role, Role] = ("teacher", "students")
LAST_OF_FIRST = 10
"""It ends amid a word of the reader, without the pause that would end a sentence."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("--workers", "2", "--set", "providers_priority=embedded") as started:
        yield started


async def send(recorder: Recorder, first: int, last: int) -> None:
    """Seconds of the reader, as fast as they are taken."""
    pcm, _ = speech("two_cities")
    for seq in range(first, last + 1):
        await recorder.chunk(pcm[(seq - 1) * CHUNK_BYTES : seq * CHUNK_BYTES])
    await recorder.all_acked()


def text_of(utterances: list[dict[str, Any]]) -> str:
    return " ".join(each["text"] for each in utterances).lower()


async def test_w33_the_first_result_has_the_last_words_and_the_next_has_what_follows(
    server: Server,
) -> None:
    """The sockets stay open all the time, on whichever workers they are."""
    address = f"127.0.0.1:{server.port}"
    meeting = Meeting(f"http://{address}", "goes on")
    async with (
        connect(address, session_id="goes on", role="teacher") as teacher,
        connect(address, session_id="goes on", role="students") as students,
    ):
        await asyncio.gather(*(send(each, 1, LAST_OF_FIRST) for each in (teacher, students)))
        answer = await asyncio.to_thread(meeting.finalize)
        first = await asyncio.to_thread(meeting.result, dict[str, Any])
        assert await asyncio.to_thread(meeting.finalize) == answer, "nothing is new"
        await asyncio.gather(*(send(each, 11, 20) for each in (teacher, students)))
        await asyncio.to_thread(meeting.finalize)
        second = await asyncio.to_thread(meeting.result, dict[str, Any])
        teacher.check()
        students.check()
    for role in ROLES:
        before = first["utterances_raw_by_stream"][role]
        after = second["utterances_raw_by_stream"][role]
        assert before[-1]["end_seq"] == LAST_OF_FIRST
        assert after[: len(before)] == before
        assert after[-1]["end_seq"] == 20
        assert all(each["start_ms"] < each["end_ms"] <= 20_000 for each in after)
        assert [each["start_ms"] for each in after] == sorted(each["start_ms"] for each in after)
        said = text_of(after)
        for words in ("best of times", "age of wisdom", "the epoch of", "season of light"):
            assert words in said
        assert second["asr_by_stream"][role]["utterance_count"] == len(after)
    events = [event["utterance_id"] for event in first["events"]]
    assert [each["utterance_id"] for each in first["utterances_raw_by_stream"]["teacher"]] == [
        each for each in events if "-teacher-" in each
    ], "the teacher's last words have their speaker, too"


async def test_a_reset_while_a_client_is_connected_forgets_what_it_said_and_windows_say_it_again(
    server: Server,
) -> None:
    address = f"127.0.0.1:{server.port}"
    meeting = Meeting(f"http://{address}", "reset")
    async with connect(address, session_id="reset", role="students") as recorder:
        await send(recorder, 1, LAST_OF_FIRST)
        await asyncio.to_thread(meeting.reset_recognition, "students")
        state = await asyncio.to_thread(meeting.state)
        assert state.utterance_count_by_stream["students"] == 0
        assert state.stored("students").last_seq == LAST_OF_FIRST
        run = await asyncio.to_thread(meeting.run_windows, "students")
        assert (run.generated, run.last_window_end_seq) == (1, LAST_OF_FIRST)
        await send(recorder, 11, 20)
        await asyncio.to_thread(meeting.finalize)
        said = (await asyncio.to_thread(meeting.utterances, "students")).items
    assert (said[0].start_seq, said[0].end_seq) == (1, LAST_OF_FIRST)
    assert "best of times" in said[0].text.lower()
    assert len(said) > 1 and said[-1].end_seq == 20


async def test_a_session_that_is_deleted_takes_its_objects_along(server: Server) -> None:
    address = f"127.0.0.1:{server.port}"
    async with connect(address, session_id="deleted", role="teacher") as recorder:
        await send(recorder, 1, 2)
        await recorder.close()
    await asyncio.to_thread(Meeting(f"http://{address}", "deleted").finalize)
    folder = server.data_dir / "objects" / "sessions" / "deleted"
    assert len(list(folder.rglob("*.*"))) == 3
    client = http.client.HTTPConnection("127.0.0.1", server.port)
    client.request("DELETE", "/v1/sessions/deleted")
    assert client.getresponse().status == 204
    client.close()
    assert not folder.exists()
