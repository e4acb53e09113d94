"""Finals as subtitles."""

from __future__ import annotations

import pytest

from edge.demo.subtitles import srt, vtt
from edge.demo.transcriber import NotTranscribed, Segment


def said(start_ms: float | None, end_ms: float | None, text: str) -> Segment:
    return Segment(start_ms, end_ms, text, None)


SEGMENTS = [
    said(-6.5, 1480, "Hello,"),
    said(61_000.4, 62_250, "a < b &\nc --> d"),
    said(3_723_004, 3_723_004, "end"),
    said(4_000_000, 4_000_100, "  "),
]


def test_srt_has_numbered_cues_with_times_to_the_millisecond() -> None:
    assert srt(SEGMENTS) == (
        "1\n00:00:00,000 --> 00:00:01,480\nHello,\n\n"
        "2\n00:01:01,000 --> 00:01:02,250\na < b & c --> d\n\n"
        "3\n01:02:03,004 --> 01:02:03,204\nend\n"
    )


def test_vtt_has_a_header_and_no_markup_in_its_texts() -> None:
    assert vtt(SEGMENTS) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:01.480\nHello,\n\n"
        "00:01:01.000 --> 00:01:02.250\na &lt; b &amp; c --&gt; d\n\n"
        "01:02:03.004 --> 01:02:03.204\nend\n"
    )


def test_nothing_said_is_a_file_without_cues() -> None:
    assert (srt([]), vtt([])) == ("", "WEBVTT\n")


@pytest.mark.parametrize("form", [srt, vtt])
def test_a_gateway_that_sends_no_times_cannot_make_subtitles(form: object) -> None:
    with pytest.raises(NotTranscribed, match="--format txt or json"):
        form([said(None, None, "Hello")])  # type: ignore[operator]
