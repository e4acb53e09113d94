"""Cues: their order, their lengths, their escapes."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.api.subtitles import (
    CUE_LINES,
    LINE_WIDTH,
    Cue,
    Flattened,
    InOrder,
    Piece,
    clock,
    new_cue,
    pieces,
    srt_piece,
    vtt_piece,
    width,
    wrap,
)


def cue(start_ms: int, end_ms: int, text: str = "word", speaker: str = "ann") -> Cue:
    found = new_cue(start_ms, end_ms, speaker, text)
    assert found is not None
    return found


def ordered(cues: list[Cue], most_waiting: int = 1000) -> list[Cue]:
    in_order = InOrder(most_waiting)
    return [ready for each in cues for ready in in_order.add(each)] + list(in_order.rest())


def test_times_are_written_with_growing_hours() -> None:
    assert clock(3_723_004, ",") == "01:02:03,004"
    assert clock(360_000_000, ".") == "100:00:00.000"


def test_a_cue_is_one_line_that_can_be_seen() -> None:
    found = new_cue(-5.0, -3.0, "  A\nB ", " two\n\r\nlines\u2028of\x00 text ")
    assert found == Cue(0, 200, "A B", "two lines of text")
    assert new_cue(0, 1000, "ann", " \n ") is None
    unnamed = new_cue(0, 1000, "speaker", "x")
    assert unnamed is not None and unnamed.speaker == ""


def test_cues_of_several_speakers_are_put_in_order_and_may_overlap() -> None:
    long, short = cue(0, 9000, "long"), cue(2000, 3000, "short", "bob")
    assert ordered([short, long]) == [cue(0, 9000, "long"), cue(2000, 3000, "short", "bob")]


def test_cues_of_one_speaker_do_not_overlap() -> None:
    assert ordered([cue(0, 2500), cue(2000, 3000)]) == [cue(0, 2000), cue(2000, 3000)]


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 3000), st.sampled_from("abc"))),
    st.integers(1, 5),
)
def test_starts_never_go_back_and_nothing_is_lost(
    spoken: list[tuple[int, int, str]], most_waiting: int
) -> None:
    cues = [
        cue(start, start + length, f"w{n}", who) for n, (start, length, who) in enumerate(spoken)
    ]
    found = ordered(cues, most_waiting)
    assert [each.start_ms for each in found] == sorted(each.start_ms for each in found)
    assert sorted(each.text for each in found) == sorted(f"w{n}" for n in range(len(spoken)))
    assert all(each.end_ms > each.start_ms for each in found)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("short", ["short"]),
        ("x" * 42, ["x" * 42]),
        ("a" * 30 + " " + "b" * 12, ["a" * 30, "b" * 12]),
        ("x" * 50, ["x" * 42, "x" * 8]),
        ("会" * 21, ["会" * 21]),
        ("会" * 20 + "议。好", ["会" * 20, "议。好"]),
        ("mixed 会议 text", ["mixed 会议 text"]),
        ("e\u0301" * 21 + "e\u0301", ["e\u0301" * 21, "e\u0301"]),
    ],
)
def test_lines_are_broken_where_they_can_be(text: str, lines: list[str]) -> None:
    assert wrap(text) == lines


@given(st.text(alphabet=st.sampled_from("ab é会議。ー한 \U0001f600x")))
def test_no_line_is_too_long_and_no_character_is_lost(text: str) -> None:
    lines = wrap(" ".join(text.split()))
    assert all(0 < width(line) <= LINE_WIDTH for line in lines)
    assert "".join(lines).replace(" ", "") == "".join(text.split())


def test_a_long_final_becomes_cues_that_share_its_time() -> None:
    text = " ".join(f"word{number:02}" for number in range(30))
    found = pieces(cue(1000, 11_000, text), "ann: ")
    assert len(found) == 3
    assert found[0].start_ms == 1000 and found[-1].end_ms == 11_000
    assert all(a.end_ms == b.start_ms for a, b in pairwise(found))
    assert all(len(piece.lines) <= CUE_LINES for piece in found)
    assert " ".join(line for piece in found for line in piece.lines) == "ann: " + text


def test_a_long_final_leaves_the_others_in_order() -> None:
    text = " ".join(f"word{number:02}" for number in range(30))
    flattened = Flattened()
    shown: list[tuple[Piece, Cue]] = []
    for each in ordered([cue(0, 10_000, text), cue(4000, 5000, "interrupted", "bob")]):
        shown += flattened.add(each)
    shown += flattened.rest()
    starts = [piece.start_ms for piece, _ in shown]
    assert starts == sorted(starts) and len(shown) == 4
    assert [said.speaker for _, said in shown].index("bob") not in (0, 3)


def test_webvtt_is_escaped_and_names_its_speaker() -> None:
    said = cue(0, 1500, "a < b && c --> d", "<Ann> & Bob")
    assert vtt_piece(pieces(said)[0], said) == (
        "00:00:00.000 --> 00:00:01.500\n<v &lt;Ann&gt; &amp; Bob>a &lt; b &amp;&amp; c --&gt; d\n\n"
    )


def test_subrip_holds_nothing_that_players_take_as_markup() -> None:
    said = cue(0, 1500, "<i>x</i> {\\an8} --> y & z")
    text = srt_piece(7, pieces(said, "ann: ")[0])
    number, times, line, *rest = text.split("\n")
    assert (number, times, rest) == ("7", "00:00:00,000 --> 00:00:01,500", ["", ""])
    assert not re.search(r"[<>{}]|-->", line) and line.startswith("ann: ") and "& z" in line
