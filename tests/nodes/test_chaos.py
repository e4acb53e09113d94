"""Two nodes, one store, a naive balancer, and everything goes wrong for a while."""

from __future__ import annotations

import pytest

from tests.nodes.chaos import run
from tests.nodes.support.network import problem

DURATION_S = 15.0

needs_network = pytest.mark.skipif(problem() is not None, reason=str(problem()))


@needs_network
@pytest.mark.timeout(150)
async def test_whatever_goes_wrong_no_word_is_lost_and_no_history_is_forged() -> None:
    """The short form of ``make chaos``, one of each kind of fault if time allows."""
    outcome = await run(seed=4, duration_s=DURATION_S)
    assert not outcome.faults, "\n".join((*outcome.happened, *outcome.faults))
    assert outcome.words > 50
    assert len(outcome.happened) >= 3
