"""A track keeps its text whatever its recognizers do.

Real tracks, real Opus packets, a real WebSocket endpoint that fails on demand. Words are tones, so
a final's text proves which audio was heard.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from http import HTTPStatus

import msgspec
import pytest

from edge.asr import openai_stream
from edge.asr.breaker import Breakers
from edge.asr.choice import JITTER
from edge.asr.interface import AudioWanted, Emit, Recognizer, RecognizerStream, StreamRequest
from edge.errors import RecognizerRefused
from tests.asr.fakes.openai_endpoint import FakeOpenAI, Fault
from tests.asr.support.supervision import QUICK, Scene, openai, scene, until
from tests.asr.support.tones import silence

REFUSED = Fault(status=HTTPStatus.UNAUTHORIZED)
BUSY = Fault(status=HTTPStatus.SERVICE_UNAVAILABLE)
COMMITTING = msgspec.structs.replace(QUICK, force_commit_timeout_s=0.8)


class Backup(Recognizer):
    """The OpenAI recognizer under another name, as the next in line."""

    name = "backup"
    times = "exact"

    def __init__(self, url: str) -> None:
        self._inner = openai(url)

    @property
    def wants(self) -> AudioWanted:
        return self._inner.wants

    async def open(self, request: StreamRequest, emit: Emit) -> RecognizerStream:
        return await self._inner.open(request, emit)


async def test_what_is_said_comes_back_with_audio_times() -> None:
    async with FakeOpenAI() as endpoint, scene(openai(endpoint.url)) as played:
        await played.speaker.say("alpha bravo")
        await until(lambda: played.listener.finals)
        (final,) = played.listener.finals
        assert (final.text, final.is_final, final.provider) == ("alpha bravo", True, "openai")
        assert final.start_ms == pytest.approx(0, abs=40)
        assert final.end_ms == pytest.approx(1500, abs=60)

        interims = played.listener.interims
        assert [interim.text for interim in interims] == ["alpha", "alpha bravo"]
        assert {interim.item_id for interim in interims} == {final.item_id}
        assert final.timestamp_unix_ms == interims[0].timestamp_unix_ms
        assert abs(final.timestamp_unix_ms - time.time() * 1000) < 5000
        assert played.counts.transcripts == {("openai", True): 2, ("openai", False): 1}


async def test_audio_from_before_the_connection_is_sent_first() -> None:
    async with FakeOpenAI() as endpoint:
        played = Scene([openai(endpoint.url)])
        await played.speaker.say("alpha")
        played.supervisor.start()
        await played.speaker.say("bravo")
        await played.supervisor.finish(5)
    assert played.listener.text == "alpha bravo"


async def test_a_drop_amid_speech_loses_no_word_and_doubles_none() -> None:
    faults = [Fault(drop_after_ms=2900), Fault(drop_after_ms=900), Fault()]
    async with FakeOpenAI(faults=faults) as endpoint, scene(openai(endpoint.url)) as played:
        await played.speaker.say("alpha")
        await until(lambda: played.listener.finals)
        for words in ("bravo", "charlie delta", "echo"):
            await played.speaker.say(words)
        await played.supervisor.finish(5)
        first, *later = endpoint.connections
        mark_ms = played.listener.finals[0].end_ms

    assert played.listener.text.split() == ["alpha", "bravo", "charlie", "delta", "echo"]
    assert len(later) == 2
    assert played.track.end_ms - first.audio_ms > 0, "it dropped before the end"
    resumed_at_ms = played.track.end_ms - later[-1].audio_ms
    assert resumed_at_ms <= first.audio_ms, "the last connection overlaps what the first one heard"
    assert resumed_at_ms >= mark_ms - 20, "nothing before the last final is sent again"
    ends = [final.end_ms for final in played.listener.finals]
    assert ends == sorted(ends)
    assert not any(heard.violations for heard in endpoint.connections)


@pytest.mark.parametrize(
    "fault",
    [
        REFUSED,
        BUSY,
        Fault(hang=True),
        Fault(close_code=1011),
        Fault(error_after_ms=0, error={"type": "invalid_request_error", "code": "model_not_found"}),
        Fault(error_after_ms=300, error={"type": "server_error"}),
        Fault(drop_after_ms=300),
    ],
    ids=["refused", "busy", "timeout", "closed", "bad-model", "server-error", "dropped"],
)
async def test_a_recognizer_that_fails_is_replaced_by_the_next_with_all_audio(
    fault: Fault,
) -> None:
    settings = msgspec.structs.replace(QUICK, connect_timeout_s=1.0)
    async with FakeOpenAI(faults=lambda number: fault) as broken, FakeOpenAI() as sound:
        recognizers = (openai(broken.url), Backup(sound.url))
        async with scene(*recognizers, settings=settings) as played:
            await played.speaker.say("alpha")
            await played.speaker.say("bravo")
            await until(lambda: len(played.listener.finals) == 2)
            assert played.listener.text == "alpha bravo"
            assert {final.provider for final in played.listener.finals} == {"backup"}
            assert played.listener.errors == []
            attempts = 1 if "refused" in {code for _, code in played.counts.errors} else 3
            assert len(broken.connections) == attempts


async def test_refused_by_all_is_told_once_and_ends_the_attempts() -> None:
    async with (
        FakeOpenAI(faults=lambda number: REFUSED) as one,
        FakeOpenAI(faults=lambda number: REFUSED) as other,
        scene(openai(one.url), Backup(other.url)) as played,
    ):
        await played.speaker.say("alpha")
        await until(lambda: played.listener.errors)
        (error,) = played.listener.errors
        assert isinstance(error, RecognizerRefused)
        assert "401" in str(error)
        await played.supervisor.finish(5)
        assert (len(one.connections), len(other.connections)) == (1, 1)
        assert len(played.listener.errors) == 1


async def test_without_a_recognizer_it_fails_at_once() -> None:
    async with scene() as played:
        await until(lambda: played.listener.errors)


async def test_an_outage_is_waited_out() -> None:
    async with (
        FakeOpenAI(faults=lambda number: BUSY if number < 8 else Fault()) as endpoint,
        scene(openai(endpoint.url)) as played,
    ):
        await played.speaker.say("alpha")
        await until(lambda: played.listener.finals)
        assert played.listener.text == "alpha"
        assert played.listener.errors == []


async def test_a_service_that_closes_at_once_is_not_stormed() -> None:
    """Connections that open and fail do not reset the pauses."""
    settings = msgspec.structs.replace(
        QUICK, retry_initial_s=0.1, retry_max_s=10, breaker_failures=1000
    )
    async with (
        FakeOpenAI(faults=lambda number: Fault(close_code=1000)) as endpoint,
        scene(openai(endpoint.url), settings=settings) as played,
    ):
        async with asyncio.timeout(8):
            while len(endpoint.connections) < 4:
                await played.speaker.say("alpha", pause_ms=0)
        times_s = [heard.attempted_s for heard in endpoint.connections]
        gaps_s = [later - earlier for earlier, later in itertools.pairwise(times_s)]
        for number, gap_s in enumerate(gaps_s):
            assert gap_s >= 0.1 * 2**number * (1 - JITTER), gaps_s


async def test_an_open_breaker_spares_the_service_and_one_probe_lets_all_return() -> None:
    healthy = False
    settings = msgspec.structs.replace(QUICK, breaker_failures=4, breaker_open_s=0.4)
    breakers = Breakers(settings)
    async with FakeOpenAI(faults=lambda number: Fault() if healthy else BUSY) as endpoint:
        recognizer = openai(endpoint.url)
        tracks = [Scene([recognizer], settings, breakers) for _ in range(6)]
        for track in tracks:
            track.supervisor.start()
            await track.speaker.say("alpha")
        await until(lambda: breakers.of("openai").is_open)
        attempts = len(endpoint.connections)
        await asyncio.sleep(0.2)
        assert len(endpoint.connections) - attempts <= 1, "no attempts while it is open"
        healthy = True
        await until(lambda: all(track.listener.finals for track in tracks))
        assert not breakers.of("openai").is_open
        for track in tracks:
            await track.supervisor.finish(5)


async def test_a_neighbour_never_notices() -> None:
    async with FakeOpenAI() as sound, FakeOpenAI(faults=lambda number: REFUSED) as broken:
        breakers = Breakers(QUICK)
        async with (
            scene(openai(broken.url), breakers=breakers) as failing,
            scene(openai(sound.url), breakers=breakers) as working,
        ):
            await failing.speaker.say("alpha")
            await working.speaker.say("bravo")
            await until(lambda: failing.listener.errors and working.listener.finals)
            assert working.listener.text == "bravo"
            assert working.listener.errors == []


async def test_finish_delivers_the_last_final_without_a_pause_after_it() -> None:
    async with FakeOpenAI(delay_s=lambda item: 0.2) as endpoint:
        async with scene(openai(endpoint.url)) as played:
            await played.speaker.say("alpha bravo", pause_ms=0)
            await played.supervisor.finish(5)
            assert played.listener.text == "alpha bravo"
            await until(lambda: not endpoint.open_connections)
        assert played.counts.open == 0


async def test_finish_sends_what_was_said_while_the_connection_was_opening() -> None:
    async with FakeOpenAI(faults=[BUSY, BUSY]) as endpoint, scene(openai(endpoint.url)) as played:
        await played.speaker.say("alpha", pause_ms=30)
        await played.supervisor.finish(5)
        assert played.listener.text == "alpha"


async def test_finish_survives_a_drop_while_it_waits() -> None:
    faults = [Fault(drop_after_ms=600)]
    async with FakeOpenAI(faults=faults) as endpoint, scene(openai(endpoint.url)) as played:
        await played.speaker.say("alpha", pause_ms=100)
        await played.supervisor.finish(5)
        assert played.listener.text == "alpha"


async def test_finish_with_nothing_said_returns_at_once() -> None:
    async with (
        FakeOpenAI(faults=lambda number: Fault(hang=True)) as endpoint,
        scene(openai(endpoint.url)) as played,
    ):
        await until(lambda: endpoint.connections)
        async with asyncio.timeout(5):
            await played.supervisor.finish(30)


@pytest.mark.parametrize("fault", [Fault(mute=True), Fault(hang=True), BUSY, Fault(deaf=True)])
async def test_finish_keeps_its_deadline(fault: Fault) -> None:
    async with (
        FakeOpenAI(faults=lambda number: fault) as endpoint,
        scene(openai(endpoint.url)) as played,
    ):
        await played.speaker.say("alpha")
        started_s = time.monotonic()
        await played.supervisor.finish(0.5)
        assert 0.4 < time.monotonic() - started_s < 5


async def test_abort_is_immediate_and_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    async with FakeOpenAI() as endpoint:
        served = asyncio.all_tasks()
        async with scene(openai(endpoint.url)) as played:
            await played.speaker.say("alpha")
            await until(lambda: played.listener.interims)
            async with asyncio.timeout(5):
                await played.supervisor.abort()
            await played.supervisor.abort()
            await until(lambda: asyncio.all_tasks() == served)
            assert played.counts.open == 0
    assert asyncio.all_tasks() == before


async def test_no_task_outlives_any_kind_of_failure() -> None:
    before = asyncio.all_tasks()
    faults = [BUSY, Fault(close_code=1011), Fault(drop_after_ms=200), Fault(hang=True), Fault()]
    settings = msgspec.structs.replace(QUICK, connect_timeout_s=1.0)
    async with (
        FakeOpenAI(faults=faults) as endpoint,
        scene(openai(endpoint.url), settings=settings) as played,
    ):
        await played.speaker.say("alpha")
        await played.supervisor.finish(5)
        assert played.listener.text == "alpha"
    gc.collect()
    assert asyncio.all_tasks() == before


async def test_a_speaker_who_stops_without_silence_gets_a_final() -> None:
    """A muted client sends nothing: no VAD can hear the end."""
    async with FakeOpenAI() as endpoint, scene(openai(endpoint.url), settings=COMMITTING) as played:
        await played.speaker.say("alpha", pause_ms=0)
        await until(lambda: played.listener.finals)
        assert played.listener.text == "alpha"
        assert endpoint.connections[0].commits == 1
        await asyncio.sleep(2)
        assert endpoint.connections[0].commits == 1, "nothing was said since"
        await played.speaker.say("bravo", pause_ms=0)
        await until(lambda: len(played.listener.finals) == 2)
        assert played.listener.text == "alpha bravo"


async def test_a_tail_after_a_final_is_committed_too() -> None:
    async with FakeOpenAI() as endpoint, scene(openai(endpoint.url), settings=COMMITTING) as played:
        await played.speaker.say("alpha", pause_ms=500)
        await played.speaker.say("bravo", pause_ms=0)
        await until(lambda: len(played.listener.finals) == 2)
        assert played.listener.text == "alpha bravo"


@pytest.mark.parametrize(
    "faults",
    [[], [BUSY], *([Fault(drop_after_ms=after_ms)] for after_ms in (300, 900, 1500, 2100))],
    ids=["live", "not-there-yet", "drop-300", "drop-900", "drop-1500", "drop-2100"],
)
async def test_a_turn_ends_where_it_was_ended_whenever_a_recognizer_gets_it(
    faults: list[Fault],
) -> None:
    """No pause tells these words apart, only what was asked for."""
    settings = msgspec.structs.replace(QUICK, retry_initial_s=0.3, retry_max_s=0.5)
    async with (
        FakeOpenAI(faults=faults) as endpoint,
        scene(openai(endpoint.url), settings=settings) as played,
    ):
        for words in ("alpha bravo", "charlie", "delta"):
            await played.speaker.say(words, pause_ms=0)
            played.supervisor.commit()
        await played.speaker.say("echo")
        await until(lambda: len(played.listener.finals) == 4)
        texts = [final.text for final in played.listener.finals]
        assert texts == ["alpha bravo", "charlie", "delta", "echo"]


async def test_zero_never_forces_a_commit() -> None:
    async with FakeOpenAI() as endpoint, scene(openai(endpoint.url)) as played:
        await played.speaker.say("alpha", pause_ms=0)
        await until(lambda: endpoint.connections and endpoint.connections[0].audio_ms >= 500)
        await asyncio.sleep(0.5)
        assert endpoint.connections[0].commits == 0


async def test_a_stalled_service_costs_bounded_memory() -> None:
    """60 s of audio into a connection that nobody reads."""
    settings = msgspec.structs.replace(QUICK, recognizer_stall_s=60, recognizer_backlog_ms=1000)
    async with FakeOpenAI(faults=[Fault(deaf=True)]) as endpoint:
        async with scene(openai(endpoint.url), settings=settings) as played:
            await until(lambda: endpoint.open_connections)
            for _ in range(20):
                await played.speaker.send(silence(3000, 48000))
        assert played.counts.audio_bytes["openai"] < 10 * 48000, "10 s of audio at most"
        assert played.track.stats.overflow_dropped_ms > 20_000


async def test_a_stalled_service_is_replaced() -> None:
    settings = msgspec.structs.replace(QUICK, recognizer_stall_s=0.3, recognizer_backlog_ms=1000)
    async with (
        FakeOpenAI(faults=[Fault(deaf=True)]) as endpoint,
        scene(openai(endpoint.url), settings=settings) as played,
    ):
        await until(lambda: endpoint.open_connections)
        await played.speaker.say("alpha", pause_ms=15_000)
        await until(lambda: played.listener.finals)
        assert played.listener.text == "alpha"
        assert played.counts.errors["openai", "timeout"] == 1


async def test_an_endless_handshake_costs_no_more_than_the_tracks_ring() -> None:
    async with (
        FakeOpenAI(faults=lambda number: Fault(hang=True)) as endpoint,
        scene(openai(endpoint.url)) as played,
    ):
        for _ in range(25):
            await played.speaker.send(silence(2400, 48000))
        assert played.track.stats.overflow_dropped_ms >= 29_000


async def test_a_session_that_expires_goes_on_in_a_new_one() -> None:
    """The service ends each session after an hour."""
    expired = {"type": "invalid_request_error", "code": "session_expired"}
    faults = [Fault(error_after_ms=1500, error=expired)]
    async with FakeOpenAI(faults=faults) as endpoint, scene(openai(endpoint.url)) as played:
        for words in ("alpha", "bravo", "charlie"):
            await played.speaker.say(words)
        await until(lambda: len(played.listener.finals) == 3)
        assert played.listener.text == "alpha bravo charlie"
        assert len(endpoint.connections) == 2


async def test_a_service_that_falls_silent_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_stream, "ANSWER_S", 0.3)
    faults = [Fault(mute=True)]
    async with (
        FakeOpenAI(faults=faults) as endpoint,
        scene(openai(endpoint.url), settings=COMMITTING) as played,
    ):
        await played.speaker.say("alpha", pause_ms=0)
        await until(lambda: played.listener.finals)
        assert played.listener.text == "alpha"
        assert played.counts.errors["openai", "timeout"] == 1


async def test_sent_audio_is_reported() -> None:
    async with FakeOpenAI() as endpoint, scene(openai(endpoint.url)) as played:
        await played.speaker.say("alpha")
        await played.supervisor.finish(5)
        assert played.counts.audio_bytes["openai"] == len(endpoint.connections[0].audio)
        assert played.counts.connects["openai"] == 1
