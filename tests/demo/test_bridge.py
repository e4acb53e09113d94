"""The schedule a bridge would send: wire shapes, numbering, losses and order."""

from __future__ import annotations

import json
from base64 import b64decode
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from _native.envelope import scan_media
from _native.opus import Decoder
from edge.demo.bridge import (
    Line,
    Schedule,
    Source,
    audio_level,
    build_schedule,
    ping_message,
    session_end_message,
)
from edge.demo.speech import Speech
from tests.demo.recordings import silence, tone

TAGS = ("abcdef01-305123557", "abcdef02-7")


def talk(**line: Any) -> Schedule:
    """Two participants; the second begins 0.3 s later. Each talks, is silent, talks."""
    voice = tone(2.0)
    speech = Speech(voice.pcm + silence(1.5) + voice.pcm, voice.rate_hz)
    sources = [Source(tag=tag, speech=speech, start_s=0.3 * i) for i, tag in enumerate(TAGS)]
    return build_schedule(sources, Line(**line))


def media(schedule: Schedule, tag: str) -> list[dict[str, Any]]:
    events = [json.loads(departure.text) for departure in schedule.departures]
    return [e["media"] for e in events if e["event"] == "media" and e["media"]["tag"] == tag]


@pytest.fixture(scope="module")
def stormy() -> Schedule:
    return talk(loss=0.1, late=0.1)


def test_every_message_is_json_with_event_written_twice(stormy: Schedule) -> None:
    for departure in stormy.departures:
        pairs: list[tuple[str, Any]] = json.loads(departure.text, object_pairs_hook=list)
        names = [name for name, _ in pairs]
        assert names[0] == names[-1] == "event" and names.count("event") == 2
        assert pairs[0] == pairs[-1]


def test_ping_and_session_end_have_the_same_shape() -> None:
    assert json.loads(ping_message(3)) == {"event": "ping", "id": 3}
    assert json.loads(session_end_message()) == {"event": "session-end"}


def test_numbers_of_media_events_are_strings(stormy: Schedule) -> None:
    for departure in stormy.departures[1:]:
        event = json.loads(departure.text)
        assert isinstance(event["sequenceNumber"], str)
        if event["event"] == "media":
            assert all(isinstance(event["media"][name], str) for name in ("chunk", "timestamp"))


def test_sequence_numbers_count_all_messages_of_the_connection_from_one(stormy: Schedule) -> None:
    numbers = [int(json.loads(d.text)["sequenceNumber"]) for d in stormy.departures[1:]]
    assert numbers == list(range(1, len(numbers) + 1))


def test_messages_are_in_order_of_departure(stormy: Schedule) -> None:
    times = [departure.at_s for departure in stormy.departures]
    assert times == sorted(times)


def test_a_tag_starts_before_its_first_packet(stormy: Schedule) -> None:
    for tag in TAGS:
        texts = [d.text for d in stormy.departures if tag in d.text]
        first = json.loads(texts[0])
        assert first["event"] == "start"
        assert first["start"]["mediaFormat"] == {
            "encoding": "opus",
            "sampleRate": 48000,
            "channels": 2,
        }
        assert first["start"]["customParameters"] == {"endpointId": tag.partition("-")[0]}


@pytest.mark.parametrize(("loss", "late"), [(0.0, 0.0), (0.02, 0.01), (0.3, 0.2)])
def test_every_frame_is_accounted_for(loss: float, late: float) -> None:
    schedule = talk(loss=loss, late=late)
    for tag in TAGS:
        tally = schedule.tallies[tag]
        assert tally.encoded == 275  # 5.5 s
        assert tally.encoded == tally.dtx + tally.dropped + tally.sent
        assert tally.sent == len(media(schedule, tag))
        assert tally.dropped == round(loss * (tally.sent + tally.dropped))


def test_chunks_skip_what_was_lost_and_nothing_else(stormy: Schedule) -> None:
    for tag in TAGS:
        chunks = [int(event["chunk"]) for event in media(stormy, tag)]
        assert len(set(chunks)) == len(chunks)
        assert 0 <= min(chunks) <= 65535
        missing = max(chunks) - min(chunks) + 1 - len(chunks)
        assert missing == stormy.tallies[tag].dropped


def test_late_packets_are_overtaken_by_one_or_two(stormy: Schedule) -> None:
    for tag in TAGS:
        chunks = [int(event["chunk"]) for event in media(stormy, tag)]
        overtaken = Counter[int]()
        for index, chunk in enumerate(chunks):
            overtaken[sum(earlier > chunk for earlier in chunks[:index])] += 1
        assert set(overtaken) <= {0, 1, 2}
        assert overtaken[1] + overtaken[2] == stormy.tallies[tag].late > 0


def test_timestamps_are_the_capture_times_on_one_clock() -> None:
    schedule = talk(loss=0.0, late=0.0)
    for index, tag in enumerate(TAGS):
        timestamps = [int(event["timestamp"]) for event in media(schedule, tag)]
        assert timestamps[0] == round(0.3 * index * 48000)
        steps = [b - a for a, b in pairwise(timestamps)]
        assert set(steps) > {960} and all(step % 960 == 0 for step in steps)


def test_silence_leaves_packets_out_but_no_chunk_numbers() -> None:
    schedule = talk(loss=0.0, late=0.0)
    for tag in TAGS:
        assert schedule.tallies[tag].dtx > 30
        chunks = [int(event["chunk"]) for event in media(schedule, tag)]
        assert chunks == list(range(chunks[0], chunks[0] + len(chunks)))


def test_packets_leave_when_their_last_sample_was_captured() -> None:
    schedule = talk(loss=0.0, late=0.0)
    for departure in schedule.departures:
        event = json.loads(departure.text)
        if event["event"] == "media":
            captured_s = (int(event["media"]["timestamp"]) + 960) / 48000
            assert departure.at_s == pytest.approx(captured_s)


def test_payloads_decode_to_the_speech() -> None:
    decoder = Decoder(16000)
    pcm = b"".join(
        decoder.decode(b64decode(event["payload"])) for event in media(talk(loss=0.0), TAGS[0])
    )
    assert audio_level(pcm) < 30


def test_the_gateway_reads_each_media_event_in_its_fast_path(stormy: Schedule) -> None:
    for departure in stormy.departures:
        event = json.loads(departure.text)
        if event["event"] == "media":
            said = event["media"]
            assert scan_media(departure.text.encode()) == (
                said["tag"],
                int(said["chunk"]),
                int(said["timestamp"]),
                b64decode(said["payload"]),
            )


def test_levels_are_numbers_only_when_asked_for(stormy: Schedule) -> None:
    for event in media(stormy, TAGS[0]):
        assert type(event["audioLevel"]) is int and type(event["vad"]) is bool
    assert "audioLevel" not in media(talk(audio_levels=False), TAGS[0])[0]


@pytest.mark.parametrize(
    ("sample", "level"), [(0, 127), (1, 90), (-32768, 0), (32767, 0), (3277, 20)]
)
def test_audio_levels_follow_rfc_6464(sample: int, level: int) -> None:
    assert audio_level(sample.to_bytes(2, "little", signed=True) * 960) == level


def test_the_same_seed_gives_the_same_weather() -> None:
    assert talk(seed=5) == talk(seed=5)
    assert talk(seed=5) != talk(seed=6)


def test_progress_ends_at_all_of_it() -> None:
    told: list[float] = []
    sources = [Source(tag=tag, speech=tone(0.2)) for tag in TAGS]
    build_schedule(sources, Line(), told.append)
    assert told == [0.5, 1.0]
