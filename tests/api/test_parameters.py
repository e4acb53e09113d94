"""Numbers and words in queries, as recorders have always sent them."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.api.http import ApiError, parse_query
from edge.api.parameters import ROLE, count, whole_number
from edge.meeting.records import Role


class Wanted(msgspec.Struct, frozen=True):
    """A query with each kind of parameter."""

    stream_role: Annotated[Role, ROLE] = "mixed"
    limit: Annotated[int, count(50, 1000)] = 50
    max_windows: Annotated[int, count(0)] = 0
    key: Annotated[str, msgspec.Meta(extra={"header": "x-key"})] = ""


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("007", 7),
        ("+7", 7),
        ("5.0", 5),
        ("5.", 5),
        ("1e2", 100),
        ("0x10", 16),
        ("0b11", 3),
        ("0o17", 15),
        ("2.5", None),
        ("0", None),
        ("-3", None),
        ("-0", None),
        ("0x0", None),
        ("+0x10", None),
        ("1_000", None),
        ("1e999", None),
        ("Infinity", None),
        ("NaN", None),
        ("three", None),
        ("٣", None),
        ("9" * 401, None),
    ],
)
def test_a_number_is_what_javascript_makes_of_it(text: str, number: int | None) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize(
    ("limit", "used"),
    [
        ("", 50),
        ("%20", 50),
        ("7", 7),
        ("%207%20", 7),
        ("2.5", 50),
        ("0", 50),
        ("-1", 50),
        ("many", 50),
        ("1000", 1000),
        ("5000", 1000),
        ("1e300", 1000),
    ],
)
def test_a_bad_limit_is_the_default_and_a_big_one_the_cap(limit: str, used: int) -> None:
    assert parse_query(f"limit={limit}", Wanted).limit == used


def test_a_count_without_a_cap_has_none() -> None:
    assert parse_query("max_windows=123456", Wanted).max_windows == 123456


@pytest.mark.parametrize(
    ("text", "role"),
    [("", "mixed"), ("%20", "mixed"), ("TEACHER", "teacher"), ("%20Students+", "students")],
)
def test_a_role_is_read_in_any_case(text: str, role: Role) -> None:
    assert parse_query(f"stream_role={text}", Wanted).stream_role == role


@pytest.mark.parametrize("text", ["all", "teachers", "\u017ftudents", "teacher,students"])
def test_another_role_is_refused_by_name(text: str) -> None:
    with pytest.raises(ApiError) as error:
        parse_query(f"stream_role={text}", Wanted)
    assert error.value.status == 400
    assert error.value.body.detail.endswith("one of mixed, teacher, students, in any case")


def test_a_parameter_may_come_in_a_header() -> None:
    assert parse_query("x-key=query&key=query", Wanted, {"x-key": " k 1 "}).key == " k 1 "


@given(st.text())
def test_no_text_breaks_a_number(text: str) -> None:
    number = whole_number(text)
    assert number is None or number >= 1
