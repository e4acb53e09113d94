"""Finals as subtitles: SubRip and WebVTT."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edge.demo.transcriber import NotTranscribed, Segment

_SHORTEST_MS = 200
"""A cue that is shown for less cannot be seen, and players refuse one of no length."""


def srt(segments: Sequence[Segment]) -> str:
    """SubRip text: numbered cues with times to the millisecond. Raises ``NotTranscribed``."""
    cues = (
        f"{number}\n{_clock(start_ms, ',')} --> {_clock(end_ms, ',')}\n{text}\n"
        for number, (start_ms, end_ms, text) in enumerate(_cues(segments), 1)
    )
    return "\n".join(cues)


def vtt(segments: Sequence[Segment]) -> str:
    """WebVTT text (W3C WebVTT section 4). Raises ``NotTranscribed``."""
    cues = (
        f"{_clock(start_ms, '.')} --> {_clock(end_ms, '.')}\n{_escaped(text)}\n"
        for start_ms, end_ms, text in _cues(segments)
    )
    return "\n".join(("WEBVTT\n", *cues))


def _cues(segments: Sequence[Segment]) -> Iterator[tuple[int, int, str]]:
    """Start, end and text of each segment that has text."""
    for segment in segments:
        if segment.start_ms is None or segment.end_ms is None:
            raise NotTranscribed(
                "the gateway sends no times (it does not know times=true);"
                " take --format txt or json"
            )
        text = " ".join(segment.text.split())
        start_ms = max(0, round(segment.start_ms))
        if text:
            yield start_ms, max(round(segment.end_ms), start_ms + _SHORTEST_MS), text


def _clock(at_ms: int, point: str) -> str:
    seconds, ms = divmod(at_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{ms:03}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
