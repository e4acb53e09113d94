"""Who said what: the teacher by name, students by voice; nothing waits for it, nothing is lost."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from edge.errors import StoreUnavailable
from edge.meeting.book import CAPTURES, PEOPLE
from edge.meeting.inference import Inference
from edge.meeting.keys import chunk_key
from edge.meeting.people import Told, capture, tell
from edge.meeting.records import CHUNK_BYTES, Person, Role
from edge.meeting.resolve import MOST_PENDING, Speakers
from edge.meeting.settings import MeetingSettings
from edge.meeting.wav import wav
from edge.session.store.interface import Draft, Record
from tests.meeting.support.speaking import SESSION, Worker, recording, speaking, teacher_says
from tests.meeting.support.tones import HIGH_HZ, LOW_HZ, voice
from tests.meeting.support.utterances import said
from tests.meeting.support.waiting import until


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    async with speaking(tmp_path) as made:
        yield made


async def test_the_teacher_is_known_directly(worker: Worker) -> None:
    await worker.speakers.said(SESSION, teacher_says("Hello, I'm Ann."))
    (event,) = await worker.events()
    assert msgspec.to_builtins(replace(event, ts="now")) == {
        "ts": "now",
        "stream_role": "teacher",
        "source": "teacher_direct",
        "identity_source": "name_extract",
        "utterance_id": "s-students-00000002-0",
        "cluster_id": "teacher",
        "speaker_name": "Ann",
        "decision": "auto",
        "evidence": None,
        "note": "the teacher's stream of session s",
    }
    assert worker.service.answered.total() == 0


async def test_w36_the_only_candidate_of_the_roster_is_not_the_teacher(worker: Worker) -> None:
    told = Told(teams_participants=["Candidate"])
    await worker.book.change(SESSION, PEOPLE, partial(tell, told=told))
    await worker.speakers.said(SESSION, teacher_says("I am happy to be here", 0))
    told = Told(teams_participants=["Candidate", "Bill"], interviewer_name="bill")
    await worker.book.change(SESSION, PEOPLE, partial(tell, told=told))
    await worker.speakers.said(SESSION, teacher_says("Let us begin", 1))
    found = [(event.speaker_name, event.identity_source) for event in await worker.events()]
    assert found == [("teacher", "teacher"), ("Bill", "teams_participants")]


async def test_students_are_told_apart_by_voice(worker: Worker) -> None:
    await worker.speak(voice(LOW_HZ, 2) + voice(HIGH_HZ, 2) + voice(LOW_HZ, 2, seed=1))
    await worker.speakers.said(SESSION, said(1, 2, "Hello, my name is ann lee.", 0))
    await worker.speakers.said(SESSION, said(3, 4, "hello", 1))
    await worker.speakers.said(SESSION, said(5, 6, "hello again", 2))
    events = await worker.events("students")
    assert [(each.cluster_id, each.speaker_name, each.decision) for each in events] == [
        ("c1", "Ann Lee", "auto"),
        ("c2", None, "unknown"),
        ("c1", "Ann Lee", "auto"),
    ]
    assert [each.utterance_id for each in events] == [
        "s-students-00000002-0",
        "s-students-00000004-1",
        "s-students-00000006-2",
    ]
    assert {each.source for each in events} == {"inference_resolve"}
    assert {each.identity_source for each in events} == {"inference_resolve"}
    assert events[2].evidence is not None
    assert events[2].evidence.sv_score > 0.7
    assert await worker.clusters() == {"c1": 2, "c2": 1}


async def test_the_service_hears_the_chunks_of_the_utterance(worker: Worker) -> None:
    pcm = voice(LOW_HZ, 40)
    await worker.speak(pcm)
    await worker.speakers.said(SESSION, said(3, 5, "x" * 5000, 0))
    await worker.speakers.said(SESSION, said(2, 40, "hi", 1))
    heard = [base64.b64decode(asked["audio"]["content_b64"]) for asked in worker.service.asked]
    assert heard[0] == wav(pcm[2 * CHUNK_BYTES : 5 * CHUNK_BYTES])
    assert heard[1] == wav(pcm[CHUNK_BYTES : 31 * CHUNK_BYTES]), "30 s is all it takes"
    assert worker.service.asked[0]["audio"] | {"content_b64": ""} == {
        "content_b64": "",
        "format": "wav",
        "sample_rate": 16000,
        "channels": 1,
    }
    assert len(worker.service.asked[0]["asr_text"]) == 4000
    assert [each.cluster_id for each in await worker.events()] == ["c1", "c1"]


async def test_w21_a_missing_chunk_is_silence(worker: Worker) -> None:
    pcm = voice(LOW_HZ, 3)
    await worker.speak(pcm, without=[2])
    await worker.objects.remove([chunk_key(SESSION, "students", 3)])
    await worker.speakers.said(SESSION, said(1, 3, "hello", 0))
    (asked,) = worker.service.asked
    assert base64.b64decode(asked["audio"]["content_b64"]) == wav(
        pcm[:CHUNK_BYTES] + bytes(2 * CHUNK_BYTES)
    )
    (event,) = await worker.events()
    assert event.cluster_id == "c1"


async def test_w21_an_utterance_of_which_nothing_is_stored_has_no_speaker(worker: Worker) -> None:
    await worker.speakers.said(SESSION, said(1, 3, "hello", 0))
    (event,) = await worker.events()
    assert (event.decision, event.cluster_id) == ("unknown", None)
    assert event.note == "the speaker is not known: none of its audio is stored"
    assert worker.service.asked == []


async def test_a_failure_is_told_and_changes_nothing(worker: Worker) -> None:
    await worker.speak(voice(LOW_HZ, 2))
    worker.service.fail(400)
    await worker.speakers.said(SESSION, said(1, 2, "hello", 0))
    (event,) = await worker.events()
    assert msgspec.to_builtins(replace(event, ts="now")) == {
        "ts": "now",
        "stream_role": "students",
        "source": "inference_resolve",
        "identity_source": "inference_resolve",
        "utterance_id": "s-students-00000002-0",
        "cluster_id": None,
        "speaker_name": None,
        "decision": "unknown",
        "evidence": None,
        "note": "the speaker is not known: The inference service answered 400",
    }
    assert await worker.clusters() == {}


@pytest.mark.parametrize("role", ["mixed", "teacher", "students"])
async def test_nobody_says_a_blank(worker: Worker, role: Role) -> None:
    await worker.speakers.said(SESSION, replace(said(1, 2, " \n"), stream_role=role))
    await worker.speakers.said(SESSION, replace(said(1, 2, "hi"), stream_role="mixed"))
    assert await worker.events() == []
    assert await worker.store.head(SESSION) is None


async def test_w1_a_service_that_hangs_holds_up_nothing_but_its_own_answer(worker: Worker) -> None:
    await worker.speak(voice(LOW_HZ, 2))
    worker.service.open.clear()
    students = asyncio.create_task(worker.speakers.said(SESSION, said(1, 2, "hello")))
    client = asyncio.create_task(worker.speakers.resolve(SESSION, "mixed", recording()))
    await until(lambda: worker.service.at_once == 2)
    async with asyncio.timeout(1):
        await worker.speakers.said(SESSION, teacher_says("hello"))
        await worker.speak(voice(LOW_HZ, 1), role="teacher")
        await worker.book.change(SESSION, PEOPLE, partial(tell, told=Told(interviewer_name="Bo")))
    assert [event.stream_role for event in await worker.events()] == ["teacher"]
    assert not students.done()
    worker.service.open.set()
    await asyncio.gather(students, client)
    assert len(await worker.events()) == 3


async def test_w3_what_others_change_during_a_call_stays(worker: Worker) -> None:
    await worker.speak(voice(LOW_HZ, 2))
    worker.service.open.clear()
    students = asyncio.create_task(worker.speakers.said(SESSION, said(1, 2, "I'm ann")))
    await until(lambda: worker.service.at_once)
    told = Told(interviewer_name="Bill", teams_participants=["Cy"])
    await worker.book.change(SESSION, PEOPLE, partial(tell, told=told))
    running = partial(capture, role="teacher", payload={"capture_state": "running"})
    await worker.book.change(SESSION, CAPTURES, running)
    worker.service.open.set()
    await students
    people = await worker.book.read(SESSION, PEOPLE)
    assert people.config == {"interviewer_name": "Bill", "teams_interviewer_name": "Bill"}
    assert people.roster == (Person("Cy"),)
    assert (await worker.book.read(SESSION, CAPTURES)).teacher.capture_state == "running"
    assert await worker.clusters() == {"c1": 1}


async def test_w3_two_quick_sentences_make_two_voices(worker: Worker) -> None:
    await worker.speak(voice(LOW_HZ, 2) + voice(HIGH_HZ, 2))
    await asyncio.gather(
        worker.speakers.said(SESSION, said(1, 2, "one", 0)),
        worker.speakers.said(SESSION, said(3, 4, "two", 1)),
    )
    assert await worker.clusters() == {"c1": 1, "c2": 1}
    assert [event.cluster_id for event in await worker.events()] == ["c1", "c2"]


async def test_w37_a_busy_service_makes_no_unknown_speakers(worker: Worker) -> None:
    worker.service.per_window, worker.service.window_s = 2, 0.5
    await worker.speak(voice(LOW_HZ, 6))
    await asyncio.gather(
        *(worker.speakers.said(SESSION, said(seq, seq, "hi", seq)) for seq in range(1, 7))
    )
    assert [event.cluster_id for event in await worker.events()] == ["c1"] * 6
    assert worker.service.answered[429] > 0


async def test_utterances_beyond_what_may_wait_get_no_speaker(worker: Worker) -> None:
    await worker.speak(voice(LOW_HZ, 1))
    worker.service.open.clear()
    waiting = [
        asyncio.create_task(worker.speakers.said(SESSION, said(1, 1, "hi", number % 1000)))
        for number in range(MOST_PENDING)
    ]
    await until(lambda: worker.service.at_once)
    async with asyncio.timeout(2):
        await worker.speakers.said(SESSION, said(1, 1, "hi", 999))
    (event,) = await worker.events()
    assert event.note == "the speaker is not known: too many utterances wait for theirs"
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    worker.service.open.set()
    await worker.speakers.said(SESSION, said(1, 1, "hi", 1))
    assert len(await worker.events()) == 2


@pytest.mark.parametrize("was_done", [True, False])
async def test_an_event_is_logged_once_when_the_stores_answer_is_lost(
    worker: Worker, was_done: bool
) -> None:
    note = worker.store.note

    async def lose(session: str, drafts: Sequence[Draft]) -> int:
        worker.store.note = note  # type: ignore[method-assign]
        if was_done:
            await note(session, drafts)
        raise StoreUnavailable("no answer")

    worker.store.note = lose  # type: ignore[method-assign]
    await worker.speakers.said(SESSION, teacher_says("Hello"))
    assert len(await worker.events()) == 1


@pytest.mark.parametrize("role", ["teacher", "students"])
async def test_a_store_that_is_away_for_a_moment_loses_no_event(worker: Worker, role: Role) -> None:
    await worker.speak(voice(LOW_HZ, 2))
    get, failures = worker.store.get, [1, 2, 3]

    async def fail(scope: str, family: str, key: str) -> Record | None:
        if failures:
            failures.pop()
            raise StoreUnavailable("no answer")
        return await get(scope, family, key)

    worker.store.get = fail  # type: ignore[method-assign]
    await worker.speakers.said(SESSION, replace(said(1, 2, "Hello"), stream_role=role))
    (event,) = await worker.events()
    assert event.cluster_id is not None


async def test_a_deleted_session_gets_no_events(worker: Worker) -> None:
    await worker.speak(voice(LOW_HZ, 1))
    worker.service.open.clear()
    students = asyncio.create_task(worker.speakers.said(SESSION, said(1, 1, "hi")))
    await until(lambda: worker.service.at_once)
    await worker.store.delete(SESSION)
    worker.service.open.set()
    await students
    assert await worker.store.head(SESSION) is None


async def test_without_a_service_students_have_no_names(worker: Worker) -> None:
    await worker.speak(voice(LOW_HZ, 1))
    speakers = Speakers(worker.book, worker.store, worker.objects, Inference(MeetingSettings()))
    await speakers.said(SESSION, said(1, 1, "hi"))
    (event,) = await worker.events()
    assert event.decision == "unknown"
    assert event.note is not None
    assert "INFERENCE_BASE_URL" in event.note
