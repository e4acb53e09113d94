"""The query of /transcribe: lenient where media servers are careless, exact where it refuses."""

from __future__ import annotations

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
