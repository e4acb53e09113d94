"""Words of a text with estimated times, for protocols that want some of each word."""

from __future__ import annotations


def spread(text: str, start_s: float, end_s: float) -> list[tuple[str, float, float]]:
    """Each word with its beginning and end: the time of the whole text, shared out by length.

    Recognizers here tell times of utterances only.
    """
    words = text.split()
    total = sum(map(len, words))
    found, done = [], 0
    for word in words:
        begin = start_s + (end_s - start_s) * done / total
        done += len(word)
        end = start_s + (end_s - start_s) * done / total
        found.append((word, round(begin, 3), round(end, 3)))
    return found
