"""What a recognizer's stream emits, kept in order."""

from __future__ import annotations

from edge.asr.interface import Final, Interim, StreamEnded, StreamEvent
from edge.errors import RecognizerError


class Events:
    """Collects a stream's events; fails when anything follows the end."""

    def __init__(self) -> None:
        self.all: list[StreamEvent] = []

    def __call__(self, event: StreamEvent) -> None:
        assert not self.ended, "nothing may follow StreamEnded"
        self.all.append(event)

    @property
    def interims(self) -> list[Interim]:
        return [event for event in self.all if isinstance(event, Interim)]

    @property
    def finals(self) -> list[Final]:
        """Blank ones too."""
        return [event for event in self.all if isinstance(event, Final)]

    @property
    def texts(self) -> list[str]:
        """Of all finals that have text."""
        return [final.text for final in self.finals if final.text]

    @property
    def text(self) -> str:
        """Of all finals together."""
        return " ".join(self.texts)

    @property
    def ended(self) -> list[StreamEnded]:
        return [event for event in self.all if isinstance(event, StreamEnded)]

    @property
    def error(self) -> RecognizerError | None:
        """What the stream ended with."""
        assert len(self.ended) == 1
        return self.ended[0].error
