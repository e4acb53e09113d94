"""What supervisors report about their recognizer connections, for metrics.

Comes in: one call per event, on the event loop. ``edge.metrics`` maps it to Prometheus; tests
count.
"""

from __future__ import annotations

from typing import Protocol


class RecognizerObserver(Protocol):
    """Called synchronously; must neither block nor raise."""

    def connected(self, provider: str, seconds: float) -> None:
        """A stream opened after this time."""
        ...

    def error(self, provider: str, code: str) -> None:
        """A stream could not be opened, or ended with an error of this ``RecognizerError.code``."""
        ...

    def received(self, provider: str, is_interim: bool) -> None:
        """A transcript came; blank ones and those already known are not reported."""
        ...

    def audio_sent(self, provider: str, size: int) -> None:
        """So many bytes of audio were handed to a stream since the last call for it."""
        ...

    def connection_opened(self, provider: str) -> None:
        """One more stream is open."""
        ...

    def connection_closed(self, provider: str) -> None:
        """One stream less is open."""
        ...


class NoObserver:
    """Ignores everything."""

    def connected(self, provider: str, seconds: float) -> None: ...

    def error(self, provider: str, code: str) -> None: ...

    def received(self, provider: str, is_interim: bool) -> None: ...

    def audio_sent(self, provider: str, size: int) -> None: ...

    def connection_opened(self, provider: str) -> None: ...

    def connection_closed(self, provider: str) -> None: ...
