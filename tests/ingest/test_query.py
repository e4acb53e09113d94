"""The query of /transcribe: lenient where media servers are careless, exact where it refuses."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from edge.ingest.query import MediaQuery, parse_media_query


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", MediaQuery()),
        ("transcribe=true&connect=x&useTranscriptionator=1", MediaQuery()),
        ("sessionId=m1&sendBack=true", MediaQuery(session_id="m1", finals=True)),
        ("sessionId=", MediaQuery()),
        ("sendBack=TRUE&sendBackInterim=1", MediaQuery()),
        ("sendBackInterim=true", MediaQuery(interims=True)),
        ("provider=OpenAI&lang=pt-BR", MediaQuery(provider="openai", language="pt-BR")),
        ("useDispatcher=true", MediaQuery(use_dispatcher=True)),
        ("useDispatcher=no", MediaQuery(use_dispatcher=False)),
        ("tag=a&tag=&tag=" + "b" * 128, MediaQuery(labels=("a", "b" * 128))),
        ("deepgram_mip_opt_out=true", MediaQuery(mip_opt_out=True)),
        ("deepgram_mip_opt_out=", MediaQuery(mip_opt_out=False)),
        ("times=true&errors=true&info=false", MediaQuery(times=True, errors=True, info=False)),
        ("sessionId=a&sessionId=b", MediaQuery(session_id="a")),
        ("encoding=ogg-opus", MediaQuery(encoding="ogg-opus")),
        ("encoding=webm", MediaQuery(encoding="webm")),
        ("sessionId=%C3%A9%ZZ%ff", MediaQuery(session_id="é%ZZ\ufffd")),
    ],
)
def test_documented_leniency(query: str, expected: MediaQuery) -> None:
    assert parse_media_query(query) == expected


def test_an_unknown_encoding_is_named_with_the_valid_ones() -> None:
    assert parse_media_query("encoding=pcm") == (
        'Invalid encoding parameter: "pcm". Valid values are: opus, ogg-opus, webm'
    )


def test_an_over_long_tag_is_quoted_in_part_with_its_length() -> None:
    assert parse_media_query("tag=" + "x" * 129) == (
        f'Invalid tag: "{"x" * 50}..." exceeds maximum length of 128 characters (actual: 129)'
    )


@pytest.mark.parametrize(
    ("session_id", "reason"),
    [
        ("x" * 257, "it has 257 bytes of UTF-8, 1 to 256 are allowed"),
        ("%C3%A9" * 129, "it has 258 bytes of UTF-8, 1 to 256 are allowed"),
        ("m%0A1", "it holds a control character"),
        ("m%00", "it holds a control character"),
        ("%7F", "it holds a control character"),
        ("%C2%85", "it holds a control character"),
    ],
)
def test_a_name_that_no_session_can_have_is_refused_with_the_reason(
    session_id: str, reason: str
) -> None:
    assert parse_media_query("sendBack=true&sessionId=" + session_id) == (
        f"Invalid sessionId parameter: {reason}; leave it out or send another name"
    )


@pytest.mark.parametrize("session_id", ["x" * 256, "\u00e9" * 128, "a b/../c", "\u202e"])
def test_any_other_name_up_to_256_bytes_is_taken(session_id: str) -> None:
    assert parse_media_query("sessionId=" + quote(session_id)) == MediaQuery(session_id=session_id)
