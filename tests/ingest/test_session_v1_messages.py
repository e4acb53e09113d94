"""What clients of edge.session.v1 may say, and the query that both session protocols share."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.ingest.listen_query import ListenQuery, ResumePoint, parse_listen_query
from edge.ingest.session_messages import (
    BadMessage,
    Command,
    Hello,
    Ping,
    Resume,
    decode_request,
)


def test_a_hello_without_members_listens() -> None:
    hello = decode_request(b'{"type":"hello"}')
    assert isinstance(hello, Hello)
    assert (hello.role, hello.resume, hello.conflate_ms) == ("listener", None, 100)


def test_members_that_are_not_known_are_ignored() -> None:
    sent = b'{"type":"hello","role":"speaker","later":1,"resume":{"epoch":"e","offset":3,"x":0}}'
    hello = decode_request(sent)
    assert isinstance(hello, Hello) and hello.resume == Resume("e", 3)


def test_a_command_keeps_its_data_for_whoever_reads_it() -> None:
    command = decode_request(b'{"type":"cmd","id":"1","op":"mute","data":{"muted":false}}')
    assert isinstance(command, Command) and bytes(command.data) == b'{"muted":false}'


@pytest.mark.parametrize("id", [b"7", b'"seven"'])
def test_a_ping_may_have_any_id(id: bytes) -> None:
    ping = decode_request(b'{"type":"ping","id":' + id + b"}")
    assert isinstance(ping, Ping) and msgspec.json.encode(ping.id) == id


@pytest.mark.parametrize(
    ("sent", "is_json"),
    [
        (b"", False),
        (b"hello", False),
        (b'{"type":"hel', False),
        (b'{"type":' * 5000, False),
        (b"[]", True),
        (b"{}", True),
        (b'{"type":"hullo"}', True),
        (b'{"type":"hello","role":"king"}', True),
        (b'{"type":"hello","resume":{"epoch":"e","offset":-1}}', True),
        (b'{"type":"hello","resume":{"epoch":"e","offset":1e99}}', True),
        (b'{"type":"hello","conflate_ms":60001}', True),
        (b'{"type":"cmd","id":"","op":"mute"}', True),
        (b'{"type":"cmd","id":"1","op":"explode"}', True),
    ],
)
def test_what_is_no_message_is_told_from_what_is_no_json(sent: bytes, is_json: bool) -> None:
    with pytest.raises(BadMessage) as caught:
        decode_request(sent)
    assert caught.value.is_json is is_json


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(sent: bytes) -> None:
    try:
        decode_request(sent)
    except BadMessage as problem:
        assert str(problem)


def test_the_query_names_session_speaker_and_where_to_go_on() -> None:
    query = "session=st%C3%A4nd&speaker=anna&lang=de&provider=FLUX&resume=9d1e:17&other=1"
    assert parse_listen_query(query) == ListenQuery(
        session="ständ",
        speaker="anna",
        language="de",
        provider="flux",
        resume=ResumePoint("9d1e", 17),
        log=True,
    )


@pytest.mark.parametrize("query", ["", "session=", "session=&speaker="])
def test_an_empty_name_is_none(query: str) -> None:
    assert parse_listen_query(query) == ListenQuery()


@pytest.mark.parametrize(
    "query",
    [
        "session=" + "x" * 257,
        "session=%C3%A4" + "%C3%A4" * 128,
        "session=a%00b",
        "speaker=a%0Ab",
        "speaker=anna/1",
        "speaker=anna%232",
        "speaker=" + "x" * 241,
        "resume=17",
        "resume=e:-1",
        "resume=e:" + "9" * 19,
        "resume=:1",
    ],
)
def test_a_query_that_cannot_be_used_is_named(query: str) -> None:
    problem = parse_listen_query(query)
    assert isinstance(problem, str) and problem.startswith("Invalid ")


@given(st.text(max_size=300))
def test_any_query_is_read_or_refused(query: str) -> None:
    assert isinstance(parse_listen_query(query), ListenQuery | str)
