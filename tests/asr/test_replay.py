"""What a connection left unsaid the next one says: from where, in which form, and as what.

The test itself is the service: it sees every sample that a connection gets, and speaks for it.
"""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from edge.asr.interface import AudioWanted
from edge.asr.link import WARM_UP_MS
from edge.audio.pcm import PcmFormat
from edge.errors import RecognizerBusy, RecognizerRefused
from tests.asr.support.scripted import Scripted, ScriptedStream, begin_ms, heard, stream_of
from tests.asr.support.supervision import QUICK, Scene, scene, until
from tests.asr.support.tones import loud_frames, packets, silence, words_in

RATE_HZ = 16000
SILENT = msgspec.structs.replace(QUICK, recognizer_silent_s=0.1)
AS_IT_CAME = {"opus": AudioWanted(encoding="opus", rate_hz=48000)}


async def test_the_next_connection_begins_to_the_sample_where_the_last_final_ends() -> None:
    """A final may end within a packet, and within a word: what it holds is not heard again."""
    service = Scripted()
    async with scene(service) as played:
        await played.speaker.say("alpha bravo")
        first = await heard(await stream_of(service, 0), 1700)
        first.final("alpha", 0, 607)
        first.fail()
        second = await heard(await stream_of(service, 1), 1100)
        began_ms = begin_ms(played, second)
        assert 607 - WARM_UP_MS - 20 < began_ms <= 607 - WARM_UP_MS
        unheard = round((607 - began_ms) * RATE_HZ / 1000) * 2
        assert not any(second.audio[:unheard]), "the decoder warms up unheard"
        assert any(second.audio[unheard : unheard + 64]), "then comes every sample"
        assert words_in(bytes(second.audio), RATE_HZ) == "bravo"
        second.final("bravo", 607 - began_ms, 1600 - began_ms)
    assert played.listener.text == "alpha bravo"
    assert played.listener.finals[1].start_ms == pytest.approx(607, abs=0.1)


async def test_finals_out_of_spoken_order_are_told_once_each() -> None:
    service = Scripted()
    async with scene(service) as played:
        await played.speaker.say("alpha bravo")
        first = await heard(await stream_of(service, 0), 1700)
        first.final("bravo", 600, 1200, dealt_ms=0)
        first.fail()
        second = await heard(await stream_of(service, 1), 1700)
        second.final("alpha", 0, 600)
        second.final("bravo", 600, 1200)
        second.final("charlie", 1200, 1800)
    assert played.listener.text == "bravo alpha charlie"


async def test_a_padded_final_that_begins_before_the_last_one_ends_is_told() -> None:
    service = Scripted()
    async with scene(service) as played:
        await played.speaker.say("alpha bravo")
        stream = await heard(await stream_of(service, 0), 1700)
        stream.final("alpha", 0, 700)
        stream.final("bravo", 400, 1200)
    assert played.listener.text == "alpha bravo"


async def test_a_blank_final_is_not_told_and_its_audio_not_sent_again() -> None:
    service = Scripted()
    async with scene(service) as played:
        await played.speaker.say("alpha bravo")
        first = await heard(await stream_of(service, 0), 1700)
        first.final(" ", 0, 600)
        first.fail()
        second = await heard(await stream_of(service, 1), 1100)
        assert words_in(bytes(second.audio), RATE_HZ) == "bravo"
        assert played.listener.finals == []


async def test_an_utterance_keeps_its_name_and_its_time_over_a_reconnect() -> None:
    service = Scripted()
    async with scene(service) as played:
        await played.speaker.say("alpha bravo")
        first = await heard(await stream_of(service, 0), 1700)
        first.interim("alpha", "old-1")
        first.fail()
        second = await heard(await stream_of(service, 1), 1700)
        second.interim("alpha bravo", "new-1")
        second.final("alpha bravo", 0, 1500, item="new-1")
        second.interim("charlie", "new-2")
    one, two, other = played.listener.interims
    (final,) = played.listener.finals
    assert one.item_id == two.item_id == final.item_id == "old-1"
    assert final.timestamp_unix_ms == one.timestamp_unix_ms
    assert other.item_id == "new-2"


async def test_a_name_that_nothing_new_was_said_under_is_not_given_to_later_speech() -> None:
    service = Scripted()
    async with scene(service) as played:
        await played.speaker.say("alpha")
        first = await heard(await stream_of(service, 0), 1100)
        first.interim("al", "old-1")
        first.interim("pha", "old-2")
        first.fail()
        second = await heard(await stream_of(service, 1), 1100)
        second.final("alpha", 0, 1200, item="new-1")
        second.final("bravo", 1200, 1800, item="new-2")
    assert [final.item_id for final in played.listener.finals] == ["old-1", "new-2"]


async def test_a_drop_amid_a_replay_replays_from_the_same_place() -> None:
    service = Scripted()
    async with scene(service) as played:
        await played.speaker.say("alpha bravo charlie")
        first = await heard(await stream_of(service, 0), 2300)
        first.final("alpha", 0, 600)
        first.fail()
        for number in (1, 2):
            again = await heard(await stream_of(service, number), 100)
            again.interim("bra", f"item-{number}")
            again.fail()
        last = await heard(await stream_of(service, 3), 1700)
        assert words_in(bytes(last.audio), RATE_HZ) == "bravo charlie"
        assert begin_ms(played, last) == pytest.approx(600 - WARM_UP_MS, abs=20)


async def test_estimated_times_are_replayed_with_a_margin_and_matched_by_words() -> None:
    service = Scripted(times="estimated")
    async with scene(service) as played:
        await played.speaker.say("alpha bravo charlie delta echo foxtrot")
        first = await heard(await stream_of(service, 0), 4000)
        first.final("alpha bravo charlie delta", 0, 2700)
        first.fail()
        second = await heard(await stream_of(service, 1), 3400)
        assert begin_ms(played, second) == pytest.approx(700 - WARM_UP_MS, abs=20)
        second.interim("Charlie,", "b")
        second.interim("Charlie, Delta, Echo", "b")
        second.final("Charlie, Delta, Echo", 400, 2500)
        second.final("Foxtrot.", 2500, 3300)
    assert played.listener.text == "alpha bravo charlie delta Echo Foxtrot."
    assert [interim.text for interim in played.listener.interims] == ["Echo"]


async def test_the_last_words_survive_failures_while_the_track_ends() -> None:
    """Of the drain itself, then of a handshake, then of the connection that was to replay."""
    first_service = Scripted("first", drains=False)
    second_service = Scripted("second", drains=False, refusals=[RecognizerBusy("later")])
    async with scene(first_service, second_service) as played:
        await played.speaker.say("alpha", pause_ms=0)
        await heard(await stream_of(first_service, 0), 500)
        finishing = asyncio.ensure_future(played.supervisor.finish(5))
        await until(lambda: first_service.streams[0].draining)
        first_service.streams[0].fail()
        await until(lambda: second_service.attempts)
        again = await heard(await stream_of(first_service, 1), 600)
        await until(lambda: again.draining)
        again.fail()
        last = await heard(await stream_of(second_service, 0), 600)
        last.final("alpha", 0, 600)
        last.may_drain.set()
        await finishing
        assert played.listener.text == "alpha"


async def test_a_long_pause_between_attempts_ends_when_the_track_ends() -> None:
    settings = msgspec.structs.replace(QUICK, retry_initial_s=30, retry_max_s=30)
    service = Scripted(refusals=[RecognizerBusy("later")], drains=False)
    async with scene(service, settings=settings) as played:
        await played.speaker.say("alpha")
        await until(lambda: service.attempts)
        finishing = asyncio.ensure_future(played.supervisor.finish(5))
        stream = await stream_of(service, 0)
        stream.final("alpha", 0, 1200)
        stream.may_drain.set()
        async with asyncio.timeout(2):
            await finishing
    assert played.listener.text == "alpha"


async def test_a_pause_that_the_service_asked_for_is_kept_to_the_end() -> None:
    service = Scripted(refusals=[RecognizerBusy("later", retry_after_s=30)])
    async with scene(service) as played:
        await played.speaker.say("alpha")
        await until(lambda: service.attempts)
        await played.supervisor.finish(0.3)
        assert service.attempts == 1


# Idle recognizers


async def test_a_source_of_another_form_gets_a_connection_of_that_form() -> None:
    """Opus packets as they came, then PCM: the first connection is asked for its last text."""
    service = Scripted(forms=AS_IT_CAME, drains=False)
    async with scene(service) as played:
        await played.speaker.say("alpha", pause_ms=200)
        first = await stream_of(service, 0)
        await until(lambda: len(first.packets) == 40)
        played.track.restart(PcmFormat(rate_hz=16000, channels=1))
        for number in range(50):
            played.track.packet(number, number * 960, b"\1\2" * 320, time.monotonic())
        await until(lambda: first.draining)
        first.final("alpha", 0, 800)
        first.may_drain.set()
        second = await heard(await stream_of(service, 1), 900)
        assert (first.wanted.encoding, second.wanted.encoding) == ("opus", "pcm16")
        assert len(first.packets) == 40
        assert second.request.source == "pcm"
        assert 799 <= begin_ms(played, second) + WARM_UP_MS <= 801
        second.final("bravo", WARM_UP_MS, 900)
    assert played.listener.text == "alpha bravo"


async def test_what_came_in_one_form_and_is_owed_after_the_source_changed_is_heard() -> None:
    """The connection fails at the very change: the rest of the packets, then the PCM."""
    service = Scripted(forms=AS_IT_CAME, drains=False)
    async with scene(service) as played:
        await played.speaker.say("alpha", pause_ms=200)
        first = await stream_of(service, 0)
        await until(lambda: len(first.packets) == 40)
        played.track.restart(PcmFormat(rate_hz=16000, channels=1))
        for number in range(50):
            played.track.packet(number, number * 960, b"\1\2" * 320, time.monotonic())
        await until(lambda: first.draining)
        first.fail()
        second = await stream_of(service, 1)
        await until(lambda: second.draining)
        assert second.wanted.encoding == "opus"
        assert len(second.packets) == 40
        second.final("alpha", 0, 800)
        second.may_drain.set()
        third = await heard(await stream_of(service, 2), 900)
        assert third.wanted.encoding == "pcm16"


async def test_a_form_that_has_become_better_is_taken_up_in_a_pause() -> None:
    service = Scripted(forms=AS_IT_CAME)
    played = Scene([service], SILENT)
    played.track.restart(PcmFormat(rate_hz=16000, channels=1))
    for number in range(50):
        played.track.packet(number, number * 960, b"\1\2" * 320, time.monotonic())
    played.supervisor.start()
    first = await heard(await stream_of(service, 0), 900)
    first.owes = True  # it is looked at more often then
    played.track.restart()
    for number, packet in enumerate(packets(silence(400, 48000))):
        played.track.packet(number, number * 960, packet, time.monotonic())
    await until(lambda: first.probes >= 2)
    assert not first.draining, "not amid an utterance"
    first.final("alpha", 0, played.track.end_ms)
    await until(lambda: first.closed)
    await played.speaker.say("bravo")
    second = await stream_of(service, 1)
    assert (first.wanted.encoding, second.wanted.encoding) == ("pcm16", "opus")
    await played.supervisor.abort()


async def test_fail_over_goes_to_another_rate_and_form() -> None:
    first_service = Scripted("first", forms=AS_IT_CAME)
    second_service = Scripted("second")
    async with scene(first_service, second_service) as played:
        await played.speaker.say("alpha bravo", pause_ms=200)
        first = await stream_of(first_service, 0)
        await until(lambda: len(first.packets) == 70)
        first.final("alpha", 0, 600)
        first.fail(RecognizerRefused("no credit"))
        second = await heard(await stream_of(second_service, 0), 800)
        assert words_in(bytes(second.audio), RATE_HZ) == "bravo"
        assert loud_frames(bytes(second.audio), RATE_HZ).sum() == pytest.approx(30, abs=2)


# Context


async def test_context_reaches_the_open_connection_and_later_ones() -> None:
    service = Scripted()
    async with scene(service) as played:
        played.supervisor.share("ann: hello\n")
        first = await stream_of(service, 0)
        await until(lambda: first.contexts)
        played.supervisor.share("bob: hi\n")
        assert first.contexts == ["ann: hello\n", "bob: hi\n"]
        first.fail()
        second = await stream_of(service, 1)
        await until(lambda: second.contexts)
        assert second.contexts == ["bob: hi\n"]


async def test_a_recognizer_without_use_for_context_is_said_so_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def deny(stream: ScriptedStream) -> None:
        stream.takes_context = False

    service = Scripted(set_up=deny)
    async with scene(service) as played:
        await until(lambda: service.streams)
        for number in range(3):
            played.supervisor.share(f"ann: {number}\n")
        stream = service.streams[0]
        assert stream.contexts == ["ann: 0\n"]
    said = capsys.readouterr()
    assert (said.out + said.err).count("uses no shared context") == 1


# Services that fall silent, and crowds


async def test_a_service_that_does_not_answer_is_replaced_and_the_audio_replayed() -> None:
    service = Scripted(set_up=lambda stream: setattr(stream, "answers_probes", False))
    async with scene(service, settings=SILENT) as played:
        await played.speaker.say("alpha")
        first = await heard(await stream_of(service, 0), 1100)
        first.owes = True
        second = await heard(await stream_of(service, 1), 1100)
        assert first.probes == 1
        assert words_in(bytes(second.audio), RATE_HZ) == "alpha"
        assert played.counts.errors == {("scripted", "timeout"): 1}


async def test_a_service_that_is_slow_but_answers_is_kept() -> None:
    service = Scripted()
    async with scene(service, settings=SILENT) as played:
        await played.speaker.say("alpha")
        first = await heard(await stream_of(service, 0), 1100)
        first.owes = True
        await until(lambda: first.probes >= 3)
        assert len(service.streams) == 1


async def test_a_service_that_dies_as_the_track_ends_is_replaced_in_time() -> None:
    service = Scripted(drains=False, set_up=lambda stream: setattr(stream, "answers_probes", False))
    settings = msgspec.structs.replace(QUICK, recognizer_silent_s=60)
    async with scene(service, settings=settings) as played:
        await played.speaker.say("alpha", pause_ms=0)
        first = await heard(await stream_of(service, 0), 500)
        first.owes = True
        finishing = asyncio.ensure_future(played.supervisor.finish(2))
        second = await heard(await stream_of(service, 1), 600)
        second.final("alpha", 0, 600)
        second.may_drain.set()
        await finishing
    assert played.listener.text == "alpha"


async def test_connections_do_not_open_all_at_once() -> None:
    """However many tracks begin, or lose their recognizer, together."""
    settings = msgspec.structs.replace(QUICK, connects_at_once=3, connect_timeout_s=5)
    service = Scripted()
    service.may_open.clear()
    crowd = [Scene([service], settings) for _ in range(12)]
    breakers = crowd[0].supervisor._breakers
    for each in crowd:
        each.supervisor._breakers = breakers
        each.supervisor.start()
    await until(lambda: service.opening == 3)
    await asyncio.sleep(0.05)
    assert service.opening == 3
    await crowd[0].supervisor.abort()
    service.may_open.set()
    await until(lambda: len(service.streams) == 11)
    assert service.most_opening == 3
    for each in crowd:
        await each.supervisor.abort()
