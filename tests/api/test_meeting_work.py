"""What is done for a meeting over HTTP: voices, windows, the end, its audio, its removal."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import wave
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from edge.meeting.book import INGEST, Book
from edge.meeting.keys import chunk_key, result_key
from edge.meeting.records import CHUNK_BYTES, Ingest, Role
from edge.meeting.wav import wav
from edge.objects.files import FileStore
from edge.objects.interface import ObjectStore
from edge.session.store.interface import SessionStore
from edge.session.store.opening import open_store
from tests.meeting.support.service import VoiceService
from tests.meeting.support.tones import HIGH_HZ, LOW_HZ, voice
from tests.support.server import Answer, Server, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

WITHIN_S = 20.0


class World(NamedTuple):
    """A gateway, the service that it asks, and what it keeps."""

    server: Server
    service: VoiceService
    store: SessionStore
    objects: ObjectStore


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    database = tmp_path_factory.mktemp("store") / "sessions.db"
    options = [
        *("--set", "enable_dummy_provider=true", "--set", "providers_priority=dummy"),
        *("--set", f"store={database}"),
    ]
    async with VoiceService(per_window=1000) as service:
        options += ["--set", f"inference_base_url={service.url}"]
        with running("--workers", "2", *options) as server:
            objects = FileStore(server.data_dir / "objects")
            async with open_store(str(database)) as store, objects:
                yield World(server, service, store, objects)


async def ask(
    world: World, method: str, target: str, body: bytes | None = None, **headers: str
) -> tuple[Answer, Any]:
    """Its answer, and that as JSON."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await asyncio.to_thread(
        world.server.get,
        f"/v1/sessions/{target}",
        method,
        body=body,
        headers=sent,
        timeout_s=WITHIN_S,
    )
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    return answer, json.loads(answer.body) if is_json else None


def recording(pitch_hz: float, text: str | None = None, **more: object) -> bytes:
    """The body of a question for a voice."""
    content = base64.b64encode(wav(voice(pitch_hz))).decode()
    audio = {"content_b64": content, "format": "wav"}
    return json.dumps({"audio": audio, "asr_text": text, **more}).encode()


async def speak(world: World, session: str, role: Role, chunks: int, missing: int = 0) -> None:
    """Store chunks, but for one."""
    for seq in range(1, chunks + 1):
        if seq != missing:
            body = bytes([seq % 256]) * CHUNK_BYTES
            await world.objects.put(chunk_key(session, role, seq), body)
    ingest = Ingest(
        last_seq=chunks,
        received_chunks=chunks - bool(missing),
        missing=((missing, missing),) if missing else (),
    )
    await Book(world.store).change(session, INGEST[role], lambda _: ingest)


async def test_a_voice_is_asked_for_and_remembered(world: World) -> None:
    body = recording(LOW_HZ, "my name is Alice", roster=[{"name": "Alice", "email": "a@x"}, ""])
    answer, said = await ask(world, "POST", "voices/resolve?stream_role=students", body)
    assert answer.status == 200, said
    assert set(said) == {
        "session_id",
        "cluster_id",
        "speaker_name",
        "decision",
        "evidence",
        "updated_state",
    }
    assert (said["session_id"], said["speaker_name"], said["decision"]) == (
        "voices",
        "Alice",
        "auto",
    )
    _, state = await ask(world, "GET", "voices/state")
    assert state["state"] == said["updated_state"]
    assert state["state"]["bindings"] == {said["cluster_id"]: "Alice"}
    assert state["state"]["roster"] == [{"name": "Alice", "email": "a@x"}]
    _, again = await ask(world, "POST", "voices/resolve", recording(LOW_HZ))
    assert (again["cluster_id"], again["speaker_name"]) == (said["cluster_id"], "Alice")
    _, events = await ask(world, "GET", "voices/events")
    assert [(e["stream_role"], e["utterance_id"], e["speaker_name"]) for e in events["items"]] == [
        ("students", None, "Alice"),
        ("mixed", None, "Alice"),
    ]


async def test_w28_a_key_is_answered_once(world: World) -> None:
    body, key = recording(HIGH_HZ), {"x_idempotency_key": "k 1"}
    asked = len(world.service.asked)
    first, _ = await ask(world, "POST", "keys/resolve", body, **key)
    again, _ = await ask(world, "POST", "keys/resolve", body, **key)
    assert (first.status, again.body) == (200, first.body)
    assert "x-idempotent-replay" not in first.headers
    assert again.headers["x-idempotent-replay"] == "true"
    assert len(world.service.asked) == asked + 1
    other, said = await ask(world, "POST", "keys/resolve", recording(LOW_HZ), **key)
    assert (other.status, said["code"]) == (409, "key_used")
    role, _ = await ask(world, "POST", "keys/resolve?stream_role=teacher", body, **key)
    assert role.status == 200 and "x-idempotent-replay" not in role.headers
    _, events = await ask(world, "GET", "keys/events")
    assert events["count"] == 2


async def test_w28_two_at_once_with_a_key_are_done_once(world: World) -> None:
    body, key = recording(HIGH_HZ), {"x_idempotency_key": "both"}
    both = await asyncio.gather(*(ask(world, "POST", "both/resolve", body, **key) for _ in "12"))
    assert [answer.status for answer, _ in both] == [200, 200]
    assert both[0][0].body == both[1][0].body
    assert (await ask(world, "GET", "both/events"))[1]["count"] == 1


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b"{}",
        b'{"audio":null}',
        b'{"audio":{"format":"wav"}}',
        b'{"audio":{"content_b64":"AAAA"}}',
        b'{"audio":{"content_b64":"","format":"wav"}}',
        b'{"audio":{"content_b64":"AAAA","format":5}}',
    ],
)
async def test_a_question_without_a_recording_is_refused(world: World, body: bytes) -> None:
    answer, said = await ask(world, "POST", "unasked/resolve", body)
    assert (answer.status, said["code"]) == (400, "bad_body")
    assert await world.store.detail("unasked") is None


async def test_w30_a_service_that_fails_changes_nothing(world: World) -> None:
    _, before = await ask(world, "POST", "failing/config", b'{"interviewer_name":"Bill"}')
    key = {"x_idempotency_key": "k"}
    for status, body in ((401, b"{}"), (200, b"{}"), (200, b"no"), (422, b'{"detail":"x"}')):
        world.service.fail(status, body)
        answer, said = await ask(world, "POST", "failing/resolve", recording(LOW_HZ), **key)
        assert (answer.status, said["code"]) == (502, "inference_failed")
    _, state = await ask(world, "GET", "failing/state")
    assert (state["state"]["config"], state["event_count"]) == (before["config"], 0)
    assert state["state"]["clusters"] == []
    answer, _ = await ask(world, "POST", "failing/resolve", recording(LOW_HZ), **key)
    assert answer.status == 200, "a failure leaves the key free"


async def test_w1_a_service_that_does_not_answer_holds_nobody_else_up(world: World) -> None:
    world.service.open.clear()
    asked = len(world.service.asked)
    held = asyncio.create_task(ask(world, "POST", "held/resolve", recording(LOW_HZ)))
    try:
        async with asyncio.timeout(5):
            while len(world.service.asked) == asked:
                await asyncio.sleep(0.01)
            answer, _ = await ask(world, "POST", "held/config", b'{"interviewer_name":"Bill"}')
            assert answer.status == 200
    finally:
        world.service.open.set()
    answer, said = await held
    assert answer.status == 200
    assert said["updated_state"]["config"]["interviewer_name"] == "Bill", "w3: nothing is undone"


async def test_a_recording_may_be_large_and_no_larger(world: World) -> None:
    body = b"{" + b" " * (8 * 1024 * 1024 - 1) + b"}"
    try:
        answer, said = await ask(world, "POST", "large/resolve", body)
    except ConnectionError:
        return  # told while it was still sending
    assert (answer.status, said["code"]) == (413, "too_large")


async def test_windows_are_run_and_forgotten(world: World) -> None:
    await speak(world, "windows", "teacher", 12, missing=3)
    answer, said = await ask(
        world, "POST", "windows/asr-run?stream_role=teacher&max_windows=1", b"not looked at"
    )
    assert answer.status == 200, said
    assert {**said, "last_window_latency_ms": 0, "avg_window_latency_ms": 0, "avg_rtf": 0} == {
        "session_id": "windows",
        "stream_role": "teacher",
        "generated": 1,
        "last_window_end_seq": 10,
        "utterance_count": 1,
        "total_windows_processed": 1,
        "total_audio_seconds_processed": 10,
        "last_window_latency_ms": 0,
        "avg_window_latency_ms": 0,
        "avg_rtf": 0,
        "last_error": None,
        "missing_seqs": [3],
    }
    _, said = await ask(world, "POST", "windows/asr-run?stream_role=teacher&max_windows=2.5")
    assert (said["generated"], said["last_window_end_seq"]) == (1, 12), "w24: the tail, too"
    _, state = await ask(world, "GET", "windows/state")
    assert state["asr_by_stream"]["teacher"]["total_windows_processed"] == 2
    answer, said = await ask(world, "POST", "windows/asr-reset?stream_role=teacher", b"{}")
    message = said.pop("message")
    assert answer.status == 200 and message
    assert said == {
        "session_id": "windows",
        "stream_role": "teacher",
        "removed_raw": 2,
        "removed_merged": 0,
        "removed_events": 0,
    }
    _, state = await ask(world, "GET", "windows/state")
    assert state["asr_by_stream"]["teacher"]["last_window_end_seq"] == 0
    assert state["ingest_by_stream"]["teacher"]["last_seq"] == 12


async def test_a_role_without_audio_has_no_windows(world: World) -> None:
    answer, said = await ask(world, "POST", "silent/asr-run")
    assert (answer.status, said["stream_role"], said["generated"]) == (200, "mixed", 0)
    answer, said = await ask(world, "POST", "silent/asr-reset")
    assert (answer.status, said["removed_raw"]) == (200, 0)
    for work in ("asr-run", "asr-reset", "resolve"):
        target = f"silent/{work}?stream_role=nobody"
        answer, said = await ask(world, "POST", target, recording(LOW_HZ))
        assert (answer.status, said["code"]) == (400, "bad_query"), work


async def test_finalizing_writes_the_result(world: World) -> None:
    assert (await ask(world, "GET", "ended/result"))[0].status == 404
    await speak(world, "ended", "students", 10)
    await ask(world, "POST", "ended/asr-run?stream_role=students")
    await ask(world, "POST", "ended/config", b'{"interviewer_name":"Bill"}')
    body = '{"metadata":{"room":"三"}}'.encode()
    answer, said = await ask(world, "POST", "ended/finalize", body)
    finalized_at = said["finalized_at"]
    assert answer.status == 200
    assert said == {
        "session_id": "ended",
        "result_key": "sessions/ended/result.json",
        "event_count": 0,
        "finalized_at": finalized_at,
    }
    answer, result = await ask(world, "GET", "ended/result")
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.body == await world.objects.get(result_key("ended"))
    assert set(result) == {
        "session_id",
        "finalized_at",
        "state",
        "events",
        "ingest",
        "ingest_by_stream",
        "capture_by_stream",
        "asr",
        "asr_by_stream",
        "utterances_raw",
        "utterances_raw_by_stream",
        "utterances_merged_by_stream",
        "missing_seqs",
        "metadata",
    }
    assert (result["metadata"], result["finalized_at"]) == ({"room": "三"}, finalized_at)
    assert len(result["utterances_raw_by_stream"]["students"]) == 1
    _, again = await ask(world, "POST", "ended/finalize", body)
    assert again["finalized_at"] == finalized_at, "w33: nothing is new"


@pytest.mark.parametrize("body", [b"null", b"", b"5", b"{"])
async def test_w34_finalizing_needs_an_object(world: World, body: bytes) -> None:
    answer, said = await ask(world, "POST", "unended/finalize", body)
    assert (answer.status, said["code"]) == (400, "bad_body")
    assert await world.store.detail("unended") is None


@pytest.mark.parametrize(
    ("body", "metadata"),
    [
        (b"{}", {}),
        (b"[]", {}),
        (b'{"metadata":null}', {}),
        (b'{"metadata":[1,"x"]}', [1, "x"]),
        (b'{"metadata":5}', 5),
        (b'\xef\xbb\xbf{"metadata":"\xef\xbb\xbf"}', "\ufeff"),
    ],
)
async def test_metadata_is_any_json(world: World, body: bytes, metadata: object) -> None:
    answer, _ = await ask(world, "POST", "metadata/finalize", body)
    assert answer.status == 200
    assert (await ask(world, "GET", "metadata/result"))[1]["metadata"] == metadata


async def test_no_depth_of_metadata_is_an_error_of_the_gateway(world: World) -> None:
    for depth in range(900, 1010):
        body = b'{"metadata":' + b"[" * depth + b"]" * depth + b"}"
        answer, _ = await ask(world, "POST", "deep/finalize", body)
        assert answer.status in (200, 400), depth


async def test_stored_audio_is_a_wav_file(world: World) -> None:
    await speak(world, "面试 1", "teacher", 12, missing=3)
    path = "%E9%9D%A2%E8%AF%95%201/audio?stream_role=TEACHER"
    for target, first, last in (
        (path, 1, 12),
        (f"{path}&from_seq=2&to_seq=4", 2, 4),
        (f"{path}&from_seq=0&to_seq=99", 1, 12),
        (f"{path}&from_seq=12", 12, 12),
    ):
        answer, _ = await ask(world, "GET", target)
        assert (answer.status, answer.headers["content-type"]) == (200, "audio/wav")
        assert answer.headers["content-length"] == str(len(answer.body))
        with wave.open(io.BytesIO(answer.body)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
            pcm = file.readframes(file.getnframes())
        heard = [0 if seq == 3 else seq for seq in range(first, last + 1)]
        assert pcm == b"".join(bytes([each]) * CHUNK_BYTES for each in heard), "w21: silence"
    for nothing in ("&from_seq=13", "&from_seq=3&to_seq=3", "&from_seq=5&to_seq=4"):
        answer, said = await ask(world, "GET", path + nothing)
        assert (answer.status, said["code"]) == (404, "no_audio")
    for what in ("audio", "result"):
        assert (await ask(world, "GET", f"nobody/{what}"))[0].status == 404
    assert await world.store.detail("nobody") is None, "w27: asking creates nothing"
    head, _ = await ask(world, "HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(44 + 12 * CHUNK_BYTES)


async def test_a_deleted_meeting_leaves_no_objects(world: World) -> None:
    await speak(world, "removed", "mixed", 3)
    await ask(world, "POST", "removed/finalize", b"{}")
    assert len(await world.objects.find("sessions/removed/")) == 4
    assert (await ask(world, "DELETE", "removed"))[0].status == 204
    assert await world.objects.find("sessions/removed/") == []
    assert (await ask(world, "GET", "removed/result"))[0].status == 404
    assert (await ask(world, "DELETE", "removed"))[0].status == 404


async def test_a_worker_that_stops_tells_those_who_wait_to_ask_again(world: World) -> None:
    asked = len(world.service.asked)
    world.service.open.clear()
    options = ("--set", f"inference_base_url={world.service.url}")
    with running("--workers", "1", *options) as server:
        other = world._replace(server=server)
        held = asyncio.create_task(ask(other, "POST", "held/resolve", recording(LOW_HZ)))
        async with asyncio.timeout(10):
            while len(world.service.asked) == asked:
                await asyncio.sleep(0.01)
        server.process.terminate()
        answer, said = await held
        world.service.open.set()
        assert (answer.status, said["code"]) == (503, "stopping")
        assert answer.headers["retry-after"] == "1"
        assert await asyncio.to_thread(server.process.wait, 20) == 0
        assert "Traceback" not in server.log


async def test_nothing_of_all_this_is_an_error_of_the_gateway(world: World) -> None:
    assert "Traceback" not in world.server.log and "[error" not in world.server.log
