"""The plain socket with Flux behind it: a page hears the engine's own words."""

from __future__ import annotations

import asyncio
import json
import urllib.parse
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from itertools import pairwise

import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus

from tests.asr.fakes.common import Fault
from tests.asr.fakes.deepgram_endpoint import KEY
from tests.asr.fakes.flux_endpoint import FakeFlux
from tests.asr.support.tones import sentence
from tests.ingest.support.listen import RATE_HZ, Page, page
from tests.support.server import Server, running


class PlannedFlux(FakeFlux):
    """Whose connections go wrong as tests plan it."""

    def __init__(self) -> None:
        self.planned: dict[int, Fault] = {}
        super().__init__(faults=lambda number: self.planned.get(number, Fault()))


Gateway = tuple[Server, PlannedFlux]
pytestmark = pytest.mark.asyncio(loop_scope="module")


def environment(service: FakeFlux, **changes: str) -> dict[str, str]:
    """A gateway whose only recognizer is this Flux."""
    return {
        "DEEPGRAM_API_KEY": KEY,
        "DEEPGRAM_URL": service.url,
        "PROVIDERS_PRIORITY": "flux",
        **changes,
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with PlannedFlux() as service:
        settings = environment(
            service,
            EDGESCRIBE_LISTEN_PATHS="/listen,/legacy/transcriber",
            SESSION_RESUME_GRACE_PERIOD="3",
            RECOGNIZER_IDLE="1.5",
        )
        with running("--workers", "1", environment=settings) as server:
            yield server, service


def goes_wrong(service: PlannedFlux, fault: Fault, *, skip: int = 0) -> None:
    """The next connection to the service, or one after it, has this fault."""
    service.planned[len(service.connections) + skip] = fault


def assert_sensible(client: Page) -> None:
    """Messages count from 0 on, no turn comes back, each begins and ends once, windows go on."""
    assert [message["sequence_id"] for message in client.messages] == list(
        range(len(client.messages))
    )
    assert client.messages[0]["type"] == "Connected"
    assert sum(message["type"] == "Connected" for message in client.messages) == 1
    turns = client.turns()
    assert all(
        before["turn_index"] <= after["turn_index"] <= before["turn_index"] + 1
        for before, after in pairwise(turns)
    )
    for event in ("StartOfTurn", "EndOfTurn"):
        numbers = [turn["turn_index"] for turn in client.turns(event)]
        assert len(set(numbers)) == len(numbers)
    ends = [turn["audio_window_end"] for turn in client.turns("EndOfTurn")]
    assert ends == sorted(ends)


async def test_the_engines_messages_come_as_they_are(gateway: Gateway) -> None:
    """Word for word, in the service's own spelling; ``text`` is there where a turn ends."""
    server, service = gateway
    said: list[str] = []
    async with page(server, "session=verbatim") as client:
        await client.say("alpha bravo")
        await client.until_text("alpha bravo")
        await client.say("charlie")
        await client.until_text("charlie")
        said = client.raw
    assert [json.dumps(json.loads(text)) for text in said[:-1] if '"text"' not in text] == [
        text for text in said[:-1] if '"text"' not in text
    ], "what is not changed keeps its spacing"
    assert_sensible(client)
    ends = client.turns("EndOfTurn")
    assert [end["text"] for end in ends] == [end["transcript"] for end in ends]
    assert [end["transcript"] for end in ends] == ["alpha bravo", "charlie"]
    assert ends[0]["trigger"] == "model", "members that only the engine knows come along"
    assert ends[0]["words"][0] == {"word": "alpha", "confidence": 0.8, "start": 0.0, "end": 0.6}
    assert all("text" not in turn for turn in client.turns() if turn["event"] != "EndOfTurn")
    assert {turn["request_id"] for turn in client.turns()} == {"request-1"}
    assert not service.connections[-1].violations


async def test_frames_of_any_size_are_one_stream_of_samples(gateway: Gateway) -> None:
    """Sizes that split samples and chunks; the recognizer is sent 80 ms at a time."""
    server, service = gateway
    async with page(server) as client:
        for size, word in ((256, "alpha"), (1, "bravo"), (333, "charlie"), (100_001, "delta")):
            await client.say(word, pause_ms=480, size=size)
            await client.until_text(word)
    sizes = service.connections[-1].sizes
    assert sizes.count(2560) > 0.8 * len(sizes)
    assert not service.connections[-1].violations
    assert_sensible(client)


async def test_the_recognizer_is_connected_before_there_is_audio(gateway: Gateway) -> None:
    """A page may wait for ``Connected`` before it opens the microphone."""
    server, _ = gateway
    async with page(server) as client:
        await client.until(lambda: client.messages)
        assert client.messages[0] == {
            "type": "Connected", "request_id": "request-1", "sequence_id": 0,
        }  # fmt: skip


async def test_other_paths_are_served_as_set(gateway: Gateway) -> None:
    server, _ = gateway
    async with page(server, path="/legacy/transcriber") as client:
        await client.say("echo")
        await client.until_text("echo")


async def test_a_service_that_drops_is_not_noticed(gateway: Gateway) -> None:
    """The connection breaks in a turn: it is told on under its number, and only once."""
    server, service = gateway
    goes_wrong(service, Fault(after_ms=2400, then="drop"))
    before = len(service.connections)
    async with page(server) as client:
        await client.say("alpha")
        await client.until_text("alpha")
        await client.say("bravo charlie", pause_ms=0)
        await client.until(lambda: len(service.connections) >= before + 2)
        await client.say("delta")
        await client.until_text("bravo charlie delta")
        await client.say("echo")
        await client.until_text("echo")
    # On a machine that stands still the pause between two words may end the turn.
    assert " ".join(client.texts) == "alpha bravo charlie delta echo"
    assert_sensible(client)


async def test_a_service_that_falls_silent_is_replaced(gateway: Gateway) -> None:
    """A zombie: the turn is open, audio flows, and nothing is said for 3 s."""
    server, service = gateway
    goes_wrong(service, Fault(after_ms=700, then="mute"))
    before = len(service.connections)
    async with page(server) as client:
        loop = asyncio.get_running_loop()
        await client.say("alpha bravo", pause_ms=0)
        await client.until(lambda: client.turns("StartOfTurn"))
        silent_s = loop.time()

        async def speak_on() -> None:
            while len(service.connections) == before + 1:
                await client.send(sentence("charlie", RATE_HZ)[:2560])
                await asyncio.sleep(0.08)

        await asyncio.wait_for(speak_on(), 10)
        took_s = loop.time() - silent_s
        await client.send(bytes(RATE_HZ))
        await client.until(lambda: client.texts)
    assert 2.0 < took_s < 10.0
    assert client.texts[0].startswith("alpha bravo charlie")
    assert_sensible(client)


async def test_a_turn_ends_though_no_audio_comes(gateway: Gateway) -> None:
    """A page that stops in mid-word is given silence, which the engine ends the turn by."""
    server, service = gateway
    async with page(server) as client:
        await client.say("foxtrot", pause_ms=0, size=250)
        await client.until_text("foxtrot")
        heard_ms = service.connections[-1].audio_ms
        assert 600 < heard_ms < 2500
        await client.say("golf")
        await client.until_text("golf")
    assert client.texts == ["foxtrot", "golf"]
    assert_sensible(client)


async def test_a_quiet_session_hibernates(gateway: Gateway) -> None:
    """The recognizer is closed, the socket stays; the next word opens it again, whole."""
    server, service = gateway
    before = len(service.connections)
    async with page(server) as client:
        await client.say("alpha")
        await client.until_text("alpha")
        await _until(lambda: not service.connections[before].open)
        await client.say("bravo")
        await client.until_text("bravo")
    assert client.texts == ["alpha", "bravo"]
    assert len(service.connections) == before + 2
    assert_sensible(client)


@pytest.mark.parametrize("code", [1000, 1001, None])
async def test_who_leaves_ends_the_recognizer(gateway: Gateway, code: int | None) -> None:
    """A browser's ``close()`` sends no code, a tab that is shut 1001: nobody is waited for."""
    server, service = gateway
    async with page(server, f"session=leaving-{code}") as client:
        await client.until(lambda: client.messages)
        heard = service.connections[-1]
        if code is None:
            client.socket.transport.write(b"\x88\x80\0\0\0\0")
            assert await client.closed() == (1005, "")
        else:
            await client.leave(code)
            assert client.close == (code, "")
        await _until(lambda: not heard.open, 2.5)


async def test_who_is_lost_finds_turns_going_on(gateway: Gateway) -> None:
    """The recognizer is kept, what ended meanwhile is told, numbers go on."""
    server, service = gateway
    async with page(server, "session=lost") as client:
        await client.say("alpha")
        await client.until_text("alpha")
        await client.say("bravo", pause_ms=0)
        await client.until(lambda: len(client.turns("StartOfTurn")) == 2)
        connections = len(service.connections)
        await client.lose()
    async with page(server, "session=lost") as again:
        await again.until_text("bravo")
        await again.say("charlie")
        await again.until_text("charlie")
    assert len(service.connections) == connections
    assert again.texts == ["bravo", "charlie"]
    assert [end["turn_index"] for end in again.turns("EndOfTurn")] == [1, 2]
    assert_sensible(again)


async def test_a_service_that_drops_while_the_page_is_away(gateway: Gateway) -> None:
    """Turns that nobody hears are numbered, too, across connections of the recognizer."""
    server, service = gateway
    goes_wrong(service, Fault(after_ms=2900, then="drop"))
    before = len(service.connections)
    async with page(server, "session=away") as client:
        await client.say("alpha")
        await client.until_text("alpha")
        await client.say("charlie delta echo", pause_ms=0)
        await client.lose()
    await _until(lambda: len(service.connections) == before + 2)
    async with page(server, "session=away") as again:
        await again.until_text("charlie delta echo")
        await again.say("foxtrot")
        await again.until_text("foxtrot")
    told = [*client.texts, *again.texts]
    assert told == ["alpha", "charlie delta echo", "foxtrot"]
    ends = [*client.turns("EndOfTurn"), *again.turns("EndOfTurn")]
    assert [end["turn_index"] for end in ends] == [0, 1, 2]
    assert_sensible(again)


async def test_a_newer_connection_of_the_speaker_takes_over(gateway: Gateway) -> None:
    server, _ = gateway
    async with page(server, "session=twice") as older, page(server, "session=twice") as newer:
        assert await older.closed() == (4009, "Superseded by a newer connection of this speaker")
        await newer.say("hotel")
        await newer.until_text("hotel")


async def test_close_stream_brings_the_last_final(gateway: Gateway) -> None:
    """The only text a page may send; the turn that is open is ended and told first."""
    server, _ = gateway
    async with page(server) as client:
        await client.say("india alpha", pause_ms=0, size=777)
        await client.socket.send('{"type":"CloseStream"}')
        assert await client.closed() == (1000, "Session ended")
    assert client.texts == ["india alpha"]
    assert_sensible(client)


async def test_other_texts_are_no_audio(gateway: Gateway) -> None:
    server, _ = gateway
    async with page(server) as client:
        await client.socket.send("hello")
        code, reason = await client.closed()
    assert code == 1003
    assert "binary" in reason


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("session=" + "x" * 257, "session"),
        ("session=" + urllib.parse.quote("a\nb"), "session"),
        ("speaker=a/b", "speaker"),
        ("resume=nonsense", "resume"),
        ("provider=nobody", "provider"),
    ],
)
async def test_a_bad_query_is_refused(gateway: Gateway, query: str, named: str) -> None:
    server, _ = gateway
    with pytest.raises(InvalidStatus) as refused:
        async with page(server, query):
            pass
    assert refused.value.response.status_code == 400
    assert named in refused.value.response.body.decode()


async def test_an_empty_session_is_a_session_of_its_own(gateway: Gateway) -> None:
    server, _ = gateway
    async with page(server, "session=") as one, page(server, "session=") as other:
        for client, word in ((one, "alpha"), (other, "bravo")):
            await client.say(word)
            await client.until_text(word)
        assert one.close is other.close is None


async def test_plain_http_is_told_to_upgrade(gateway: Gateway) -> None:
    server, _ = gateway
    assert server.get("/listen?session=a").status == 426


async def test_no_recognizer_at_all(gateway: Gateway) -> None:
    """One that refuses for good, and one that is not there."""
    server, service = gateway
    goes_wrong(service, Fault(status=HTTPStatus.UNAUTHORIZED))
    for query in ("", "provider=openai"):
        async with page(server, query) as client:
            assert await client.closed() == (1011, "Failed to connect to AI model")


async def test_a_recognizer_that_goes_for_good(gateway: Gateway) -> None:
    """It worked, then refuses: a failure is not hidden behind 1000."""
    server, service = gateway
    goes_wrong(service, Fault(after_ms=1000, then="drop"))
    goes_wrong(service, Fault(status=HTTPStatus.UNAUTHORIZED), skip=1)
    async with page(server) as client:
        await client.say("alpha bravo charlie")
        assert await client.closed() == (1011, "The AI model is gone")


async def test_a_stop_sends_clients_away(gateway: Gateway) -> None:
    """The turn that was open is told first; then 1001, which says: come again elsewhere."""
    _, service = gateway
    with running("--workers", "1", environment=environment(service)) as server:
        async with page(server) as client:
            await client.say("golf hotel", pause_ms=0)
            await client.until(lambda: client.turns("StartOfTurn"))
            stopped = asyncio.create_task(asyncio.to_thread(server.stop))
            code, _ = await client.closed()
            assert await stopped == 0
    assert code == 1001
    assert client.texts == ["golf hotel"]


async def _until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
