"""Damaged inputs cost the native decoders nothing; ``make fuzz`` tries a million, sanitized."""

from __future__ import annotations

import pytest

from tests.fuzz.mutants import GROWTH_MB, TARGETS, run

COUNT = 10_000


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_are_taken_or_refused_and_leave_nothing_behind(name: str) -> None:
    answers, grown_mb = run(name, COUNT, seed=7)
    assert answers.total() == COUNT
    assert answers["taken"] > COUNT // 50
    assert any(answer.startswith("refused") for answer in answers)
    assert grown_mb < GROWTH_MB


def test_the_same_seed_gives_the_same_inputs() -> None:
    for name in TARGETS:
        assert run(name, 200, seed=3)[0] == run(name, 200, seed=3)[0]
