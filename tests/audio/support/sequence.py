"""Runs packet schedules through a sequencer in virtual time and writes down what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edge.audio.sequencer import Sequencer
from edge.audio.settings import TrackSettings
from edge.audio.stats import TrackStats
from edge.audio.steps import Step, StepKind
from tests.audio.support.packets import label, silk

TICK_S = 0.020
Event = Callable[["Run"], None]
_LETTERS = {StepKind.FEC: "f", StepKind.CONCEAL: "c", StepKind.SILENCE: "s"}


class Run:
    """One sequencer, its virtual clock, and the steps so far."""

    def __init__(self, settings: TrackSettings) -> None:
        self.stats = TrackStats()
        self.sequencer = Sequencer(settings, self.stats)
        self.now_s = 100.0
        self.steps: list[Step] = []
        self.timestamps: dict[int, int | None] = {}
        """Of each label, as sent."""

    def put(self, steps: Iterable[Step]) -> None:
        self.steps += steps

    def advance(self, ms: float) -> None:
        """Let time pass as a worker's metronome does."""
        until_s = self.now_s + ms / 1000
        while self.now_s + TICK_S <= until_s + 1e-9:
            self.now_s += TICK_S
            if self.now_s >= self.sequencer.wake_s:
                self.put(self.sequencer.tick(self.now_s))
        self.now_s = until_s

    def notation(self) -> str:
        """``p7`` a packet by its label, ``f20 c20 s100`` recovered, concealed, silent milliseconds.

        Adjacent silences are written as one.
        """
        words: list[str] = []
        silence = 0
        for step in [*self.steps, None]:
            if step and step.kind is StepKind.SILENCE:
                silence += step.samples
                continue
            if silence:
                words.append(f"s{silence / 48:g}")
                silence = 0
            if step and step.kind is StepKind.PACKET:
                words.append(f"p{label(step.payload)}")
            elif step:
                words.append(f"{_LETTERS[step.kind]}{step.samples / 48:g}")
        return " ".join(words)


def p(
    *numbers: int,
    at: int | None = None,
    ms: int = 20,
    timed: bool = True,
    numbered: bool = True,
    fec: bool = False,
    stereo: bool = False,
    chunk_of: Callable[[int], int] = int,
) -> Event:
    """Packets of these numbers arrive 1 ms apart; their times are number x length, or ``at`` ms."""

    def happen(run: Run) -> None:
        for number in numbers:
            timestamp = (number * ms if at is None else at) * 48 if timed else None
            run.timestamps[number % 65536] = timestamp
            run.now_s += 0.001
            payload = silk(number, ms=ms, fec=fec, stereo=stereo)
            chunk = chunk_of(number) if numbered else None
            run.put(run.sequencer.push(chunk, timestamp, payload, run.now_s))

    return happen


def raw(chunk: int | None, timestamp: int | None, payload: bytes) -> Event:
    """This very packet arrives."""

    def happen(run: Run) -> None:
        run.now_s += 0.001
        run.put(run.sequencer.push(chunk, timestamp, payload, run.now_s))

    return happen


def wait(ms: float) -> Event:
    """Time passes."""
    return lambda run: run.advance(ms)


def start() -> Event:
    """A ``start`` event for the running tag."""
    return lambda run: run.put(run.sequencer.restart())


def run(*events: Event, settings: TrackSettings | None = None) -> Run:
    """Let everything happen, then flush."""
    result = Run(settings or TrackSettings())
    for event in events:
        event(result)
    result.put(result.sequencer.flush())
    return result
