"""The steps of a track that may still have to be played, or played again."""

from __future__ import annotations

from _native.track import StepRing
from edge.audio.steps import Step, StepKind

_PACKET = StepKind.PACKET
_PCM = StepKind.PCM


class ReplayRing(StepRing):
    """Steps since the last final, at most so many milliseconds of them; see ``StepRing``."""

    __slots__ = ()

    def append(self, step: Step) -> None:
        """Keep a step; drop the oldest ones if that makes too many."""
        kind = step.kind
        if kind is _PACKET:
            self.put_packet(step.payload, step.samples)
        else:
            self.put_other(step, step.samples, kind is _PCM)

    def step(self, number: int) -> Step:
        """The step of this number, from ``first`` to ``count`` - 1."""
        samples, payload, step = self.at(number)
        return step if payload is None else Step(_PACKET, samples, payload)

    def mark_played(self, number: int, step: Step, sound: bool) -> None:
        """Count a step the first time a feed plays it; ``sound`` says its payload was decoded."""
        kind = step.kind
        self.mark(number, kind is _PACKET or kind is _PCM, sound)
