"""result.json: what is in it, that it is written once, and that somebody always finishes it."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from edge.asr.funasr import FunASRRecognizer, FunASRSettings
from edge.errors import ObjectsUnavailable, SessionDeleted
from edge.meeting import finalize as finalize_module
from edge.meeting.book import PEOPLE
from edge.meeting.chores import Chores
from edge.meeting.keys import result_key
from edge.meeting.people import Told, tell
from edge.meeting.records import CHUNK_BYTES, ROLES, Role, SpeakerSaid, encode, iso
from edge.session.claim import HOLDERS
from edge.session.entries import FinalEntry, SpeakerEntry, encode_entry
from edge.session.ledger import Ledger
from edge.session.store.commands import FLUSH
from edge.session.store.interface import Draft, SessionStore, now_ms
from edge.session.store.settings import StoreSettings
from tests.asr.fakes.funasr_endpoint import KEY, RATE_HZ, FakeFunASR
from tests.asr.support.tones import sentence, silence
from tests.meeting.support import finalizing
from tests.meeting.support.stored import SESSION, Worker, worker

SECOND = bytes(CHUNK_BYTES)


async def says(store: SessionStore, role: Role, text: str, end_s: int) -> None:
    """A live recognizer's final."""
    grant = await store.open_track(SESSION, role)
    final = FinalEntry(
        speaker=role,
        turn=1,
        text=text,
        start_ms=(end_s - 1) * 1000,
        end_ms=end_s * 1000,
        timestamp_unix_ms=now_ms(),
        item_id="1",
        provider="embedded",
    )
    await store.append(grant, [Draft("final", encode_entry(final))])


async def interview(w: Worker) -> None:
    """Two who talk, and who the first is."""
    await w.book.change(SESSION, PEOPLE, lambda people: tell(people, Told(interviewer_name="Bill")))
    await w.speak(SECOND * 4, "teacher", without={2, 3})
    await w.speak(SECOND * 3, "students")
    await says(w.store, "teacher", "Hello everyone.", 2)
    await says(w.store, "students", "My name is Bob.", 3)
    said = SpeakerSaid(ts=iso(), stream_role="teacher", source="teacher_direct")
    event = SpeakerEntry("teacher", Raw(encode(said)))
    await w.store.note(SESSION, [Draft("event", encode_entry(event))])


async def stored(w: Worker) -> dict[str, Any]:
    body = await w.finalizer.result(SESSION)
    assert body is not None
    found: dict[str, Any] = json.loads(body)
    return found


class Client:
    """A live role's recognizer, on a worker of its own; asked to flush it says its last words."""

    def __init__(self, store: SessionStore, role: Role, takes_s: float) -> None:
        self._store = store
        self._role = role
        self._takes_s = takes_s
        self.asked: list[str] = []

    def superseded(self) -> None:
        """Nobody comes after it."""

    def deleted(self) -> None:
        """Nothing is deleted."""

    async def drain(self) -> None:
        """Nobody comes after it."""

    async def command(self, op: str, body: bytes) -> bytes:
        self.asked.append(op)
        await asyncio.sleep(self._takes_s)
        if len(self.asked) == 1:
            await says(self._store, self._role, "the last words", 4)
        return b""


@asynccontextmanager
async def live(folder: Path, role: Role, takes_s: float = 0.2) -> AsyncIterator[Client]:
    """A client that is connected by way of another worker."""
    async with worker(folder) as other:
        ledger = Ledger(other.store, StoreSettings())
        client = Client(other.store, role, takes_s)
        claim = ledger.claim(SESSION, role, client)
        await claim.ready.wait()
        try:
            yield client
        finally:
            ledger.release(claim)
            await ledger.stop()


async def test_the_result_holds_all_that_is_known(tmp_path: Path) -> None:
    async with worker(tmp_path) as w:
        await interview(w)
        answer = await w.finalizer.finalize(SESSION, Raw(b'{"room": [1, 2]}'))
        result = await stored(w)
    assert answer.result_key == result_key(SESSION) and answer.event_count == 1
    assert list(result) == [
        "session_id", "finalized_at", "state", "events", "ingest", "ingest_by_stream",
        "capture_by_stream", "asr", "asr_by_stream", "utterances_raw",
        "utterances_raw_by_stream", "utterances_merged_by_stream", "missing_seqs", "metadata",
    ]  # fmt: skip
    assert result["session_id"] == SESSION and result["finalized_at"] == answer.finalized_at
    assert result["state"]["config"]["interviewer_name"] == "Bill"
    assert result["events"][0]["stream_role"] == "teacher"
    assert result["ingest"]["type"] == "status" and result["ingest"]["stream_role"] == "mixed"
    assert result["ingest_by_stream"]["teacher"]["last_seq"] == 4
    assert set(result["capture_by_stream"]) == set(ROLES)
    assert result["asr_by_stream"]["students"]["utterance_count"] == 1
    assert result["asr_by_stream"]["students"]["recent_ingest_to_utterance_ms"] == []
    assert result["utterances_raw"] == result["utterances_raw_by_stream"]["mixed"] == []
    (said,) = result["utterances_raw_by_stream"]["teacher"]
    assert (said["text"], said["start_seq"], said["end_seq"]) == ("Hello everyone.", 2, 2)
    (merged,) = result["utterances_merged_by_stream"]["students"]
    assert merged["text"] == "My name is Bob." and len(merged["source_utterance_ids"]) == 1
    assert result["missing_seqs"] == {"mixed": [], "teacher": [2, 3], "students": []}
    assert result["metadata"] == {"room": [1, 2]}


async def test_a_meeting_that_never_was_has_a_result_of_nothing(tmp_path: Path) -> None:
    async with worker(tmp_path) as w:
        assert await w.finalizer.result(SESSION) is None
        assert (await w.finalizer.finalize(SESSION)).event_count == 0
        result = await stored(w)
    assert result["metadata"] == {} and result["utterances_raw"] == []


async def test_w33_a_repetition_with_nothing_new_gives_the_same_answer_and_writes_nothing(
    tmp_path: Path,
) -> None:
    async with worker(tmp_path) as w:
        await interview(w)
        first = await w.finalizer.finalize(SESSION)
        (path,) = tmp_path.rglob("result.json")
        before = path.stat()
        await asyncio.sleep(0.005)
        assert await w.finalizer.finalize(SESSION) == first
        assert path.stat().st_mtime_ns == before.st_mtime_ns
        assert path.stat().st_ino == before.st_ino


@pytest.mark.parametrize("change", ["chunk", "final", "config", "metadata"])
async def test_w33_with_something_new_the_result_is_written_again(
    tmp_path: Path, change: str
) -> None:
    async with worker(tmp_path) as w:
        await interview(w)
        first = await w.finalizer.finalize(SESSION)
        await asyncio.sleep(0.002)
        metadata = Raw(b"{}")
        if change == "chunk":
            await w.speak(SECOND)
        elif change == "final":
            await says(w.store, "teacher", "One more thing.", 4)
        elif change == "config":
            await w.book.change(
                SESSION, PEOPLE, lambda people: tell(people, Told(interviewer_name="Ann"))
            )
        else:
            metadata = Raw(b'{"again":true}')
        second = await w.finalizer.finalize(SESSION, metadata)
        assert second.finalized_at > first.finalized_at
        assert (await stored(w))["finalized_at"] == second.finalized_at


async def test_w33_the_last_words_of_a_live_client_of_another_worker_are_in_the_first_result(
    tmp_path: Path,
) -> None:
    async with worker(tmp_path) as w, live(tmp_path, "teacher") as client:
        await interview(w)
        await w.finalizer.finalize(SESSION)
        said = (await stored(w))["utterances_raw_by_stream"]["teacher"]
        assert [each["text"] for each in said] == ["Hello everyone.", "the last words"]
        assert client.asked == [FLUSH]


async def test_w11_a_live_client_that_does_not_flush_is_awaited_no_longer_than_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def soon(*args: Any) -> None:
        await flush(*args, 0.3)

    flush = finalize_module.flush
    monkeypatch.setattr(finalize_module, "flush", soon)
    async with worker(tmp_path) as w, live(tmp_path, "teacher", takes_s=5.0):
        await interview(w)
        began_s = time.monotonic()
        await w.finalizer.finalize(SESSION)
        assert time.monotonic() - began_s < 3.5
        said = (await stored(w))["utterances_raw_by_stream"]["teacher"]
        assert [each["text"] for each in said] == ["Hello everyone."]


async def test_a_worker_that_died_with_its_clients_is_not_waited_for(tmp_path: Path) -> None:
    async with worker(tmp_path) as w:
        await interview(w)
        for role in ROLES:
            await w.store.put(SESSION, HOLDERS, role, b"long dead", 0)
        began_s = time.monotonic()
        await w.finalizer.finalize(SESSION)
        assert time.monotonic() - began_s < 5


async def test_w24_where_recognition_is_not_live_the_result_has_the_tail(tmp_path: Path) -> None:
    said = b"".join(sentence(word, RATE_HZ) + silence(400, RATE_HZ) for word in ("alpha", "bravo"))
    async with FakeFunASR(sentence_silence_ms=300) as endpoint:
        settings = {"funasr_api_key": KEY, "funasr_url": endpoint.address}
        funasr = FunASRRecognizer(msgspec.convert(settings, FunASRSettings))
        async with worker(tmp_path, funasr, asr_realtime_enabled=False) as w:
            await w.speak(said, "students")
            await w.finalizer.finalize(SESSION)
            (utterance,) = (await stored(w))["utterances_raw_by_stream"]["students"]
    assert (utterance["text"], utterance["end_seq"]) == ("alpha bravo", 2)


async def test_chunks_that_come_meanwhile_belong_to_the_next_result(tmp_path: Path) -> None:
    """And the client of a finalized session may go on."""
    async with worker(tmp_path) as w, live(tmp_path, "teacher", takes_s=0.3) as client:
        await interview(w)
        finalizing_it = asyncio.ensure_future(w.finalizer.finalize(SESSION))
        async with asyncio.timeout(5):
            while not client.asked:
                await asyncio.sleep(0.01)
        await w.speak(SECOND)
        assert not finalizing_it.done(), "nothing waits for it"
        await finalizing_it
        await w.speak(SECOND)
        await w.finalizer.finalize(SESSION)
        assert (await stored(w))["ingest_by_stream"]["teacher"]["last_seq"] == 6


async def test_of_many_at_once_each_has_an_answer_and_one_result_is_written(
    tmp_path: Path,
) -> None:
    async with worker(tmp_path) as w, worker(tmp_path) as other:
        await interview(w)
        answers = await asyncio.gather(
            *(each.finalizer.finalize(SESSION) for each in (w, other, w, other))
        )
        assert len({answer.finalized_at for answer in answers}) == 1


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("by", ["another worker", "a later call"])
async def test_a_finalize_whose_process_is_killed_is_completed(
    tmp_path: Path, where: str, by: str
) -> None:
    """Before or after it put result.json; with the metadata it was asked with."""
    async with worker(tmp_path, lease_s=finalizing.LEASE_S) as w:
        await interview(w)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.meeting.support.finalizing", str(tmp_path), where,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 20) == b"half way\n"
        process.kill()
        await process.wait()
        await w.finalizer.sweep()
        assert (await w.finalizer.result(SESSION) is None) == (where == "before"), "not its turn"
        if by == "a later call":
            await w.finalizer.finalize(SESSION, finalizing.METADATA)
        else:
            chores = Chores(w.finalizer.sweep, every_s=0.1)
            chores.start()
            async with asyncio.timeout(10):
                while await w.store.records(finalize_module.SCOPE, finalize_module.PENDING):
                    await asyncio.sleep(0.02)
            await chores.stop()
        result = await stored(w)
        assert result["metadata"] == {"asked": "before the end"}
        again = await w.finalizer.finalize(SESSION, finalizing.METADATA)
        assert again.finalized_at == result["finalized_at"]
        assert not await w.store.records(finalize_module.SCOPE, finalize_module.PENDING)


async def test_a_finalize_that_the_object_store_refused_is_completed_when_it_is_back(
    tmp_path: Path,
) -> None:
    async with worker(tmp_path) as w:
        await interview(w)
        put = w.objects.put

        async def refuse(*args: object, **options: object) -> None:
            raise ObjectsUnavailable("the object store is away")

        w.objects.put = refuse  # type: ignore[method-assign]
        with pytest.raises(ObjectsUnavailable):
            await w.finalizer.finalize(SESSION)
        await w.finalizer.sweep()
        w.objects.put = put  # type: ignore[method-assign]
        await w.finalizer.sweep()
        assert (await stored(w))["session_id"] == SESSION


async def test_a_session_that_was_deleted_is_not_finalized(tmp_path: Path) -> None:
    async with worker(tmp_path) as w:
        await interview(w)
        await w.finalizer._intend(SESSION, Raw(b"{}"))
        await w.store.delete(SESSION)
        with pytest.raises(SessionDeleted):
            await w.finalizer.finalize(SESSION)
        await w.finalizer.sweep()
        assert not await w.store.records(finalize_module.SCOPE, finalize_module.PENDING)
        assert await w.finalizer.result(SESSION) is None


async def test_the_event_loop_goes_on_while_a_long_result_is_written(tmp_path: Path) -> None:
    async with worker(tmp_path) as w:
        grant = await w.store.open_track(SESSION, "students")
        for block in range(10):
            finals = [
                FinalEntry(
                    speaker="students",
                    turn=number,
                    text=f"sentence {number} of a long meeting",
                    start_ms=number * 2000,
                    end_ms=number * 2000 + 900,
                    timestamp_unix_ms=now_ms(),
                    item_id=str(number),
                    provider="embedded",
                )
                for number in range(block * 1000, block * 1000 + 1000)
            ]
            drafts = [Draft("final", encode_entry(final)) for final in finals]
            await w.store.append(grant, drafts)
        await w.views.of(SESSION)
        longest_s = 0.0

        async def watch() -> None:
            nonlocal longest_s
            while True:
                at_s = time.thread_time()
                await asyncio.sleep(0)
                longest_s = max(longest_s, time.thread_time() - at_s)

        watching = asyncio.ensure_future(watch())
        gc.collect()
        gc.disable()  # what other tests left behind is not of this
        began_s = time.thread_time()
        try:
            await w.finalizer.finalize(SESSION)
        finally:
            gc.enable()
        whole_s = time.thread_time() - began_s
        watching.cancel()
        assert len((await stored(w))["utterances_raw_by_stream"]["students"]) == 10_000
        assert longest_s < max(0.15, whole_s / 3)
