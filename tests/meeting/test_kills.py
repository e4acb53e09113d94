"""A worker dies while meetings are recorded: what was acked is stored, and counted once."""

from __future__ import annotations

import pytest

from tests.meeting.kills import kills


@pytest.mark.timeout(120)
async def test_every_acked_chunk_outlives_its_worker_and_counters_say_what_is_there() -> None:
    """The short form of ``make meeting-kills``."""
    outcome = await kills(6, seed=5)
    assert not outcome.faults, "\n".join(outcome.faults)
    assert outcome.connections > 7, "somebody had to come back"
