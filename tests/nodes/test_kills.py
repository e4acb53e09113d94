"""A worker dies with everything it knew: who was connected goes on elsewhere and misses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nodes.kills import kills


@pytest.mark.timeout(120)
async def test_nothing_is_lost_with_a_worker_and_clients_are_back_within_two_seconds(
    tmp_path: Path,
) -> None:
    """The short form of ``make kills``."""
    outcome = await kills(str(tmp_path / "sessions.db"), 6, seed=3)
    assert not outcome.faults, "\n".join(outcome.faults)
    assert outcome.returns_s, "somebody had to come back"
