"""Which windows there are, what one says, and how recognition stands after it.

Comes in: the chunks that are stored, the sentences of a window, the record before it. Goes out: the
next window, one text, the record after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from unicodedata import east_asian_width

from msgspec import Struct
from msgspec.structs import replace

from edge.meeting.records import CHUNK_MS, Asr, Ingest, iso
from edge.session.store.interface import now_ms

MOST_BACKOFF_MS = 60_000


class Span(Struct, frozen=True):
    """The first and the last chunk of a window."""

    first: int
    last: int

    @property
    def seconds(self) -> int:
        """Its chunks."""
        return self.last - self.first + 1


def next_span(ingest: Ingest, done: int, window: int, hop: int, *, tail: bool) -> Span | None:
    """The next window with audio in it after the one that ended with chunk ``done``.

    ``tail``: what is left after the last whole one is a window, too. A hop that is longer than a
    window counts as one: nothing is left out.
    """
    hop = min(hop, window)
    end = max(done + hop, window)
    while end <= ingest.last_seq:
        first = end - window + 1
        silent_to = next((b for a, b in ingest.missing if a <= first and end <= b), None)
        if silent_to is None:
            return Span(first, end)
        end += hop * ((silent_to - end) // hop + 1)
    if tail and done < ingest.last_seq:
        return Span(max(1, ingest.last_seq - window + 1), ingest.last_seq)
    return None


def backoff_ms(failures: int) -> int:
    """How long windows wait after so many failures in a row: 2, 4, 8 … 60 s."""
    return min(MOST_BACKOFF_MS, 1000 << min(failures, 6))


def heard(asr: Asr, span: Span, latency_ms: int) -> Asr:
    """The record after a window."""
    windows = asr.total_windows_processed + 1
    at = iso()

    def mean(old: float, new: float) -> float:
        return new if old == 0 else (old * (windows - 1) + new) / windows

    return replace(
        asr,
        last_window_end_seq=max(asr.last_window_end_seq, span.last),
        total_windows_processed=windows,
        total_audio_seconds_processed=asr.total_audio_seconds_processed + span.seconds,
        last_window_latency_ms=latency_ms,
        avg_window_latency_ms=mean(asr.avg_window_latency_ms, latency_ms),
        avg_rtf=mean(asr.avg_rtf, latency_ms / (span.seconds * CHUNK_MS)),
        consecutive_failures=0,
        next_retry_after_ms=0,
        last_error=None,
        last_success_at=at,
        updated_at=at,
    )


def failed(asr: Asr, reason: str) -> Asr:
    """The record after a window that could not be recognized."""
    failures = asr.consecutive_failures + 1
    return replace(
        asr,
        consecutive_failures=failures,
        next_retry_after_ms=now_ms() + backoff_ms(failures),
        last_error=reason,
        updated_at=iso(),
    )


def joined(sentences: Iterable[str]) -> str:
    """Sentences as one text: with spaces, but none where Chinese or Japanese meets its like."""
    text = ""
    for sentence in filter(None, map(str.strip, sentences)):
        is_dense = bool(text) and _is_dense(text[-1]) and _is_dense(sentence[0])
        text += sentence if is_dense or not text else f" {sentence}"
    return text


def _is_dense(character: str) -> bool:
    return east_asian_width(character) in ("W", "F") and not "\uac00" <= character <= "\ud7a3"
