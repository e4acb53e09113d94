"""Damaged inputs cost the native decoders nothing; ``make fuzz`` tries a million, sanitized."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys

import pytest

from tests.fuzz.guard import GuardedBuffer
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


def test_a_guarded_buffer_holds_what_is_placed_and_ends_where_memory_ends() -> None:
    guarded = GuardedBuffer(5000)
    view = guarded.place(b"a packet")
    assert bytes(view) == b"a packet"
    assert ctypes.addressof(ctypes.c_char.from_buffer(view)) + len(view) == guarded.end


def test_a_read_beyond_a_guarded_buffer_ends_the_process() -> None:
    code = (
        "import ctypes; from tests.fuzz.guard import GuardedBuffer; "
        "ctypes.string_at(GuardedBuffer(100).end, 1)"
    )
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", code], capture_output=True)
    assert done.returncode == -signal.SIGSEGV
