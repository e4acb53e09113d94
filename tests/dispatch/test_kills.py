"""Targets and workers die, and every final of a log reaches the target, in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dispatch.kills import kills


@pytest.mark.timeout(90)
async def test_every_final_arrives_in_order_whoever_is_killed(tmp_path: Path) -> None:
    """The short form of ``make dispatch-kills``."""
    outcome = await kills(
        str(tmp_path / "sessions.db"),
        tmp_path,
        finals=200,
        targets=2,
        workers=1,
        seed=5,
        sessions=("interview", "面试 1"),
        per_stream_s=50.0,
    )
    assert not outcome.faults, "\n".join(outcome.faults)
    assert outcome.finals > 50
