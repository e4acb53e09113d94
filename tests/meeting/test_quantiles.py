"""The latencies that clients show."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edge.meeting.quantiles import quantile


@pytest.mark.parametrize(
    ("samples", "p50", "p95"),
    [
        ([], None, None),
        ([10], 10, 10),
        ([10, 20], 10, 10),
        ([30, 10, 20], 20, 20),
        ([1, 2, 3, 4], 2, 3),
        (range(1, 21), 10, 19),
        (range(1, 101), 50, 95),
        (range(1, 201), 100, 190),
    ],
)
def test_vector(samples: Sequence[int], p50: int | None, p95: int | None) -> None:
    assert quantile(samples, 0.5) == p50
    assert quantile(samples, 0.95) == p95


def test_only_the_most_recent_two_hundred_count() -> None:
    assert quantile([9_000] * 50 + list(range(1, 201)), 0.95) == 190
