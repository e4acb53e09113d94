"""Media events read in one pass give what a JSON parser and a base64 decoder give, or nothing."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from _native.envelope import scan_media

PAYLOAD = base64.b64encode(bytes(range(250, 256)) * 13).decode()
BRIDGE = (
    '{"event":"media","sequenceNumber":"2","media":{"tag":"aaaaaaaa-305123557","chunk":"31456",'
    f'"timestamp":"268460","payload":"{PAYLOAD}"}},"event":"media"}}'
)

Answer = tuple[str, int | None, int | None, bytes]


def parsed(message: bytes) -> Answer:
    """The oracle: a media event by ``json`` and strict base64; raises for whatever is not one."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if any(found[name] != value for name, value in pairs):
            raise ValueError("a member has two values")
        return found

    def integer(value: Any) -> int | None:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | str)):
            raise ValueError("not an integer")
        return None if value is None else int(value)

    document = json.loads(message.decode("utf-8"), object_pairs_hook=members)
    if document["event"] != "media":
        raise ValueError("another event")
    media = document["media"]
    if not isinstance(media["tag"], str) or not media["tag"] or not media["payload"]:
        raise ValueError("nothing to decode, or nobody to decode it for")
    return (
        media["tag"],
        integer(media.get("chunk")),
        integer(media.get("timestamp")),
        base64.b64decode(media["payload"], validate=True),
    )


def media_event(**members: str) -> bytes:
    """A media event whose media members are the given JSON texts over the usual ones."""
    usual = {"tag": '"a1-b"', "chunk": '"7"', "timestamp": '"960"', "payload": '"AAEC"'}
    media = ",".join(f'"{name}":{text}' for name, text in (usual | members).items() if text)
    return f'{{"event":"media","media":{{{media}}}}}'.encode()


def test_reads_what_a_bridge_sends() -> None:
    assert scan_media(BRIDGE.encode()) == (
        "aaaaaaaa-305123557",
        31456,
        268460,
        bytes(range(250, 256)) * 13,
    )


@pytest.mark.parametrize(
    "message",
    [
        media_event(chunk="7", timestamp="960"),
        media_event(chunk="0", timestamp="0"),
        media_event(chunk='"-12"', timestamp="-34"),
        media_event(chunk="999999999999999999", timestamp='"-999999999999999999"'),
        media_event(audioLevel="127", vad="true"),
        media_event(vad="false", note='"plain text"', nothing="null", audioLevel="0"),
        media_event(tag='"Zoë-日本-😀"'),
        media_event(tag=f'"{"é" * 128}"'),
        media_event(tag='"a/b\x7f"'),
        media_event(payload='"AA=="'),
        media_event(payload='"AAE="'),
        media_event(payload='"+/+/"'),
        media_event(payload=f'"{"A" * 40000}"'),
        b' \t\r\n{ "media" : {"payload":"AAEC" , "timestamp": 3 ,"chunk" :2,\n"tag":"t" } ,'
        b' "event" : "media", "sequenceNumber": 17 } \n',
        b'{"media":{"tag":"t","payload":"AAEC"},"event":"media","event":"media"}',
    ],
)
def test_reads_the_shapes_that_servers_may_send(message: bytes) -> None:
    assert scan_media(message) == parsed(message)


def test_absent_numbers_are_none() -> None:
    assert scan_media(media_event(chunk="", timestamp="")) == ("a1-b", None, None, b"\0\1\2")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'"media"',
        b'{"event":"media"}',
        b'{"event":"media","media":null}',
        b'{"event":"media","media":[]}',
        b'{"event":"media","media":{}}',
        b'{"event":"ping","id":1}',
        b'{"event":"start","media":{"tag":"t","payload":"AAEC"}}',
        b'{"media":{"tag":"t","payload":"AAEC"}}',
        b'{"event":"media","media":{"tag":"t","payload":"AAEC"},"event":"stop"}',
        b'{"event":"media","media":{"tag":"t","payload":"AAEC"},"media":{"tag":"t","payload":"AAEC"}}',
        b'{"event":"media","media":{"tag":"t","payload":"AAEC"},"x":1,"x":1}',
        b'{"event":"media","media":{"tag":"t","payload":"AAEC"},}',
        b'{"event":"media" "media":{"tag":"t","payload":"AAEC"}}',
        b'{"event":"media","media":{"tag":"t","payload":"AAEC"}',
        b'{"event":"media","media":{"tag":"t","payload":"AAEC"}}}',
        b'{"event":"media","media":{"tag":"t","payload":"AAEC"}}\x00',
        b'\xef\xbb\xbf{"event":"media","media":{"tag":"t","payload":"AAEC"}}',
        b'{"event":"media","media":{"tag":"t","payload":"AAEC"},"x":{}}',
        b'{"event":"media","media":{"tag":"t","payload":"AAEC"},"x":[1]}',
        b'{"event":"media","media":{"tag":"t","payload":"AAEC","tag":"t"}}',
        b'{"event":"media","media":{"tag":"t","payload":"AAEC","payload":"AAEC"}}',
        b'{"ev\\u0065nt":"start","event":"media","media":{"tag":"t","payload":"AAEC"}}',
        b'{"event":"media","media":{"tag":"t","payload":"AAEC"},"n\xc3\xb6":1}',
        media_event(tag='""'),
        media_event(tag=""),
        media_event(tag="7"),
        media_event(tag=f'"{"a" * 257}"'),
        media_event(tag='"a\\"b"'),
        media_event(tag='"a\\u0062"'),
        media_event(tag='"a\x1fb"'),
        media_event(tag='"a\nb"'),
        media_event().replace(b"a1-b", b"\xff"),
        media_event().replace(b"a1-b", b"\xc0\xaf"),
        media_event().replace(b"a1-b", b"\xed\xa0\x80"),
        media_event(payload=""),
        media_event(payload="null"),
        media_event(payload='""'),
        media_event(payload='"===="'),
        media_event(payload='"A==="'),
        media_event(payload='"AAE"'),
        media_event(payload='"AA"'),
        media_event(payload='"AA=A"'),
        media_event(payload='"AA==AAEC"'),
        media_event(payload='"AB=="'),
        media_event(payload='"AAF="'),
        media_event(payload='"-_-_"'),
        media_event(payload='"AA\\/C"'),
        media_event(payload='"AA C"'),
        media_event(payload='"A\nAEC"'),
        media_event(payload='"AAEC'),
        media_event(chunk='""'),
        media_event(chunk='"-"'),
        media_event(chunk="-"),
        media_event(chunk="-0"),
        media_event(chunk="007"),
        media_event(chunk='"007"'),
        media_event(chunk='" 7"'),
        media_event(chunk='"7 "'),
        media_event(chunk="+7"),
        media_event(chunk="7.0"),
        media_event(chunk="7e2"),
        media_event(chunk='"7x"'),
        media_event(chunk='"1_000"'),
        media_event(chunk='"\u0667"'),
        media_event(chunk="true"),
        media_event(chunk="null"),
        media_event(chunk="{}"),
        media_event(chunk="1" + "0" * 18),
        media_event(chunk="9" * 400),
        media_event(level="0.5"),
        media_event(level="1e3"),
        media_event(level="truth"),
        media_event(level="NaN"),
        media_event(level="[]"),
        media_event(level='"\\n"'),
        media_event(**{f"member{number}": "1" for number in range(13)}),
    ],
)
def test_leaves_whatever_it_does_not_know_to_the_full_parser(message: bytes) -> None:
    assert scan_media(message) is None


def test_takes_bytes_only() -> None:
    for message in ("{}", bytearray(b"{}"), None):
        with pytest.raises(TypeError):
            scan_media(message)  # type: ignore[arg-type]


def check(message: bytes) -> None:
    """An answer is the oracle's answer, and one the oracle does give."""
    if (answer := scan_media(message)) is not None:
        assert answer == parsed(message)


def spaced(texts: list[str], spaces: list[str]) -> str:
    return "".join(text + spaces[place % len(spaces)] for place, text in enumerate(texts))


numbers = st.integers(-(10**18) + 1, 10**18 - 1).flatmap(
    lambda value: st.sampled_from([str(value), f'"{value}"'])
)
extras = st.one_of(
    st.booleans(), st.none(), st.integers(-500, 500), st.text("abc XYZ/_:,{}[]", max_size=8)
).map(json.dumps)


@st.composite
def media_events(draw: st.DrawFn) -> bytes:
    """Well-formed media events in every order and spacing."""
    tag = draw(
        st.text(
            st.characters(min_codepoint=0x20, exclude_categories=["Cs"], exclude_characters='"\\'),
            min_size=1,
            max_size=40,
        )
    )
    payload = base64.b64encode(draw(st.binary(min_size=1, max_size=60))).decode()
    media = {"tag": f'"{tag}"', "payload": f'"{payload}"'}
    for name, values in (("chunk", numbers), ("timestamp", numbers)):
        if draw(st.booleans()):
            media[name] = draw(values)
    media |= draw(st.dictionaries(st.sampled_from(["audioLevel", "vad", "x"]), extras))
    inner = [f'"{name}":{text}' for name, text in draw(st.permutations(list(media.items())))]
    spaces = draw(st.lists(st.sampled_from(["", "", " ", "\n", "\t \r"]), min_size=1, max_size=7))
    outer = {"media": "{" + ",".join(inner) + "}"}
    outer |= draw(st.dictionaries(st.sampled_from(["sequenceNumber", "id", "more"]), extras))
    members = [*outer.items(), ("event", '"media"')]
    members += [("event", '"media"')] * draw(st.integers(0, 2))
    tokens = ["{"]
    for place, (name, text) in enumerate(draw(st.permutations(members))):
        tokens += [*([","] if place else []), f'"{name}"', ":", text]
    return spaced([*tokens, "}"], spaces).encode()


@given(media_events())
def test_reads_every_well_formed_media_event(message: bytes) -> None:
    assert scan_media(message) == parsed(message)


changes = st.tuples(
    st.sampled_from(["set", "insert", "delete", "repeat", "truncate"]),
    st.integers(0, 400),
    st.integers(1, 12),
    st.one_of(st.sampled_from(list(b'"\\{}[],:=+-_/. \n\x00\x1f0a\xc3\xff')), st.integers(0, 255)),
)


def changed(message: bytes, how: list[tuple[str, int, int, int]]) -> bytes:
    text = bytearray(message)
    for kind, place, length, byte in how:
        at = place % (len(text) + 1)
        if kind == "set":
            text[at : at + 1] = bytes([byte])
        elif kind == "insert":
            text[at:at] = bytes([byte])
        elif kind == "delete":
            del text[at : at + length]
        elif kind == "repeat":
            text[at:at] = text[at : at + 4 * length]
        else:
            del text[at:]
    return bytes(text)


@settings(max_examples=2000)
@given(
    st.one_of(st.just(BRIDGE.encode()), media_events()), st.lists(changes, min_size=1, max_size=4)
)
@example(BRIDGE.encode(), [("truncate", 0, 1, 0)])
def test_an_answer_to_mutated_text_is_the_full_parsers_answer(
    message: bytes, how: list[tuple[str, int, int, int]]
) -> None:
    check(changed(message, how))


@pytest.mark.parametrize("byte", range(256))
def test_each_byte_at_each_place_is_judged_as_the_full_parser_does(byte: int) -> None:
    message = media_event(tag='"é1"', payload='"AAE="', vad="true", audioLevel="12")
    for place in range(len(message)):
        check(message[:place] + bytes([byte]) + message[place + 1 :])
        check(message[:place] + bytes([byte]) + message[place:])


def test_each_cut_is_judged_as_the_full_parser_does() -> None:
    message = BRIDGE.encode()
    for start in range(len(message)):
        assert scan_media(message[:start]) is None
        for end in (start + 1, start + 5, start + 40):
            check(message[:start] + message[end:])
            check(message[:start] + message[start:end] + message[start:])


@given(st.binary(max_size=200))
def test_noise_is_not_a_media_event(message: bytes) -> None:
    check(message)
