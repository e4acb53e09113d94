"""Meetings over HTTP at a running gateway, beside another writer of its store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.meeting.book import CAPTURES, INGEST, Book
from edge.meeting.people import capture
from edge.meeting.records import ROLES, Ingest, Role, SpeakerSaid, iso
from edge.session.entries import FinalEntry, ResetEntry, SpeakerEntry, encode_entry
from edge.session.store.interface import Draft, SessionStore
from edge.session.store.opening import open_store
from tests.support.server import Answer, Server, running

OPENED = "/v1/sessions/interview"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "sessions.db"


@pytest.fixture(scope="module")
def server(database: Path) -> Iterator[Server]:
    dummy = ("--set", "enable_dummy_provider=true")
    with running("--workers", "2", "--set", f"store={database}", *dummy) as server:
        yield server


@pytest.fixture
async def store(server: Server, database: Path) -> AsyncIterator[SessionStore]:
    async with open_store(str(database)) as opened:
        yield opened


async def get(server: Server, target: str) -> dict[str, Any]:
    answer = await asyncio.to_thread(server.get, target)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    found: dict[str, Any] = json.loads(answer.body)
    return found


async def post(server: Server, target: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
    answer: Answer = await asyncio.to_thread(server.get, target, "POST", body=body)
    return answer.status, json.loads(answer.body)


async def configure(server: Server, session: str, body: object) -> dict[str, Any]:
    text = msgspec.json.encode(body)
    status, answer = await post(server, f"/v1/sessions/{session}/config", text)
    assert status == 200, answer
    return answer


def final(role: str, number: int, text: str) -> Draft:
    entry = FinalEntry(
        speaker=role,
        turn=number,
        text=text,
        start_ms=number * 3000,
        end_ms=number * 3000 + 2500,
        timestamp_unix_ms=1_770_811_454_091 + number,
        item_id=str(number),
        provider="dummy",
        latency_ms=120,
        model="m",
    )
    return Draft("final", encode_entry(entry))


async def say(
    store: SessionStore, session: str, role: str, *texts: str, track: str | None = None
) -> None:
    grant = await store.open_track(session, track or role)
    drafts = [final(role, number, text) for number, text in enumerate(texts)]
    for first in range(0, len(drafts), 1000):
        await store.append(grant, drafts[first : first + 1000])


async def recognize(store: SessionStore, session: str, role: Role, *names: str) -> None:
    drafts = []
    for name in names:
        said = SpeakerSaid(
            ts="2026-02-11T12:00:00.000Z",
            stream_role=role,
            source="teacher_direct",
            speaker_name=name,
        )
        body = SpeakerEntry(role, msgspec.Raw(msgspec.json.encode(said)))
        drafts.append(Draft("event", encode_entry(body)))
    for first in range(0, len(drafts), 1000):
        await store.note(session, drafts[first : first + 1000])


async def test_w27_asking_for_an_unknown_meeting_answers_defaults_and_creates_nothing(
    server: Server, store: SessionStore
) -> None:
    state = await get(server, "/v1/sessions/nobody/state")
    assert state["session_id"] == "nobody"
    assert (state["event_count"], state["updated_at"], state["utterance_count"]) == (0, None, 0)
    assert state["utterance_count_by_stream"] == dict.fromkeys(ROLES, 0)
    assert set(state["state"]) == {"clusters", "bindings", "config", "capture_by_stream"}
    assert state["capture_by_stream"] == state["state"]["capture_by_stream"]
    assert state["capture_by_stream"]["teacher"] == {
        "capture_state": "idle",
        "recover_attempts": 0,
        "last_recover_at": None,
        "last_recover_error": None,
        "echo_suppressed_chunks": 0,
        "echo_suppression_recent_rate": 0.0,
        "updated_at": None,
    }
    assert state["ingest"] == state["ingest_by_stream"]["mixed"]
    assert state["ingest_by_stream"]["students"] == {
        "type": "status",
        "session_id": "nobody",
        "stream_role": "students",
        "meeting_id": "nobody",
        "last_seq": 0,
        "received_chunks": 0,
        "duplicate_chunks": 0,
        "missing_chunks": 0,
        "bytes_stored": 0,
        "started_at": None,
        "updated_at": None,
    }
    assert state["asr"] == state["asr_by_stream"]["mixed"]
    assert state["asr"] == {
        "enabled": True,
        "provider": state["asr"]["provider"],
        "model": state["asr"]["model"],
        "mode": "realtime",
        "asr_ws_state": "disconnected",
        "backlog_chunks": 0,
        "ingest_lag_seconds": 0,
        "last_emit_at": None,
        "recent_ingest_to_utterance_ms": [],
        "ingest_to_utterance_p50_ms": None,
        "ingest_to_utterance_p95_ms": None,
        "window_seconds": 10,
        "hop_seconds": 3,
        "last_window_end_seq": 0,
        "utterance_count": 0,
        "total_windows_processed": 0,
        "total_audio_seconds_processed": 0,
        "last_window_latency_ms": 0.0,
        "avg_window_latency_ms": 0.0,
        "avg_rtf": 0.0,
        "consecutive_failures": 0,
        "next_retry_after_ms": 0,
        "last_error": None,
        "last_success_at": None,
        "updated_at": None,
    }
    assert await get(server, "/v1/sessions/nobody/events") == {
        "session_id": "nobody",
        "stream_role": "all",
        "count": 0,
        "limit": 100,
        "items": [],
    }
    for view in ("raw", "merged"):
        assert await get(server, f"/v1/sessions/nobody/utterances?view={view}") == {
            "session_id": "nobody",
            "stream_role": "mixed",
            "view": view,
            "count": 0,
            "limit": 50,
            "items": [],
        }
    assert await store.detail("nobody") is None


async def test_configuring_adds_and_never_clears(server: Server) -> None:
    people = ["Alice", {"name": " Bob ", "email": "b@x"}, {"email": "z"}, 5, None]
    told = {"interviewer_name": " Bill ", "teams_participants": people}
    whole = {
        "session_id": "config",
        "roster_count": 2,
        "config": {"interviewer_name": "Bill", "teams_interviewer_name": "Bill"},
        "roster": [{"name": "Alice"}, {"name": "Bob", "email": "b@x"}],
    }
    assert await configure(server, "config", told) == whole
    blank = {"interviewer_name": " ", "teams_interviewer_name": "", "teams_participants": []}
    for nothing in ({}, [], blank, {"interviewer_name": 5, "teams_participants": "Eve"}):
        assert await configure(server, "config", nothing) == whole
    renamed = await configure(server, "config", {"teams_interviewer_name": "William"})
    assert renamed["config"] == {"interviewer_name": "Bill", "teams_interviewer_name": "William"}
    renamed = await configure(server, "config", {"interviewer_name": "Ann"})
    assert renamed["config"] == {"interviewer_name": "Ann", "teams_interviewer_name": "Ann"}
    state = await get(server, "/v1/sessions/config/state")
    assert (state["state"]["roster"], state["state"]["config"]) == (
        renamed["roster"],
        renamed["config"],
    )
    assert state["updated_at"].endswith("Z")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"null", "Expected `object | array`, got `null`"),
        (b"5", "Expected `object | array`, got `int`"),
        (b'"x"', "Expected `object | array`, got `str`"),
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b'{"interviewer_name":"\xff"}', "it is not JSON"),
        (b"[" * 50_000, "it is not JSON"),
        (b'{"provider":"nobody"}', "provider is one of dummy"),
    ],
)
async def test_w34_a_body_that_is_no_object_is_refused(
    server: Server, store: SessionStore, body: bytes, said: str
) -> None:
    status, answer = await post(server, "/v1/sessions/unconfigured/config", body)
    assert (status, answer["code"]) == (400, "bad_body")
    assert said in answer["detail"]
    assert await store.detail("unconfigured") is None


async def test_a_body_that_is_too_large_is_refused(server: Server) -> None:
    status, answer = await post(server, f"{OPENED}/config", b"{" + b" " * 65536 + b"}")
    assert (status, answer["code"]) == (413, "too_large")
    status, answer = await post(server, f"{OPENED}/config", b"{" + b" " * 65534 + b"}")
    assert status == 200


async def test_a_body_may_come_in_pieces(server: Server) -> None:
    head = f"POST {OPENED}/config HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    pieces = b"4\r\n{   \r\n1\r\n}\r\n0\r\n\r\n"
    request = head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + pieces
    answer = await asyncio.to_thread(server.exchange, request)
    assert answer.startswith(b"HTTP/1.1 200") and b'"roster_count":' in answer


async def test_pieces_that_make_no_sense_are_refused(server: Server) -> None:
    head = f"POST {OPENED}/config HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await asyncio.to_thread(server.exchange, head.encode() + b"zz\r\n{}\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400") and b'"code":"bad_body"' in answer


async def test_large_bodies_that_do_not_come_hold_nobody_up(server: Server) -> None:
    head = f"POST {OPENED}/resolve HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n{{"
    with contextlib.ExitStack() as connections:
        for _ in range(30):
            waiting = socket.create_connection((server.host, server.port))
            connections.enter_context(waiting)
            waiting.sendall(head.encode())
        await configure(server, "interview", {"interviewer_name": "Bill"})


async def test_the_recognizer_of_a_meeting_is_chosen_by_its_configuration(server: Server) -> None:
    await configure(server, "chosen", {"provider": " Dummy "})
    state = await get(server, "/v1/sessions/chosen/state")
    assert {asr["provider"] for asr in state["asr_by_stream"].values()} == {"dummy"}


async def test_utterances_are_told_as_they_were_said_and_merged(
    server: Server, store: SessionStore
) -> None:
    await say(store, "said", "teacher", "hello there", "how are you")
    await say(store, "said", "students", "fine")
    page = await get(server, "/v1/sessions/said/utterances?stream_role=Teacher")
    assert (page["stream_role"], page["view"], page["count"]) == ("teacher", "raw", 2)
    logged = await store.read("said", 0)
    assert logged is not None
    assert page["items"][1] == {
        "utterance_id": page["items"][1]["utterance_id"],
        "session_id": "said",
        "stream_role": "teacher",
        "text": "how are you",
        "start_seq": 4,
        "end_seq": 6,
        "start_ms": 3000,
        "end_ms": 5500,
        "duration_ms": 2500,
        "asr_model": "m",
        "asr_provider": "dummy",
        "confidence": None,
        "created_at": iso(logged.entries[1].at_ms),
        "latency_ms": 120,
    }
    merged = await get(server, "/v1/sessions/said/utterances?stream_role=teacher&view=MERGED")
    assert (merged["view"], [each["text"] for each in merged["items"]]) == (
        "merged",
        ["hello there", "how are you"],
    )
    assert set(merged["items"][0]) == {
        *(set(page["items"][0]) - {"utterance_id", "confidence", "latency_ms"}),
        "merged_id",
        "source_utterance_ids",
    }
    last = await get(server, "/v1/sessions/said/utterances?stream_role=teacher&limit=1")
    assert (last["count"], [each["text"] for each in last["items"]]) == (2, ["how are you"])
    assert (await get(server, "/v1/sessions/said/utterances"))["count"] == 0
    state = await get(server, "/v1/sessions/said/state")
    assert state["utterance_count_by_stream"] == {"mixed": 0, "teacher": 2, "students": 1}


async def test_a_reset_role_has_said_nothing(server: Server, store: SessionStore) -> None:
    for role in ROLES:
        await say(store, "reset", role, "something")
        await recognize(store, "reset", role, "Ann")
    await store.note("reset", [Draft("event", encode_entry(ResetEntry("teacher")))])
    counts = [
        (await get(server, f"/v1/sessions/reset/{what}?stream_role={role}"))["count"]
        for what in ("utterances", "events")
        for role in ROLES
    ]
    assert counts == [1, 0, 1, 1, 0, 1]


async def test_a_file_of_a_meeting_has_what_still_counts(
    server: Server, store: SessionStore
) -> None:
    await configure(server, "filed", {"interviewer_name": "Bill"})
    await say(store, "filed", "teacher", "taken back")
    await store.note("filed", [Draft("event", encode_entry(ResetEntry("teacher")))])
    await say(store, "filed", "teacher", "said again", "and again")
    await say(store, "filed", "students", "one two three four", track="students/windows")
    await say(store, "filed", "students", "two three four five", track="students/windows")
    await say(store, "filed", "guest", "between")
    answer = await asyncio.to_thread(server.get, "/v1/sessions/filed/export?format=txt")
    assert answer.body.decode().splitlines() == [
        "[00:00:00] teacher: said again",
        "[00:00:00] students: one two three four five",
        "[00:00:00] guest: between",
        "[00:00:03] teacher: and again",
    ]
    session = await get(server, "/v1/sessions/filed")
    assert session["tracks"] == ["guest", "students", "teacher"]


async def test_pages_are_the_last_of_many(server: Server, store: SessionStore) -> None:
    await say(store, "many", "students", *(f"word{number}" for number in range(1100)))
    await recognize(store, "many", "students", *(f"name{number}" for number in range(2100)))
    await recognize(store, "many", "teacher", "Ann")
    for target, limit, first in (
        ("utterances?stream_role=students", 50, "word1050"),
        ("utterances?stream_role=students&limit=2.5", 50, "word1050"),
        ("utterances?stream_role=students&limit=0", 50, "word1050"),
        ("utterances?stream_role=students&limit=5000", 1000, "word100"),
        ("utterances?stream_role=students&view=merged&limit=2", 2, "word1098"),
        ("events?stream_role=students", 100, "name2000"),
        ("events?stream_role=students&limit=many", 100, "name2000"),
        ("events?stream_role=students&limit=9999", 2000, "name100"),
        ("events?limit=2", 2, "name2099"),
    ):
        page = await get(server, f"/v1/sessions/many/{target}")
        item = page["items"][0]
        assert (page["limit"], len(page["items"])) == (limit, limit), target
        assert item.get("text", item.get("speaker_name")) == first, target
    assert (await get(server, "/v1/sessions/many/events"))["count"] == 2101
    assert item == {
        "ts": "2026-02-11T12:00:00.000Z",
        "stream_role": "students",
        "source": "teacher_direct",
        "identity_source": None,
        "utterance_id": None,
        "cluster_id": None,
        "speaker_name": "name2099",
        "decision": None,
        "evidence": None,
        "note": None,
    }


async def test_the_state_shows_what_is_recorded(server: Server, store: SessionStore) -> None:
    book = Book(store)
    ingest = Ingest(last_seq=7, received_chunks=4, missing=((2, 3), (5, 5)), bytes_stored=128_000)
    await book.change("recorded", INGEST["teacher"], lambda _: ingest)
    running_now = {"capture_state": "running", "echo_suppressed_chunks": 3}
    captured = await book.change(
        "recorded", CAPTURES, lambda old: capture(old, "teacher", running_now)
    )
    state = await get(server, "/v1/sessions/recorded/state")
    teacher = state["ingest_by_stream"]["teacher"]
    assert (teacher["last_seq"], teacher["received_chunks"], teacher["missing_chunks"]) == (7, 4, 3)
    assert state["asr_by_stream"]["teacher"]["ingest_lag_seconds"] == 7
    assert state["capture_by_stream"]["mixed"]["echo_suppressed_chunks"] == 3
    assert state["updated_at"] == captured.value.mixed.updated_at
    again = await get(server, "/v1/sessions/recorded/state")
    assert again == state, "w29: reading moves no updated_at"


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "/v1/sessions/%ff/state", 400, "bad_session"),
        ("GET", f"/v1/sessions/{'x' * 257}/state", 400, "bad_session"),
        ("GET", "/v1/sessions/a%00b/events", 400, "bad_session"),
        ("POST", "/v1/sessions/%zz/config", 400, "bad_session"),
        ("GET", f"{OPENED}/events?stream_role=all", 400, "bad_query"),
        ("GET", f"{OPENED}/utterances?stream_role=nobody", 400, "bad_query"),
        ("GET", f"{OPENED}/utterances?view=cooked", 400, "bad_query"),
        ("GET", f"{OPENED}/nothing", 404, "not_found"),
        ("GET", "/v1/meetings", 404, "not_found"),
        ("POST", "/openapi.json", 405, "method_not_allowed"),
        ("GET", f"{OPENED}/config", 405, "method_not_allowed"),
        ("POST", f"{OPENED}/state", 405, "method_not_allowed"),
        ("DELETE", f"{OPENED}/events", 405, "method_not_allowed"),
        ("PUT", f"{OPENED}/utterances", 405, "method_not_allowed"),
        ("GET", "/v1/audio/ws/interview", 426, "upgrade_required"),
        ("GET", "/v1/audio/ws/interview/teacher/", 426, "upgrade_required"),
        ("POST", "/v1/audio/ws/interview/teacher", 405, "method_not_allowed"),
        ("GET", "/v1/audio/ws", 404, "not_found"),
    ],
)
async def test_what_cannot_be_answered_says_why(
    server: Server, method: str, target: str, status: int, code: str
) -> None:
    answer = await asyncio.to_thread(server.get, target, method)
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    body = json.loads(answer.body)
    assert (answer.status, body["code"]) == (status, code)
    assert set(body) == {"detail", "code"} and body["detail"]


async def test_health_is_json_for_those_who_accept_it(server: Server) -> None:
    json_wanted = {"Accept": "application/json"}
    answer = await asyncio.to_thread(server.get, "/health", headers=json_wanted)
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    health = json.loads(answer.body)
    assert {**health, "asr_model": "m"} == {
        "status": "ok",
        "app": "interview-feedback-gateway",
        "durable_object": "MEETING_SESSION",
        "r2_bucket": "RESULT_BUCKET",
        "asr_enabled": True,
        "asr_realtime_enabled": True,
        "asr_mode": "realtime",
        "asr_model": "m",
        "asr_window_seconds": 10,
        "asr_hop_seconds": 3,
        "stream_roles": ["mixed", "teacher", "students"],
    }
    assert (await asyncio.to_thread(server.get, "/health")).body == b"OK"


async def test_a_deleted_meeting_takes_nothing_more(server: Server, store: SessionStore) -> None:
    await configure(server, "gone", {"interviewer_name": "Bill"})
    assert await store.delete("gone")
    status, answer = await post(server, "/v1/sessions/gone/config", b"{}")
    assert (status, answer["code"]) == (404, "no_session")
    assert (await get(server, "/v1/sessions/gone/state"))["state"]["config"] == {}


def test_nothing_of_all_this_is_an_error_of_the_gateway(server: Server) -> None:
    assert "Traceback" not in server.log and "[error" not in server.log
