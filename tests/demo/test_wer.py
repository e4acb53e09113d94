"""Word error rate against worked examples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.demo.wer import WordErrors, align, compare, total, words


@pytest.mark.parametrize(
    ("reference", "heard", "errors"),
    [
        ("a b c", "a b c", (0, 0, 0)),
        ("a b c", "a x c", (1, 0, 0)),
        ("a b c", "a c", (0, 1, 0)),
        ("a b c", "a b b c", (0, 0, 1)),
        ("a b c", "", (0, 3, 0)),
        ("", "a b", (0, 0, 2)),
        ("", "", (0, 0, 0)),
        ("the cat sat on the mat", "the cat sat on mat", (0, 1, 0)),
        ("so the cat sat there", "the cat sit right there", (1, 1, 1)),
        ("a b c d", "b c d e", (0, 1, 1)),
    ],
)
def test_vectors(reference: str, heard: str, errors: tuple[int, int, int]) -> None:
    found = compare(reference, heard)
    assert (found.substituted, found.deleted, found.inserted) == errors
    assert found.reference_words == len(reference.split())


def test_case_and_punctuation_do_not_count() -> None:
    heard = "“Ever tried. Ever failed? No matter — try again, fail-again; fail better!”"
    assert compare("ever tried ever failed no matter try again fail again fail better", heard) == (
        WordErrors(reference_words=12)
    )


def test_apostrophes_stay_inside_words() -> None:
    assert words("It\u2019s 'quoted' o'clock") == ["it's", "quoted", "o'clock"]


def test_rate_is_over_the_words_that_were_said() -> None:
    assert compare("a b c d", "a x c").rate == 0.5
    assert compare("", "a").rate == 1.0


def test_total_weighs_by_words() -> None:
    assert total([compare("a b c d e f g", "a b c d e f g"), compare("a", "b")]).rate == 1 / 8


sentences = st.lists(st.sampled_from("abcd"), max_size=12)


@given(sentences, sentences)
def test_no_cheaper_than_the_length_difference_nor_dearer_than_replacing(
    reference: list[str], heard: list[str]
) -> None:
    found = align(reference, heard)
    assert found.inserted - found.deleted == len(heard) - len(reference)
    assert abs(len(heard) - len(reference)) <= found.errors <= max(len(heard), len(reference))
    assert align(heard, reference).errors == found.errors
    assert (found.errors == 0) == (reference == heard)
