"""No fault of a recognizer's service costs a word or doubles one.

Every kind of fault once for each vendor; ``make faults`` tries fifty moments of each.
"""

from __future__ import annotations

import pytest

from edge.asr.link import Link
from edge.asr.seam import Seam
from edge.audio.track import AudioTrack
from tests.asr.support.faults import FAULTS, KINDS, difference, disturbed
from tests.asr.support.vendors import VENDORS
from tests.asr.upstream_faults import run

MOMENTS = 1
AT_ONCE = 4


@pytest.mark.parametrize("name", VENDORS)
async def test_whatever_happens_to_the_service_the_text_is_that_of_an_undisturbed_talk(
    name: str,
) -> None:
    vendor, backup = VENDORS[name]
    outcomes = await run(vendor, backup, KINDS, MOMENTS, AT_ONCE)
    assert [each for each in outcomes if each.lost or each.doubled] == []
    struck = {each.kind for each in outcomes if each.recovery_s is not None}
    assert struck >= set(FAULTS), "the faults were felt"


async def test_the_count_sees_words_that_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that begins where the track is now, not where the text ends."""
    opens = Link._open_feed
    monkeypatch.setattr(
        Link, "_open_feed", lambda link, from_ms: opens(link, max(from_ms, link._sound_ms))
    )
    vendor, backup = VENDORS["openai"]
    outcomes = [await disturbed(vendor, backup, "drop", seed) for seed in range(3)]
    assert sum(each.lost for each in outcomes) > 0


async def test_the_count_sees_words_that_are_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that begins well before the end of the last final."""
    begin = Seam.begin

    def begin_early(seam: Seam, *, exact: bool) -> None:
        seam.mark_ms = max(seam.mark_ms - 3000, 0)
        seam._told.clear()
        begin(seam, exact=exact)

    monkeypatch.setattr(Seam, "begin", begin_early)
    monkeypatch.setattr(AudioTrack, "forget", lambda track, until_ms: None)
    vendor, backup = VENDORS["openai"]
    outcomes = [await disturbed(vendor, backup, "drop", seed) for seed in range(3)]
    assert sum(each.doubled for each in outcomes) > 0


def test_lost_and_doubled_words_are_told_apart() -> None:
    assert difference("one two three", "one two three") == (0, 0)
    assert difference("one two three", "one three") == (1, 0)
    assert difference("one two three", "one two two three") == (0, 1)
    assert difference("one two", "two one") == (1, 1)
