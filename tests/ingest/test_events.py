"""Media events: every shape a bridge sends is understood, the rest is refused by a reason."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _native.envelope import scan_media
from edge.ingest.events import (
    BadEvent,
    Media,
    PeerInfo,
    Ping,
    SessionEnd,
    Start,
    decode_event,
)

BRIDGE_EVENT = (
    b'{"event":"media","sequenceNumber":"2","media":{"tag":"aaaaaaaa-305123557","chunk":"31456",'
    b'"timestamp":"268460","payload":"eAv6"},"event":"media"}'
)


def media(**members: object) -> bytes:
    body = {"tag": "a-1", "chunk": 7, "timestamp": 960, "payload": "AAEC"} | members
    return json.dumps({"event": "media", "media": body}).encode()


def test_the_bridges_own_shape_is_read() -> None:
    assert decode_event(BRIDGE_EVENT) == Media("aaaaaaaa-305123557", 31456, 268460, b"x\x0b\xfa")


@pytest.mark.parametrize("number", [7, "7", "007"])
def test_numbers_may_be_numbers_or_strings(number: object) -> None:
    assert decode_event(media(chunk=number)) == Media("a-1", 7, 960, b"\0\1\2")


@pytest.mark.parametrize("number", [None, "", "x", "1.5", 1.5, True, [], 2**63, "9" * 25, "٣"])
def test_a_number_that_is_none_counts_as_absent(number: object) -> None:
    event = decode_event(media(chunk=number, timestamp=number))
    assert event == Media("a-1", None, None, b"\0\1\2")


@pytest.mark.parametrize("payload", ["-_8", "-_8=", "+/8=", "+/8"])
def test_both_base64_alphabets_and_missing_padding_are_taken(payload: str) -> None:
    assert decode_event(media(payload=payload)) == Media("a-1", 7, 960, b"\xfb\xff")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"[1]", "not_json"),
        (b"nul", "not_json"),
        (b'{"event":"info","application":"\xff"}', "not_json"),
        (b'{"event":"media","media":{"tag":"\xed\xa0\x80","payload":"AAEC"}}', "not_json"),
        (b'{"event":NaN}', "not_json"),
        (b"[" * 60000, "not_json"),
        (b'{"event":"media","event":"start"}', "conflicting_members"),
        (b'{"event":"ping","id":1,"id":2}', "conflicting_members"),
        (b"{}", "no_event"),
        (b'{"event":5}', "no_event"),
        (b'{"event":"media"}', "no_media"),
        (b'{"event":"media","media":[]}', "no_media"),
        (b'{"event":"start","start":"x"}', "no_start"),
        (media(tag=""), "no_tag"),
        (media(tag=5), "no_tag"),
        (media(tag="x" * 257), "no_tag"),
        (media(payload="!!!!"), "bad_payload"),
        (media(payload="A"), "bad_payload"),
        (media(payload="AA==AA=="), "bad_payload"),
        (media(payload=None), "bad_payload"),
        (b'{"event":"media","media":{"tag":"a"}}', "no_payload"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_stable_reason(message: bytes, reason: str) -> None:
    with pytest.raises(BadEvent, match=f"^{reason}$"):
        decode_event(message)


def test_an_empty_payload_is_told_apart_from_a_bad_one() -> None:
    assert decode_event(media(payload="")) == Media("a-1", 7, 960, b"")


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (b'{"event":"ping","id":5}', Ping(5)),
        (b'{"event":"ping","id":1.5,"event":"ping"}', Ping(1.5)),
        (b'{"event":"ping","id":"5"}', Ping(None)),
        (b'{"event":"ping","id":true}', Ping(None)),
        (b'{"event":"ping"}', Ping(None)),
        (b'{"event":"session-end"}', SessionEnd()),
        (b'{"event":"info","application":"jitsi-videobridge"}', PeerInfo("jitsi-videobridge")),
        (b'{"event":"stop","stop":{"tag":"a"}}', None),
        (b'{"event":"sources","exports":[],"requests":[]}', None),
        (b'{"event":"something-new","x":{"y":[1]}}', None),
    ],
)
def test_other_events(message: bytes, event: object) -> None:
    assert decode_event(message) == event


def start(media_format: object) -> bytes:
    return json.dumps(
        {"event": "start", "start": {"tag": "a-1", "mediaFormat": media_format}}
    ).encode()


@pytest.mark.parametrize(
    ("media_format", "expected"),
    [
        ({"encoding": "opus", "sampleRate": 48000, "channels": 2}, ("opus", 48000, 2)),
        ({"encoding": "OPUS", "sampleRate": "48000", "channels": "1"}, ("opus", 48000, 1)),
        ({"encoding": "ogg-opus"}, ("ogg", 48000, 2)),
        ({"encoding": "L16", "sampleRate": 16000, "channels": 2}, ("l16", 16000, 2)),
        ({"encoding": "l16"}, ("l16", 24000, 1)),
        ({"encoding": "L16-BE", "sampleRate": "44100"}, ("l16-be", 44100, 1)),
    ],
)
def test_a_start_announces_a_format(media_format: object, expected: tuple[object, ...]) -> None:
    assert decode_event(start(media_format)) == Start("a-1", *expected)


@pytest.mark.parametrize(
    "media_format",
    [None, "opus", {}, {"encoding": ""}, {"encoding": "mp3"}, {"encoding": 5},
     {"encoding": "opus", "sampleRate": 0}, {"encoding": "opus", "channels": -1},
     {"encoding": "opus", "channels": 1.5}, {"encoding": "opus", "sampleRate": None}],
)  # fmt: skip
def test_a_start_with_a_bad_format_names_its_problem(media_format: object) -> None:
    event = decode_event(start(media_format))
    assert isinstance(event, Start)
    assert event.problem and event.problem.startswith("mediaFormat")


@given(
    tag=st.text(min_size=1, max_size=40),
    chunk=st.integers(-(2**64), 2**64) | st.none(),
    timestamp=st.integers(0, 2**53),
    payload=st.binary(min_size=1, max_size=200),
    as_text=st.booleans(),
    cut=st.integers(0, 400),
    replacement=st.binary(max_size=3),
    mutate=st.booleans(),
)
def test_the_native_pass_agrees_with_the_full_parse_on_any_input(
    tag: str,
    chunk: int | None,
    timestamp: int,
    payload: bytes,
    as_text: bool,
    cut: int,
    replacement: bytes,
    mutate: bool,
) -> None:
    body = {
        "tag": tag,
        "chunk": str(chunk) if as_text else chunk,
        "timestamp": str(timestamp) if as_text else timestamp,
        "payload": base64.b64encode(payload).decode(),
    }
    text = json.dumps({"event": "media", "media": body, "sequenceNumber": "5"}, ensure_ascii=False)
    message = text.encode("utf-8", "surrogatepass")
    if mutate:
        at = cut % len(message)
        message = message[:at] + replacement + message[at + 1 :]
    scanned = scan_media(message)
    if scanned is not None:
        assert decode_event(message) == Media(*scanned)
