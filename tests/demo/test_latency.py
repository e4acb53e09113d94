"""Where utterances end in the clean source, and which end a final belongs to."""

from __future__ import annotations

import pytest

from edge.asr.embedded.segmenter import FRAME_MS
from edge.demo.latency import Spoken, percentile, spoken_stretches, stretches, utterance_end_ms
from edge.demo.speech import Speech, demo_recordings, read_wav
from tests.demo.recordings import silence


def test_speech_starts_at_one_half_and_goes_on_above_a_third() -> None:
    assert stretches([0.4, 0.6, 0.4, 0.3, 0.4, 0.4, 0.4]) == [Spoken(FRAME_MS, 3 * FRAME_MS)]


def test_short_stops_are_bridged() -> None:
    two, three = [0.9, 0.0, 0.0, 0.9], [0.9, 0.0, 0.0, 0.0, 0.9]
    assert len(stretches(two)) == 1
    assert len(stretches(three)) == 2


TALK = [Spoken(1000, 2000), Spoken(3000, 4000), Spoken(4500, 9000)]


def test_a_sound_shorter_than_the_edges_may_move_is_an_utterance_too() -> None:
    assert utterance_end_ms([Spoken(1000, 2000), Spoken(3000, 3064)], 3128) == 3064


@pytest.mark.parametrize(
    ("final_end_ms", "stopped_ms"),
    [
        (2064, 2000),
        (1900, 2000),  # the recognizer heard the end a little early
        (2900, 2000),  # all of the pause was taken along
        (3100, 2000),  # the pause and the first sound after it
        (4200, 4000),
        (9500, 9000),
        (6000, None),  # a cut inside the last stretch
        (500, None),  # before anybody spoke
    ],
)
def test_a_final_belongs_to_the_last_stop_before_its_end(
    final_end_ms: float, stopped_ms: float | None
) -> None:
    assert utterance_end_ms(TALK, final_end_ms) == stopped_ms


async def test_stops_of_a_real_recording_are_found_at_its_own_rate() -> None:
    beckett = read_wav(demo_recordings()[1].path)
    quiet = Speech(silence(1.0, 48000), 48000)
    spoken, nothing = await spoken_stretches([beckett, quiet])
    assert nothing == []
    assert len(spoken) == 6  # "Ever tried. Ever failed. No matter. Try again. ..."
    assert all(each.start_ms < each.end_ms for each in spoken)


async def test_recordings_longer_than_the_detectors_queue_are_taken() -> None:
    beckett = read_wav(demo_recordings()[1].path)
    (spoken,) = await spoken_stretches([beckett.repeated(8, 1.0)])
    assert len(spoken) == 48
    assert spoken[-1].end_ms > 80_000


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.95)) == (50, 95)
    assert percentile([7.0], 0.95) == 7
    assert percentile([], 0.5) == 0
