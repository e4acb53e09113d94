"""Vectors of the sequencer: a promise, what is sent, and the steps and counts that come of it."""

from __future__ import annotations

import msgspec
import pytest

from edge.audio.settings import TrackSettings
from edge.audio.steps import StepKind
from tests.audio.support.packets import label
from tests.audio.support.sequence import Event, Run, run


class Vector(msgspec.Struct):
    promise: str
    events: tuple[Event, ...]
    steps: str
    counts: dict[str, int] = {}
    settings: TrackSettings = TrackSettings()


def vector(
    promise: str, *events: Event, steps: str, settings: TrackSettings | None = None, **counts: int
) -> Vector:
    return Vector(promise, events, steps, counts, settings or TrackSettings())


def no_reorder(**more: int) -> TrackSettings:
    return TrackSettings(reorder_packets=0, reorder_wait_ms=0, **more)


def each(*cases: Vector) -> pytest.MarkDecorator:
    """Parametrizes a test with vectors, each under the name of its promise."""
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.promise.replace(" ", "_"))


def hold(case: Vector) -> None:
    """Run a vector; its steps, counts and times have to be as promised."""
    result = run(*case.events, settings=case.settings)
    assert result.notation() == case.steps
    counts = {name: getattr(result.stats, name) for name in case.counts}
    assert counts == case.counts
    stats = result.stats
    assert stats.lost == (stats.recovered_fec + stats.concealed + stats.silenced + stats.skipped)
    check_times(result)


def check_times(result: Run) -> None:
    """Each packet's place in the audio is mapped to the time it was sent with."""
    position = 0
    for step in result.steps:
        assert step.samples > 0
        if step.kind is StepKind.PACKET:
            sent = result.timestamps.get(label(step.payload))
            if sent is not None:
                heard_ms = result.sequencer.timeline.map_ms(position / 48)
                assert heard_ms == pytest.approx(sent / 48, abs=1.0)
        position += step.samples
    assert result.sequencer.end == position
