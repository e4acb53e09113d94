"""The native ring beside a plain list: whatever is kept, forgotten and played, they agree."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.audio.ring import ReplayRing
from edge.audio.stats import TrackStats
from edge.audio.steps import PcmStep, Step, StepKind

LIMIT_MS = 400
PACKET_KINDS = (StepKind.PACKET, StepKind.PCM)


class PlainRing:
    """What a ring is, in as few words as possible."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.starts = [0]
        self.first = 0
        self.played = 0
        self.decoded = self.corrupt = self.unplayed = self.overflow = 0

    def append(self, step: Step) -> None:
        self.steps.append(step)
        self.starts.append(self.starts[-1] + step.samples)
        while self.starts[-1] - self.starts[self.first] > LIMIT_MS * 48:
            if self.played <= self.first:
                self.overflow += self.steps[self.first].samples
            self.drop()

    def forget(self, until: int) -> None:
        while self.first < len(self.steps) and self.starts[self.first + 1] <= until:
            self.drop()

    def drop(self) -> None:
        if self.first >= self.played:
            self.unplayed += self.steps[self.first].kind in PACKET_KINDS
        self.first += 1

    def play(self, number: int, sound: bool) -> None:
        if number < self.played:
            return
        passed_over = self.steps[max(self.played, self.first) : number]
        self.unplayed += sum(step.kind in PACKET_KINDS for step in passed_over)
        self.played = number + 1
        if self.steps[number].kind in PACKET_KINDS:
            self.decoded += sound
            self.corrupt += not sound

    def find(self, position: int) -> tuple[int, int]:
        number = len(self.steps)
        while number > self.first and self.starts[number] > position:
            number -= 1
        return number, self.starts[number]


def steps() -> st.SearchStrategy[Step]:
    samples = st.sampled_from([120, 480, 960, 2880])
    return st.one_of(
        st.builds(Step, st.just(StepKind.PACKET), samples, st.binary(min_size=1, max_size=4)),
        st.builds(Step, st.sampled_from([StepKind.SILENCE, StepKind.CONCEAL]), samples),
        st.builds(PcmStep, st.just(StepKind.PCM), samples, st.binary(max_size=4), st.just(8000)),
    )


actions = st.one_of(
    steps(),
    st.tuples(st.just("forget"), st.integers(0, 60_000)),
    st.tuples(st.just("play"), st.integers(0, 40), st.booleans()),
)


@given(st.lists(actions, max_size=120))
def test_a_ring_is_a_list_that_forgets(script: list[Step | tuple[str, int]]) -> None:
    stats = TrackStats()
    ring, plain = ReplayRing(LIMIT_MS, stats), PlainRing()
    for action in script:
        match action:
            case Step():
                ring.append(action)
                plain.append(action)
            case ("forget", until):
                ring.forget(until)
                plain.forget(until)
            case ("play", ahead, sound):
                number = max(plain.first, plain.played) + ahead // 10
                if number < len(plain.steps):
                    ring.mark_played(number, plain.steps[number], sound)
                    plain.play(number, sound)
    kept = range(plain.first, len(plain.steps))
    assert (ring.first, ring.count) == (plain.first, len(plain.steps))
    assert (ring.start, ring.end) == (plain.starts[plain.first], plain.starts[-1])
    assert [ring.step(number) for number in kept] == plain.steps[plain.first :]
    assert (stats.decoded, stats.corrupt, stats.unplayed, stats.overflow_dropped_ms) == (
        plain.decoded,
        plain.corrupt,
        plain.unplayed,
        plain.overflow // 48,
    )
    assert ring.unplayed_packets == sum(
        plain.steps[number].kind in PACKET_KINDS for number in kept if number >= plain.played
    )
    for position in (0, 959, 960, 10_000, plain.starts[-1]):
        assert ring.find(position) == plain.find(position)


@given(st.lists(steps(), min_size=1, max_size=20), st.integers(1, 6000), st.data())
def test_a_run_of_packets_ends_at_anything_else_or_when_it_is_long_enough(
    kept: list[Step], samples: int, data: st.DataObject
) -> None:
    ring = ReplayRing(10_000, TrackStats())
    for step in kept:
        ring.append(step)
    number = data.draw(st.integers(0, len(kept)))
    payloads, total = ring.packets(number, samples)
    run = kept[number : number + len(payloads)]
    assert payloads == [step.payload for step in run]
    assert total == sum(step.samples for step in run)
    assert all(step.kind is StepKind.PACKET for step in run)
    after = kept[number + len(run) :]
    assert total >= samples or not after or after[0].kind is not StepKind.PACKET
    assert total - (run[-1].samples if run else 0) < samples
