"""End points from speech probabilities alone, in virtual time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.asr.embedded.segmenter import (
    FRAME,
    LONGEST,
    PRE_ROLL,
    SPECULATE,
    TAIL,
    Closed,
    Decision,
    Discarded,
    Opened,
    Paused,
    Resumed,
    Segmenter,
)

SPEECH, UNSURE, SILENCE = 0.95, 0.42, 0.02


def frames(seconds: float) -> int:
    return round(seconds * 16000 / FRAME)


def drive(segmenter: Segmenter, *stretches: tuple[float, float]) -> list[Decision]:
    """Feed (probability, seconds) stretches; every decision in order."""
    return [
        decision
        for probability, seconds in stretches
        for _ in range(frames(seconds))
        for decision in segmenter.step(probability, 0.1)
    ]


def test_silence_decides_nothing():
    segmenter = Segmenter(400)
    assert drive(segmenter, (SILENCE, 60)) == []
    assert segmenter.flush() is None
    assert segmenter.position - segmenter.needed_from == PRE_ROLL


def test_an_utterance_opens_with_pre_roll_is_guessed_and_closes_after_its_silence():
    segmenter = Segmenter(400)
    lead, spoken = frames(2) * FRAME, frames(1) * FRAME
    opened, paused, closed = drive(segmenter, (SILENCE, 2), (SPEECH, 1), (SILENCE, 1))
    assert opened == Opened(lead - PRE_ROLL)
    assert paused == Paused(opened.start, lead + spoken + SPECULATE)
    assert closed == Closed(opened.start, lead + spoken + TAIL, lead, lead + spoken)


def test_the_closing_comes_with_the_frame_that_completes_the_silence():
    segmenter = Segmenter(400)
    drive(segmenter, (SPEECH, 1))
    silent = 0
    while segmenter.is_open:
        segmenter.step(SILENCE, 0.0)
        silent += 1
    assert 368 <= silent * 32 <= 416


def test_speech_after_a_guess_takes_it_back_and_a_new_pause_guesses_anew():
    segmenter = Segmenter(400)
    decisions = drive(segmenter, (SPEECH, 1), (SILENCE, 0.3), (SPEECH, 1), (SILENCE, 1))
    assert [type(each) for each in decisions] == [Opened, Paused, Resumed, Paused, Closed]


def test_unsure_frames_neither_start_speech_nor_end_it():
    segmenter = Segmenter(400)
    assert drive(segmenter, (UNSURE, 5)) == []
    assert [type(each) for each in drive(segmenter, (SPEECH, 0.5), (UNSURE, 5))] == [Opened]


def test_unsure_frames_do_not_interrupt_a_silence():
    segmenter = Segmenter(400)
    decisions = drive(segmenter, (SPEECH, 1), (SILENCE, 0.1), (UNSURE, 0.4))
    assert isinstance(decisions[-1], Closed)


def test_a_click_is_discarded_without_a_guess():
    segmenter = Segmenter(400)
    decisions = drive(segmenter, (SILENCE, 1), (SPEECH, 0.064), (SILENCE, 1))
    assert [type(each) for each in decisions] == [Opened, Discarded]


def test_segments_share_no_audio_even_when_speech_resumes_at_once():
    segmenter = Segmenter(200)
    decisions = drive(segmenter, (SPEECH, 1), (SILENCE, 0.25), (SPEECH, 1), (SILENCE, 1))
    first, second = (each for each in decisions if isinstance(each, Closed))
    assert second.start == first.end
    assert second.start >= first.speech_end


def test_flush_ends_the_open_utterance_now():
    segmenter = Segmenter(400)
    drive(segmenter, (SPEECH, 1))
    closed = segmenter.flush()
    assert closed == Closed(0, segmenter.position, 0, segmenter.position)
    assert segmenter.flush() is None
    assert not segmenter.is_open


def test_a_long_segment_takes_a_shorter_pause():
    segmenter = Segmenter(400)
    assert not any(
        isinstance(each, Closed) for each in drive(segmenter, (SPEECH, 7), (SILENCE, 0.3))
    )
    decisions = drive(segmenter, (SPEECH, 3), (SILENCE, 0.3))
    assert isinstance(decisions[-1], Closed)


def test_speech_without_a_pause_is_cut_at_its_quietest_moment():
    segmenter = Segmenter(400)
    decisions: list[Decision] = []
    quiet = frames(18)
    for number in range(frames(21)):
        decisions += segmenter.step(SPEECH, 0.01 if number == quiet else 0.2)
    _, closed, again = decisions
    assert isinstance(closed, Closed)
    assert closed.end == quiet * FRAME + FRAME // 2
    assert again == Opened(closed.end)
    assert segmenter.needed_from == closed.end


@given(
    st.lists(st.tuples(st.sampled_from([SPEECH, UNSURE, SILENCE]), st.integers(1, 40)), max_size=60)
)
def test_segments_are_ordered_disjoint_and_within_limits(runs: list[tuple[float, int]]):
    """Whatever the probabilities: no overlap, no sample of the future, no segment over 20 s."""
    segmenter = Segmenter(400)
    last_end = 0
    is_open = False
    for probability, count in runs:
        for _ in range(count):
            needed = segmenter.needed_from
            for decision in segmenter.step(probability, 0.1):
                if isinstance(decision, Opened):
                    assert not is_open
                    assert decision.start >= max(last_end, needed)
                    is_open = True
                elif isinstance(decision, Closed | Discarded):
                    assert is_open
                    is_open = False
                if isinstance(decision, Closed):
                    assert decision.start >= last_end
                    assert decision.start <= decision.speech_start < decision.speech_end
                    assert decision.speech_end <= decision.end <= segmenter.position
                    assert decision.end - decision.start <= LONGEST
                    last_end = decision.end
            assert segmenter.is_open == is_open
            assert segmenter.needed_from >= needed
