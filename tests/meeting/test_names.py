"""Names in self-introductions, and who the teacher is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.meeting.names import extract_name, teacher_identity
from edge.meeting.records import IdentitySource, Person, Value

ALICE, BILL = Person("Alice", "a@x"), Person(" Bill ")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("I'm bob, nice", "bob"),
        (" I AM  John   Smith ", "John Smith"),
        ("大家好我叫小明", None),
        ("I am A", None),
        ("I'm from London. My name is Bob", "Bob"),
        ("I’m Zoë", "Zoë"),  # noqa: RUF001
        ("My name is J. R. Smith. Nice to meet you", "J. R. Smith"),
        ("Hello. I am Dr. Jane Doe", "Dr. Jane Doe"),
        ("I am tired. I am Maria", "Maria"),
        ("Yes, I'm ready, and I'm Will Young", "Will Young"),
        ("my name is Ana Maria de la Cruz Lopez", "Ana Maria"),
        ("my name is Ana de la Cruz", "Ana de la Cruz"),
        ("my name is spelled with a K", None),
        ("I'm ahmed", "ahmed"),
        ("I'm Al", "Al"),
        ("I am小明", None),
        ("I am 42", None),
        ("this is miami am I", None),
        ("Kami am Bob", None),
        ("I am", None),
        ("", None),
    ],
)
def test_vector(text: str, name: str | None) -> None:
    assert extract_name(text) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Hi, my name is Alice Johnson. Nice", "Alice Johnson"),
        ("I am happy to be here", None),
        ("My name is O'Brien-Smith and I like tea", "O'Brien-Smith"),
        ("I'm studying in the Netherlands", None),
        ("My name is Tina Tan, and I'm happy to join.", "Tina Tan"),
        ("I am really looking forward to it", None),
        ("I'm a teacher", None),
        ("I'm not sure", None),
        ("I'm doing well, thanks", None),
        ("I'm head of sales", None),
    ],
)
def test_w36_a_name_ends_at_punctuation_and_at_common_words(text: str, name: str | None) -> None:
    assert extract_name(text) == name


@given(st.text(alphabet="iI'amy nAMEs\u2019.-,B é我", max_size=80) | st.text(max_size=200))
def test_any_text_gives_a_name_within_bounds_or_none(text: str) -> None:
    name = extract_name(f"my name is {text}")
    assert name is None or 2 <= len(name) <= 80


@pytest.mark.parametrize(
    ("roster", "config", "text", "wanted"),
    [
        (
            [ALICE, BILL],
            {"teams_interviewer_name": "BILL", "interviewer_name": "Alice"},
            "",
            (" Bill ", "teams_participants"),
        ),
        (
            [ALICE, BILL],
            {"teams_interviewer_name": "Carol", "interviewer_name": " alice "},
            "",
            ("Alice", "teams_participants"),
        ),
        (
            [ALICE],
            {"teams_interviewer_name": "Carol", "interviewer_name": "Dan"},
            "I'm Eve",
            ("Carol", "preconfig"),
        ),
        ([], {"interviewer_name": "Dan"}, "I'm Eve", ("Dan", "preconfig")),
        ([], {"interviewer_name": 7}, "I'm Eve", ("Eve", "name_extract")),
        ([ALICE, BILL], {}, "Let us begin", ("teacher", "teacher")),
    ],
)
def test_the_order_of_what_names_the_teacher(
    roster: list[Person],
    config: dict[str, Value],
    text: str,
    wanted: tuple[str, IdentitySource],
) -> None:
    assert teacher_identity(roster, config, text) == wanted


def test_w36_the_only_entry_of_the_roster_is_not_the_teacher() -> None:
    assert teacher_identity([ALICE], {}, "Let us begin") == ("teacher", "teacher")
    assert teacher_identity([ALICE], {}, "My name is Bill.") == ("Bill", "name_extract")
