"""Clients ask whose voice a recording is: answers, voices that change meanwhile, bad answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from edge.errors import InferenceFailed
from edge.meeting.book import CAPTURES, PEOPLE, VOICES
from edge.meeting.inference import Audio
from edge.meeting.once import Once
from edge.meeting.people import Told, capture, tell
from edge.meeting.records import Person
from edge.meeting.resolve import Speakers
from tests.meeting.support.speaking import SESSION, Worker, recording, speaking
from tests.meeting.support.tones import HIGH_HZ, LOW_HZ, voice
from tests.meeting.support.utterances import said
from tests.meeting.support.waiting import until


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    async with speaking(tmp_path) as made:
        yield made


async def test_w3_voices_that_another_worker_changed_are_asked_about_again(
    worker: Worker,
) -> None:
    await worker.speak(voice(LOW_HZ, 2))
    other = Speakers(worker.book, worker.store, worker.objects, worker.inference)
    worker.service.open.clear()
    students = asyncio.create_task(worker.speakers.said(SESSION, said(1, 2, "one")))
    client = asyncio.create_task(other.resolve(SESSION, "mixed", recording(HIGH_HZ)))
    await until(lambda: worker.service.at_once == 2)
    worker.service.open.set()
    await asyncio.gather(students, client)
    assert await worker.clusters() == {"c1": 1, "c2": 1}
    assert len(worker.service.asked) == 3
    assert [len(asked["state"]["clusters"]) for asked in worker.service.asked] == [0, 0, 1]
    assert {event.cluster_id for event in await worker.events()} == {"c1", "c2"}


async def test_voices_that_change_during_every_call_are_given_up(worker: Worker) -> None:
    asked = worker.inference.resolve

    async def resolve_late(*args: Any) -> Any:
        answer = await asked(*args)
        other = await worker.book.look(SESSION, VOICES)
        changed = replace(other.value, bindings={"c9": f"name {other.version}"})
        await worker.book.write(SESSION, VOICES, changed, other.version)
        return answer

    worker.inference.resolve = resolve_late  # type: ignore[method-assign]
    with pytest.raises(InferenceFailed, match="changed during every call"):
        await worker.speakers.resolve(SESSION, "mixed", recording())
    assert len(worker.service.asked) == 3
    assert (await worker.book.read(SESSION, VOICES)).bindings == {"c9": "name 2"}
    assert await worker.events() == []


async def test_a_client_asks_about_a_recording(worker: Worker) -> None:
    running = partial(capture, role="teacher", payload={"capture_state": "running"})
    await worker.book.change(SESSION, CAPTURES, running)
    await worker.book.change(SESSION, PEOPLE, partial(tell, told=Told(interviewer_name="Bill")))
    body = recording(
        asr_text="My name is ann", roster=["Ann", {"name": " Bob ", "email": "b@x"}, 7]
    )
    answer = msgspec.to_builtins(await worker.speakers.resolve(SESSION, "teacher", body))
    state = answer.pop("updated_state")
    assert answer == {
        "session_id": "s",
        "cluster_id": "c1",
        "speaker_name": "Ann",
        "decision": "auto",
        "evidence": {
            "sv_score": 1.0,
            "threshold_low": 0.45,
            "threshold_high": 0.7,
            "segment_count": 1,
            "name_hit": "Ann",
            "roster_hit": True,
        },
    }
    assert state["bindings"] == {"c1": "Ann"}
    assert state["clusters"][0]["bound_name"] == "Ann"
    assert state["roster"] == ({"name": "Ann"}, {"name": "Bob", "email": "b@x"})
    assert state["config"] == {"interviewer_name": "Bill", "teams_interviewer_name": "Bill"}
    assert state["capture_by_stream"]["teacher"]["capture_state"] == "running"
    assert worker.service.asked[0]["state"]["roster"] == list(state["roster"])
    assert (await worker.book.read(SESSION, PEOPLE)).roster == (
        Person("Ann"),
        Person("Bob", "b@x"),
    )
    (event,) = await worker.events()
    assert (event.stream_role, event.utterance_id, event.speaker_name) == ("teacher", None, "Ann")


def told_by_service(**changes: Any) -> bytes:
    """A sound answer."""
    cluster = {"cluster_id": "c1", "centroid": [0.1], "sample_count": 1, "bound_name": "Bound"}
    answer = {
        "session_id": SESSION,
        "cluster_id": "c1",
        "speaker_name": None,
        "decision": "confirm",
        "evidence": None,
        "updated_state": {"clusters": [cluster], "bindings": {}, "roster": [], "config": {"a": 1}},
    }
    return json.dumps(answer | changes).encode()


@pytest.mark.parametrize(
    ("given", "bindings", "name"),
    [("Given", {"c1": "Kept"}, "Given"), (None, {"c1": "Kept"}, "Kept"), (None, {}, "Bound")],
)
async def test_a_name_that_is_not_given_is_that_of_the_cluster(
    worker: Worker, given: str | None, bindings: dict[str, str], name: str
) -> None:
    state = json.loads(told_by_service())["updated_state"] | {"bindings": bindings}
    body = told_by_service(speaker_name=given, updated_state=state)
    worker.service.fail(200, body)
    answer = await worker.speakers.resolve(SESSION, "mixed", recording())
    assert answer.speaker_name == name
    assert (await worker.events())[0].speaker_name == name


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"not JSON",
        told_by_service(updated_state=None),
        told_by_service(decision="maybe"),
        told_by_service(session_id="another"),
    ],
)
async def test_w30_a_bad_answer_changes_nothing(worker: Worker, body: bytes) -> None:
    await worker.speakers.resolve(SESSION, "mixed", recording(asr_text="My name is ann"))
    told = Told(interviewer_name="Bill", teams_participants=["Cy"])
    await worker.book.change(SESSION, PEOPLE, partial(tell, told=told))
    before = [await worker.store.records(SESSION, "meeting"), await worker.events()]
    for _ in range(3):
        worker.service.fail(200, body)
    with pytest.raises(InferenceFailed, match="cannot be used"):
        await worker.speakers.resolve(SESSION, "mixed", recording(roster=["Dee"]))
    assert [await worker.store.records(SESSION, "meeting"), await worker.events()] == before


async def test_the_service_owns_voices_only(worker: Worker) -> None:
    told = Told(interviewer_name="Bill", teams_participants=["Cy"])
    await worker.book.change(SESSION, PEOPLE, partial(tell, told=told))
    before = await worker.book.read(SESSION, PEOPLE)
    worker.service.fail(200, told_by_service())
    await worker.speakers.resolve(SESSION, "mixed", recording())
    assert await worker.book.read(SESSION, PEOPLE) == before


async def test_w28_two_clients_at_once_with_one_key_ask_once(worker: Worker) -> None:
    once, body = Once(worker.store), recording()

    async def act() -> bytes:
        return msgspec.json.encode(await worker.speakers.resolve(SESSION, "mixed", body))

    answers = await asyncio.gather(
        *(once.do(SESSION, "mixed:k", b"the body", act) for _ in range(3))
    )
    assert len({answer for answer, _ in answers}) == 1
    assert sorted(is_replay for _, is_replay in answers) == [False, True, True]
    assert len(worker.service.asked) == len(await worker.events()) == 1


async def test_w28_a_failure_is_not_kept(worker: Worker) -> None:
    once, body = Once(worker.store), recording()

    async def act() -> bytes:
        return msgspec.json.encode(await worker.speakers.resolve(SESSION, "mixed", body))

    worker.service.fail(400)
    with pytest.raises(InferenceFailed):
        await once.do(SESSION, "mixed:k", b"the body", act)
    _, is_replay = await once.do(SESSION, "mixed:k", b"the body", act)
    assert not is_replay
    assert len(await worker.events()) == 1


def test_a_recording_needs_its_content_and_its_format() -> None:
    for audio in ({}, {"content_b64": "", "format": "wav"}, {"content_b64": "AA", "format": ""}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(audio, Audio)
