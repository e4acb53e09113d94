"""Where one connection's text ends and the next one's begins."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.asr.seam import GUESS_MS, Seam, unsaid, words_of

WORD_MS = 500.0


@pytest.mark.parametrize(
    ("told", "text", "new"),
    [
        ("one two", "three four", "three four"),
        ("one two", "two three", "three"),
        ("one two", "One, two; three.", "three."),
        ("one two", "two", ""),
        ("one two three", "two three", ""),
        ("one two three", "one two", ""),
        ("two three", "one two three four", "one four"),
        ("one two", "Two", ""),
        ("it isn't so", "Isn\u2019t so, no?", "Isn\u2019t so, no?"),
        ("it isn't so", "isn't so, no?", "no?"),
        ("one two three", "o two three four", "four"),
        ("one two", "o two four", "o two four"),
        ("我们今天", "今天去了", "去了"),
        ("", "one", "one"),
        ("one", "...", "..."),
    ],
)
def test_words_told_already_are_left_out(told: str, text: str, new: str) -> None:
    assert unsaid(words_of(told), text) == new


@given(st.lists(st.sampled_from("abc"), max_size=6), st.lists(st.sampled_from("abcd"), max_size=6))
def test_what_is_left_is_part_of_the_text_in_its_order(told: list[str], said: list[str]) -> None:
    left = iter(said)
    assert all(word in left for word in unsaid(told, " ".join(said)).split())


class Service:
    """Hears the words of a track, each ``WORD_MS`` long and named by its number."""

    def __init__(self, seam: Seam, words: int) -> None:
        self.seam = seam
        self.words = words
        self.told: list[str] = []

    def say(self, first: int, last: int, dealt: int) -> None:
        """The final of words ``first`` to ``last``, all before ``dealt`` having theirs."""
        text = " ".join(f"w{number}" for number in range(first, last))
        new = self.seam.final(first * WORD_MS, last * WORD_MS, dealt * WORD_MS, text)
        self.told += new.split()


@st.composite
def connections(draw: st.DrawFn) -> tuple[int, list[tuple[list[tuple[int, int]], int]]]:
    """Sizes of utterances in each of several connections, and how many finals each one tells."""
    words = draw(st.integers(1, 20))
    cuts = draw(st.lists(st.integers(0, words), max_size=8))
    edges = sorted({0, words, *cuts})
    utterances = list(itertools.pairwise(edges))
    spoken = draw(st.permutations(range(len(utterances))))
    lives = draw(st.lists(st.integers(0, len(utterances)), max_size=4))
    return words, [([utterances[index] for index in spoken], life) for life in lives] + [
        (utterances, len(utterances))
    ]


@given(connections())
def test_with_exact_times_every_word_is_told_once_in_whatever_order_finals_come(
    given_: tuple[int, list[tuple[list[tuple[int, int]], int]]],
) -> None:
    """Connections end after any number of finals, and the last one tells the rest."""
    words, lives = given_
    seam = Seam()
    service = Service(seam, words)
    for utterances, life in lives:
        seam.begin(exact=True)
        begin = seam.mark_ms / WORD_MS
        owed = [each for each in utterances if each[1] > begin]
        for index, (first, last) in enumerate(owed[:life]):
            waiting = [other[0] for other in owed[index + 1 :]]
            told = [other[1] for other in owed[: index + 1]]
            service.say(first, last, min([max(told), *waiting]))
    assert sorted(service.told) == sorted(f"w{number}" for number in range(words))


def test_an_exact_final_that_ends_before_the_connection_began_is_known() -> None:
    seam = Seam()
    seam.settle(2000)
    seam.begin(exact=True)
    assert seam.final(1500, 2000, 2000, "again") == ""
    assert seam.final(1500, 2400, 2400, "new") == "new"


def test_a_blank_final_only_moves_the_mark() -> None:
    seam = Seam()
    assert seam.final(0, 900, 900, " ") == ""
    assert seam.mark_ms == 900


def test_what_one_connection_says_twice_was_said_twice() -> None:
    seam = Seam()
    seam.begin(exact=False)
    assert seam.final(0, 500, 500, "no") == "no"
    assert seam.final(500, 1000, 1000, "no") == "no"


def say_all(seam: Seam, finals: Sequence[tuple[str, float, float]]) -> list[str]:
    told = [seam.final(start_ms, end_ms, end_ms, text) for text, start_ms, end_ms in finals]
    return [text for text in told if text]


def test_estimated_times_are_not_trusted_and_the_overlap_is_matched_by_words() -> None:
    seam = Seam()
    seam.begin(exact=False)
    assert say_all(seam, [("one two", 0, 4000), ("three four five", 4000, 8000)])
    assert seam.mark_ms == 8000 - GUESS_MS, "audio is kept for as long as times may be off"
    seam.begin(exact=False)
    assert say_all(seam, [("Four, five, six", 6300, 9500), ("seven", 9500, 10_000)]) == [
        "six",
        "seven",
    ]


def test_interims_leave_out_what_is_told_already_too() -> None:
    seam = Seam()
    seam.begin(exact=False)
    say_all(seam, [("one two three", 0, 5000)])
    seam.begin(exact=False)
    heard = ("two", "two three", "two three four")
    assert [seam.interim(text) for text in heard] == ["", "", "four"]


def test_a_recognizer_with_exact_times_after_one_that_estimates_goes_by_words() -> None:
    seam = Seam()
    seam.begin(exact=False)
    say_all(seam, [("one two three", 0, 5000)])
    seam.begin(exact=True)
    assert say_all(seam, [("two three four", 3000, 6500)]) == ["four"]
