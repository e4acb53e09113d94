"""Exports of a log: every format, long logs in bounded memory, and logs that change meanwhile."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec
import pytest

from edge.api.export import Exporter, ExportQuery, Format
from edge.api.http import ApiError, Call
from edge.errors import HistoryLost, SessionDeleted
from edge.meeting.view import Views
from edge.session.entries import FinalEntry, JoinEntry, encode_entry
from edge.session.store.interface import Draft, SessionStore
from edge.session.store.sqlite import SqliteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SessionStore]:
    async with SqliteStore(tmp_path / "sessions.db") as opened:
        yield opened


def final(
    start_ms: int, end_ms: int, text: str, speaker: str = "ann", voice: int | None = None
) -> Draft:
    entry = FinalEntry(
        speaker=speaker,
        turn=1,
        text=text,
        start_ms=start_ms,
        end_ms=end_ms,
        timestamp_unix_ms=1_700_000_000_000,
        item_id="i",
        provider="dummy",
        voice=voice,
    )
    return Draft("final", encode_entry(entry))


async def write(store: SessionStore, drafts: Iterable[Draft], session: str = "s") -> None:
    grant = await store.open_track(session, "ann")
    await store.append(grant, [*drafts])


async def export(store: SessionStore, kind: Format, session: str = "s") -> str:
    answer = await Exporter(store, Views(store)).export(
        Call(method="GET", session=session, query=ExportQuery(kind), body=None)
    )
    return b"".join([part async for part in answer.parts]).decode()


TALK = (
    final(2000, 3500, "Good <morning>", "bob"),
    Draft("event", encode_entry(JoinEntry("ann"))),
    final(500, 4000, "Hello & welcome"),
    final(4200, 5000, "  "),
)


async def test_subrip(store: SessionStore) -> None:
    await write(store, TALK)
    assert await export(store, "srt") == (
        "1\n00:00:00,500 --> 00:00:04,000\nann: Hello & welcome\n\n"
        "2\n00:00:02,000 --> 00:00:03,500\nbob: Good ‹morning›\n\n"  # noqa: RUF001
    )


async def test_webvtt(store: SessionStore) -> None:
    await write(store, TALK)
    assert await export(store, "vtt") == (
        "WEBVTT\n\n"
        "00:00:00.500 --> 00:00:04.000\n<v ann>Hello &amp; welcome\n\n"
        "00:00:02.000 --> 00:00:03.500\n<v bob>Good &lt;morning&gt;\n\n"
    )


async def test_text(store: SessionStore) -> None:
    await write(store, TALK)
    assert await export(store, "txt") == (
        "[00:00:00] ann: Hello & welcome\n[00:00:02] bob: Good <morning>\n"
    )


async def test_voices_of_one_speaker_are_told_apart(store: SessionStore) -> None:
    await write(store, [final(0, 500, "yes", "room", 1), final(600, 900, "no", "room", 0)])
    assert await export(store, "txt") == (
        "[00:00:00] room (voice 1): yes\n[00:00:00] room (voice 0): no\n"
    )


async def test_json_holds_every_entry_as_it_was_written(store: SessionStore) -> None:
    await write(store, TALK)
    log = msgspec.json.decode(await export(store, "json"))
    head = await store.head("s")
    assert head is not None
    assert (log["session_id"], log["epoch"], log["head"]) == ("s", head.epoch, 4)
    assert [entry["offset"] for entry in log["entries"]] == [1, 2, 3, 4]
    assert [entry["kind"] for entry in log["entries"]] == ["final", "event", "final", "final"]
    assert log["entries"][1]["entry"] == {"type": "join", "speaker": "ann"}
    assert log["entries"][0]["at"].endswith("Z") and log["entries"][0]["track"] == "ann"


@pytest.mark.parametrize(
    ("kind", "empty"), [("srt", ""), ("vtt", "WEBVTT\n\n"), ("txt", ""), ("json", None)]
)
async def test_a_session_without_entries_has_an_empty_file(
    store: SessionStore, kind: Format, empty: str | None
) -> None:
    await store.open_track("s", "ann")
    found = await export(store, kind)
    if empty is None:
        assert msgspec.json.decode(found)["entries"] == []
    else:
        assert found == empty


async def test_there_is_no_export_of_no_session(store: SessionStore) -> None:
    with pytest.raises(ApiError) as error:
        await export(store, "srt", "nobody")
    assert error.value.status == 404
    assert await store.sessions() == []


async def test_a_cleared_log_is_exported_from_its_first_entry(store: SessionStore) -> None:
    await write(store, [final(0, 500, "forgotten")])
    await store.clear("s")
    await write(store, [final(1000, 1500, "kept")])
    assert await export(store, "txt") == "[00:00:01] ann: kept\n"


@pytest.mark.parametrize("kind", ["vtt", "json"])
async def test_a_long_log_is_never_held_as_a_whole(store: SessionStore, kind: Format) -> None:
    grant = await store.open_track("s", "ann")
    text = "something that was said at some length " * 5
    for page in range(10):
        first = page * 1000
        drafts = [final(n * 3000, n * 3000 + 2500, text) for n in range(first, first + 1000)]
        await store.append(grant, drafts)
    answer = await Exporter(store, Views(store)).export(
        Call(method="GET", session="s", query=ExportQuery(kind), body=None)
    )
    size = count = 0
    tracemalloc.start()
    try:
        async for part in answer.parts:
            size += len(part)
            count += part.count(b" --> " if kind == "vtt" else b'"offset"')
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count >= 10_000 and size > 2_000_000
    assert peak < 1_500_000


@pytest.mark.parametrize(("change", "error"), [("delete", SessionDeleted), ("clear", HistoryLost)])
async def test_a_log_that_goes_meanwhile_is_not_passed_off_as_a_whole_one(
    store: SessionStore, change: str, error: type[Exception]
) -> None:
    await write(store, [final(n, n + 1, "said") for n in range(500)])
    answer = await Exporter(store, Views(store)).export(
        Call(method="GET", session="s", query=ExportQuery("json"), body=None)
    )
    with pytest.raises(error):
        async for _ in answer.parts:
            if change == "delete":
                await store.delete("s")
            else:
                await store.clear("s")


async def test_what_is_said_during_an_export_is_left_out(store: SessionStore) -> None:
    await write(store, [final(n, n + 1, "said") for n in range(150)])
    answer = await Exporter(store, Views(store)).export(
        Call(method="GET", session="s", query=ExportQuery("json"), body=None)
    )
    parts = []
    async for part in answer.parts:
        parts.append(part)
        await store.note("s", [Draft("event", b"{}")])
    log = msgspec.json.decode(b"".join(parts))
    assert (log["head"], len(log["entries"])) == (150, 150)
