"""Who gets what while clients are lost, come back, take over and share: sessions by themselves."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.asr.transcript import Transcript
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack
from edge.errors import RecognizerRefused
from edge.ingest.counts import IngestCounts
from edge.session.attachment import Attachment
from edge.session.interface import SessionRequest, SpokenLine, TagFailure
from edge.session.ledger import Ledger
from edge.session.live_track import LiveTrack
from edge.session.meters import Meters
from edge.session.place import MEDIA_SERVER
from edge.session.sessions import Sessions
from edge.session.settings import SessionSettings
from edge.session.store.commands import FLUSH, Command, send
from edge.session.store.settings import StoreSettings
from edge.session.store.sqlite import SqliteStore
from edge.transport.interface import Close

LOST = Close(1006)


class Outlet:
    """A client's end: what it got, in order."""

    def __init__(self, takes: int = 1000) -> None:
        self.is_full = False
        self.got: list[str] = []
        self.recorded: list[str] = []
        self.is_open = True
        self.evicted = False
        self._takes = takes

    def transcript(self, line: SpokenLine) -> bool:
        if self.is_full:
            self.is_open = False
            return False
        self.got.append(line.transcript.text)
        return True

    def record(self, line: SpokenLine) -> bool:
        self.recorded.append(line.transcript.text)
        return line.transcript.is_final

    def missed(self, line: SpokenLine) -> bool:
        if len(self.got) == self._takes:
            self.is_open = False
            return False
        return self.transcript(line)

    def tag_failed(self, failure: TagFailure) -> None:
        self.got.append(failure.code)

    def superseded(self) -> None:
        self.evicted = True
        self.is_open = False

    def deleted(self) -> None:
        self.is_open = False

    def command(self, op: str, body: bytes) -> bytes | None:
        return None


class Voice:
    """A track's transcriber, and the host of all tracks' transcribers."""

    def __init__(self, track: LiveTrack) -> None:
        self.track = track
        self.done: list[str] = []

    def start(self) -> None:
        self.done.append("start")

    def commit(self) -> None:
        self.done.append("commit")

    def share(self, context: str) -> None:
        self.done.append(context)

    async def finish(self, deadline_s: float) -> None:
        self.done.append("finish")

    async def abort(self) -> None:
        self.done.append("abort")

    def say(self, text: str) -> None:
        self.track.final(
            Transcript(
                provider="p", item_id="1", text=text, is_final=True, start_ms=0.0, end_ms=1.0,
                timestamp_unix_ms=1,
            )
        )  # fmt: skip


class Host:
    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.voices: list[Voice] = []
        self.open = 0
        self.late = 0

    def open_track(self, track: LiveTrack, request: SessionRequest) -> Voice:
        self.open += 1
        self.voices.append(Voice(track))
        return self.voices[-1]

    def close_track(self, track: LiveTrack) -> None:
        self.open -= 1

    def delivered(self, track: LiveTrack, transcript: Transcript, *, sent: bool) -> None:
        pass

    def caught_up(self, line: SpokenLine) -> None:
        self.late += 1


class Place:
    """Sessions of a worker, and clients that come and go."""

    def __init__(self, ledger: Ledger, **settings: float) -> None:
        self.host = Host(ledger)
        chosen = SessionSettings(**{"resume_grace_s": 0.05, **settings})  # type: ignore[arg-type]
        self.sessions = Sessions(
            chosen,
            self.host,
            lambda origin: AudioTrack(TrackSettings(), origin),
            Meters(IngestCounts()),
        )

    def connect(self, session_id: str | None = "m1", takes: int = 1000) -> tuple[
        Attachment, Outlet
    ]:  # fmt: skip
        outlet = Outlet(takes)
        request = SessionRequest(session_id=session_id)
        attachment = self.sessions.attach(request, outlet, "p")
        assert attachment is not None
        attachment.catch_up()
        return attachment, outlet

    def voice(self, attachment: Attachment, tag: str) -> Voice:
        track = attachment.track(tag)
        assert track is not None and isinstance(track.transcriber, Voice)
        return track.transcriber

    def lose(self, attachment: Attachment, outlet: Outlet) -> None:
        outlet.is_open = False
        self.sessions.release(attachment, LOST)

    def share(self) -> list[tuple[Attachment, Outlet]]:
        """Two clients that evicted each other until both may stay."""
        for _ in range(3):
            self.connect()
        return [self.connect(), self.connect()]

    async def until_left(self, active: int, detached: int) -> None:
        async with asyncio.timeout(5):
            while (self.sessions.active, self.sessions.detached) != (active, detached):
                await asyncio.sleep(0.01)


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with SqliteStore(tmp_path / "sessions.db") as store:
        ledger = Ledger(store, StoreSettings())
        yield ledger
        await ledger.stop()


@pytest.fixture
def place(ledger: Ledger) -> Place:
    return Place(ledger)


async def test_a_final_is_kept_from_the_moment_its_client_begins_to_close(place: Place) -> None:
    attachment, outlet = place.connect()
    voice = place.voice(attachment, "a")
    outlet.is_open = False
    voice.say("closing")
    place.sessions.release(attachment, LOST)
    voice.say("gone")
    back, again = place.connect()
    place.voice(back, "a").say("back")
    assert again.got == ["closing", "gone", "back"]
    assert outlet.recorded == ["closing", "gone"], "recorded when they came, once"
    assert place.voice(back, "a") is voice
    assert (voice.done, place.host.late) == (["start", "commit"], 2)
    place.lose(back, again)
    await place.until_left(0, 0)
    assert voice.done[-1] == "finish" and place.host.open == 0


async def test_a_client_that_is_lost_while_it_catches_up_gets_the_rest_the_next_time(
    place: Place,
) -> None:
    attachment, outlet = place.connect()
    voice = place.voice(attachment, "a")
    place.lose(attachment, outlet)
    for number in range(5):
        voice.say(str(number))
    attachment, outlet = place.connect(takes=2)
    assert outlet.got == ["0", "1"]
    place.lose(attachment, outlet)
    attachment, outlet = place.connect()
    assert outlet.got == ["2", "3", "4"]
    place.lose(attachment, outlet)
    await place.until_left(0, 0)


async def test_a_tag_that_fails_while_its_client_is_away_is_told_on_its_return(
    place: Place,
) -> None:
    attachment, outlet = place.connect()
    voice = place.voice(attachment, "a")
    place.lose(attachment, outlet)
    voice.track.broken(RuntimeError("gone"))
    attachment, outlet = place.connect()
    assert outlet.got == ["recognizer_failed"]
    assert attachment.track("a") is None
    place.lose(attachment, outlet)
    await place.until_left(0, 0)
    assert voice.done[-1] == "abort"


async def test_a_final_that_a_slow_client_could_not_be_sent_any_more_is_kept(
    place: Place,
) -> None:
    """A full outbox closes the connection while it is being written to."""
    attachment, outlet = place.connect()
    voice = place.voice(attachment, "a")
    voice.say("sent")
    outlet.is_full = True
    voice.say("refused")
    voice.say("after it")
    place.sessions.release(attachment, LOST)
    back, again = place.connect()
    assert (outlet.got, again.got) == (["sent"], ["refused", "after it"])
    place.lose(back, again)
    await place.until_left(0, 0)


async def test_a_track_that_fails_while_it_ends_leaves_its_tag_to_the_next_one(
    place: Place,
) -> None:
    """A client that speaks on after its session-end has a new track under the tag."""
    attachment, outlet = place.connect()
    older = attachment.track("a")
    assert older is not None
    ending = asyncio.ensure_future(attachment.finish(1.0))
    await asyncio.sleep(0)
    newer = place.voice(attachment, "a")
    older.failed(RecognizerRefused("no such model"))
    await ending
    assert place.voice(attachment, "a") is newer and "abort" not in newer.done
    assert outlet.got == []
    place.lose(attachment, outlet)
    await place.until_left(0, 0)
    assert place.host.open == 0


async def test_tags_a_client_does_not_go_on_with_end_after_the_grace_period(
    place: Place,
) -> None:
    """However often a conference returns, those who left it leave no tracks behind."""
    attachment, outlet = place.connect()
    gone, stays = place.voice(attachment, "gone"), place.voice(attachment, "stays")
    place.lose(attachment, outlet)
    attachment, outlet = place.connect()
    assert place.voice(attachment, "stays") is stays
    gone.say("the rest")
    async with asyncio.timeout(5):
        while "finish" not in gone.done:
            await asyncio.sleep(0.01)
    assert (outlet.got, place.host.open, place.sessions.active) == (["the rest"], 1, 1)
    place.voice(attachment, "stays").say("on")
    assert place.voice(attachment, "gone") is not gone, "who speaks again has a new track"
    assert outlet.got[-1] == "on" and "finish" not in stays.done
    place.lose(attachment, outlet)
    await place.until_left(0, 0)
    assert place.host.open == 0


async def test_who_shares_a_session_gets_what_is_said_on_its_own_tags(place: Place) -> None:
    (one, its), (two, others) = place.share()
    mine, yours = place.voice(one, "a"), place.voice(two, "a")
    assert mine is not yours, "the same tag over two connections is two tracks"
    mine.say("mine")
    yours.say("yours")
    assert (its.got, others.got) == (["mine"], ["yours"])
    assert (place.sessions.active, place.sessions.detached) == (1, 0)
    place.lose(two, others)
    yours.say("missed")
    assert its.got == ["mine"]
    three, third = place.connect()
    assert third.got == ["missed"] and not its.evicted
    assert place.voice(three, "a") is yours and place.voice(one, "a") is mine
    for each, outlet in ((one, its), (three, third)):
        place.lose(each, outlet)
    await place.until_left(0, 0)
    assert place.host.open == 0


async def test_what_a_client_left_in_a_shared_session_ends_after_the_grace_period(
    place: Place,
) -> None:
    (one, its), (two, others) = place.share()
    left = place.voice(two, "b")
    place.lose(two, others)
    left.say("missed")
    async with asyncio.timeout(5):
        while "finish" not in left.done:
            await asyncio.sleep(0.01)
    assert its.got == ["missed"], "those who stayed get what nobody came back for"
    assert place.sessions.active == 1
    place.lose(one, its)
    await place.until_left(0, 0)


async def test_of_two_tracks_of_a_tag_that_nobody_feeds_the_older_ends(place: Place) -> None:
    (one, its), (two, others) = place.share()
    older, newer = place.voice(one, "a"), place.voice(two, "a")
    place.lose(one, its)
    place.lose(two, others)
    back, outlet = place.connect()
    assert place.voice(back, "a") is newer
    await asyncio.sleep(0)
    assert older.done[-1] == "finish"
    place.lose(back, outlet)
    await place.until_left(0, 0)
    assert place.host.open == 0


async def test_shared_connections_count_as_sessions_do_and_a_return_is_free(
    ledger: Ledger,
) -> None:
    place = Place(ledger, max_sessions=2)
    clients = place.share()
    assert not place.sessions.has_room("m1") and not place.sessions.has_room(None)
    place.lose(*clients[0])
    assert place.sessions.has_room("m1") and place.sessions.has_room("m2")
    place.lose(*clients[1])
    await place.until_left(0, 0)
    client = place.connect()
    place.connect(None)
    assert place.sessions.has_room("m1") and not place.sessions.has_room("m2")
    place.lose(*client)
    await place.until_left(1, 0)
    await place.sessions.stop()


async def test_clients_of_their_own_sessions_never_meet(place: Place) -> None:
    (one, its), (two, others) = place.connect(None), place.connect(None)
    place.voice(one, "a").say("one")
    place.voice(two, "a").say("two")
    assert (its.got, others.got) == (["one"], ["two"])
    place.lose(one, its)
    assert place.sessions.detached == 1
    await place.until_left(1, 0)
    await two.finish(1.0)
    place.lose(two, others)
    await place.until_left(0, 0)


async def test_a_drain_takes_no_more_and_waits_for_nobody(place: Place) -> None:
    attachment, outlet = place.connect()
    voice = place.voice(attachment, "a")
    place.lose(attachment, outlet)
    await place.sessions.drain(1.0)
    assert voice.done[-1] == "finish"
    assert place.sessions.attach(SessionRequest(session_id="m1"), Outlet(), "p") is None
    await place.sessions.stop()


@pytest.mark.parametrize("fails", [False, True])
async def test_what_has_ended_is_freed_without_the_collector(place: Place, fails: bool) -> None:
    """A track and its transcriber hold each other; the collector comes after hundreds of them."""
    attachment, outlet = place.connect()
    place.voice(attachment, "a")
    voice = weakref.ref(place.host.voices.pop())
    gc.collect()
    gc.disable()
    try:
        if fails:
            attachment.tracks["a"].broken(RuntimeError("gone"))
        place.lose(attachment, outlet)
        await place.until_left(0, 0)
        assert voice() is None
    finally:
        gc.enable()


async def test_w11_a_flush_asked_for_elsewhere_returns_when_all_that_was_said_is_in_the_log(
    place: Place, ledger: Ledger
) -> None:
    """The client stays, and its next audio opens its track again."""
    attachment, outlet = place.connect()
    voice = place.voice(attachment, "a")

    async def finish(deadline_s: float) -> None:
        voice.say("the last words")

    voice.finish = finish  # type: ignore[method-assign]
    asked = Command("once", MEDIA_SERVER, FLUSH, b"")
    assert await send(ledger.store, "m1", asked, taken_within_s=2.0) == b""
    page = await ledger.store.read("m1", 0)
    assert page is not None and [entry.kind for entry in page.entries].count("final") == 1
    assert outlet.is_open and place.voice(attachment, "a") is not voice
    place.lose(attachment, outlet)
    await place.until_left(0, 0)


async def test_what_is_asked_of_a_place_that_nobody_holds_is_given_up_early(
    ledger: Ledger,
) -> None:
    await ledger.store.ensure("m1")
    began_s = time.monotonic()
    asked = Command("once", "teacher", FLUSH, b"")
    assert await send(ledger.store, "m1", asked, 30.0, taken_within_s=0.1) is None
    assert time.monotonic() - began_s < 5
