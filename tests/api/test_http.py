"""The typed HTTP layer: which endpoint a request finds, with what, and how it is refused."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.api.http import ApiError, Call, Endpoint, Endpoints, NoQuery, parse_query
from edge.session.names import name_problem


class Wanted(msgspec.Struct, frozen=True):
    """A query with a choice, a number and a text."""

    format: Annotated[Literal["srt", "txt"], msgspec.Meta(description="one of srt, txt")] = "txt"
    limit: Annotated[int, msgspec.Meta(ge=1, description="a whole number from 1")] = 100
    after: str = ""


class Said(msgspec.Struct):
    """An answer."""

    text: str


async def handle(call: Call[Wanted, None]) -> Said:
    return Said(call.session)


async def plain(call: Call[NoQuery, None]) -> Said:
    return Said(call.method)


ENDPOINTS = Endpoints(
    (
        Endpoint(
            method="GET", path="/v1/sessions", summary="", query=Wanted, answer=Said, handle=handle
        ),
        Endpoint(
            method="GET", path="/v1/sessions/{session}", summary="", query=Wanted, handle=handle
        ),
        Endpoint(
            method="DELETE", path="/v1/sessions/{session}", summary="", query=NoQuery, handle=plain
        ),
        Endpoint(method="GET", path="/sessions/metrics", summary="", query=NoQuery, handle=plain),
    )
)


def refused(method: str, target: str) -> ApiError:
    with pytest.raises(ApiError) as error:
        ENDPOINTS.find(method, target)
    return error.value


@pytest.mark.parametrize(
    ("target", "session"),
    [
        ("/v1/sessions", ""),
        ("/v1/sessions/", ""),
        ("/v1/sessions/standup", "standup"),
        ("/v1/sessions/standup///", "standup"),
        ("/v1/sessions/a%2Fb%20c", "a/b c"),
        ("/v1/sessions/%E4%BC%9A%E8%AD%B0?limit=3", "会議"),
        ("/v1/sessions/%2e%2e", ".."),
        ("/v1/sessions/a+b", "a+b"),
        ("/v1/sessions/" + "x" * 256, "x" * 256),
    ],
)
def test_a_path_names_its_session(target: str, session: str) -> None:
    _, call = ENDPOINTS.find("GET", target)
    assert call.session == session


@given(st.text(min_size=1).filter(lambda name: name_problem(name) is None))
def test_every_name_that_a_session_can_have_can_be_asked_for(name: str) -> None:
    _, call = ENDPOINTS.find("DELETE", f"/v1/sessions/{quote(name, safe='')}")
    assert call.session == name


@pytest.mark.parametrize(
    "segment", ["%", "%zz", "%4", "%ff", "%00", "a%0Ab", "%7F", "%C2%85", "x" * 257, "%C3"]
)
def test_a_name_that_no_session_can_have_is_refused(segment: str) -> None:
    error = refused("GET", f"/v1/sessions/{segment}")
    assert (error.status, error.body.code) == (400, "bad_session")


@given(st.binary(max_size=400), st.sampled_from(["GET", "DELETE", "POST"]))
def test_no_target_is_answered_with_anything_but_a_refusal(raw: bytes, method: str) -> None:
    target = "/v1/sessions/" + raw.decode("latin-1")
    try:
        ENDPOINTS.find(method, target)
    except ApiError as error:
        assert 400 <= error.status <= 405 and error.body.detail


@pytest.mark.parametrize("target", ["/v1", "/v1/", "/v1/x", "/v1/sessions/a/b", "/v1/sessions//"])
def test_what_is_not_there_is_404_or_the_list(target: str) -> None:
    if target == "/v1/sessions//":
        assert ENDPOINTS.find("GET", target)[0].path == "/v1/sessions"
    else:
        assert refused("GET", target).status == 404


def test_a_wrong_method_is_told_the_right_ones() -> None:
    error = refused("PATCH", "/v1/sessions/s")
    assert (error.status, error.headers["Allow"]) == (405, "DELETE, GET, HEAD")
    assert refused("POST", "/sessions/metrics").headers["Allow"] == "GET, HEAD"


def test_head_finds_what_get_finds() -> None:
    endpoint, call = ENDPOINTS.find("HEAD", "/v1/sessions/s")
    assert endpoint.method == call.method == "GET"


def test_only_its_own_paths_are_answered_here() -> None:
    for target in ("/v1", "/v1/x?y", "/v1/sessions", "/sessions/metrics", "/sessions/metrics?x"):
        assert ENDPOINTS.has(target), target
    for target in ("/", "/health", "/v10/x", "/sessions", "/transcribe", "*", "/sessions/metrics2"):
        assert not ENDPOINTS.has(target), target


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", Wanted()),
        ("format=srt&limit=7&after=a%20b", Wanted("srt", 7, "a b")),
        ("format=&limit=%20&other=1", Wanted()),
        ("limit=3&limit=x", Wanted(limit=3)),
        ("format=%20srt%20&after=+x+", Wanted("srt", 100, " x ")),
    ],
)
def test_a_query_is_read(text: str, query: Wanted) -> None:
    assert parse_query(text, Wanted) == query


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("format=docx", "format='docx' cannot be used: one of srt, txt"),
        ("limit=0", "limit='0' cannot be used: a whole number from 1"),
        ("limit=2.5", "limit='2.5' cannot be used: a whole number from 1"),
        ("after=%ff", "not UTF-8"),
        ("&".join("a=1" for _ in range(200)), "over 100 fields"),
    ],
)
def test_a_query_that_cannot_be_used_says_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(ApiError) as error:
        parse_query(text, Wanted)
    assert (error.value.status, error.value.body.code) == (400, "bad_query")
    assert said in error.value.body.detail
