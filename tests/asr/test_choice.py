"""Which recognizer a track tries next, and when, on a clock of the test's own."""

from __future__ import annotations

import pytest

from edge.asr.breaker import Breakers
from edge.asr.choice import FORGIVE_AFTER_S, Choice, Choices
from edge.asr.dummy import DummyRecognizer
from edge.asr.interface import StreamRequest
from edge.asr.settings import SupervisorSettings
from edge.errors import RecognizerBusy, RecognizerClosed, RecognizerRefused

SETTINGS = SupervisorSettings()
REQUEST = StreamRequest(track="tag-1")


class Second(DummyRecognizer):
    name = "second"


def two(settings: SupervisorSettings = SETTINGS) -> tuple[Choices, Breakers]:
    breakers = Breakers(settings)
    return Choices([DummyRecognizer(), Second()], breakers, settings, REQUEST), breakers


def upcoming(choices: Choices, now_s: float) -> tuple[Choice, str, float]:
    found = choices.next(now_s)
    assert found is not None
    choice, wait_s = found
    return choice, choice.recognizer.name, wait_s


def test_pauses_start_at_a_quarter_second_and_double_to_ten_with_jitter() -> None:
    choices = Choices([DummyRecognizer()], Breakers(SETTINGS), SETTINGS, REQUEST)
    waits = []
    for _ in range(9):
        choice, _, _ = upcoming(choices, 1000.0)
        choices.failed(choice, RecognizerClosed("lost"), 1000.0)
        waits.append(upcoming(choices, 1000.0)[2])
    for wait_s, nominal_s in zip(waits, (0.25, 0.5, 1, 2, 4, 8, 10, 10, 10), strict=True):
        assert wait_s == pytest.approx(nominal_s, rel=0.2)
    assert len(set(waits)) == len(waits)


def test_after_three_failures_the_next_takes_over_without_a_pause() -> None:
    choices, _ = two()
    for _ in range(3):
        choice, name, _ = upcoming(choices, 0.0)
        assert name == "dummy"
        choices.failed(choice, RecognizerClosed("lost"), 0.0)
    assert upcoming(choices, 0.0)[1:] == ("second", 0.0)


def test_the_best_gets_another_chance_later() -> None:
    choices, _ = two()
    for _ in range(3):
        choices.failed(upcoming(choices, 0.0)[0], RecognizerClosed("lost"), 0.0)
    assert upcoming(choices, FORGIVE_AFTER_S - 1)[1] == "second"
    assert upcoming(choices, FORGIVE_AFTER_S)[1] == "dummy"


def test_a_refusal_is_for_good() -> None:
    choices, _ = two()
    refusal = RecognizerRefused("wrong key")
    choices.failed(upcoming(choices, 0.0)[0], refusal, 0.0)
    assert upcoming(choices, 1e6)[1] == "second"
    choices.failed(upcoming(choices, 0.0)[0], RecognizerRefused("no access"), 0.0)
    assert choices.next(1e6) is None
    assert choices.refusal() is refusal


def test_an_open_breaker_passes_to_the_next_at_once() -> None:
    choices, breakers = two()
    for _ in range(SETTINGS.breaker_failures):
        permit = breakers.of("dummy").acquire(0.0)
        assert permit is not None
        permit.failed(0.0)
    assert upcoming(choices, 0.0)[1:] == ("second", 0.0)


def test_when_all_are_worn_out_the_soonest_is_next() -> None:
    choices, _ = two()
    for now_s in (0.0, 0.0, 0.0, 0.1, 0.1, 0.1):
        choices.failed(upcoming(choices, now_s)[0], RecognizerClosed("lost"), now_s)
    choice, _, wait_s = upcoming(choices, 0.1)
    assert 0 < wait_s <= 1.2
    assert choice.retry_at_s == pytest.approx(0.1 + wait_s)


def test_the_service_may_ask_for_a_longer_pause_of_at_most_a_minute() -> None:
    choices = Choices([DummyRecognizer()], Breakers(SETTINGS), SETTINGS, REQUEST)
    choices.failed(upcoming(choices, 0.0)[0], RecognizerBusy("429", 30.0), 0.0)
    assert upcoming(choices, 0.0)[2] == 30.0
    choices.failed(upcoming(choices, 0.0)[0], RecognizerBusy("429", 9999.0), 0.0)
    assert upcoming(choices, 0.0)[2] == 60.0


def test_a_long_pause_asked_for_is_not_waited_out_if_there_is_another() -> None:
    choices, _ = two()
    choices.failed(upcoming(choices, 0.0)[0], RecognizerBusy("429", 30.0), 0.0)
    assert upcoming(choices, 0.0)[1] == "second"


def test_a_good_connection_resets_the_pauses() -> None:
    choices = Choices([DummyRecognizer()], Breakers(SETTINGS), SETTINGS, REQUEST)
    choice, _, _ = upcoming(choices, 0.0)
    for _ in range(5):
        choices.failed(choice, RecognizerClosed("lost"), 0.0)
    choices.proved(choice)
    choices.failed(choice, RecognizerClosed("lost"), 0.0)
    assert upcoming(choices, 0.0)[2] == pytest.approx(0.25, rel=0.2)
