"""Why a message was not delivered; the messages of these errors never hold a transcript."""

from __future__ import annotations


class DispatchError(Exception):
    """A message was not delivered."""


class Refused(DispatchError):
    """The target has seen the message and does not take it; ``final``: it would say so again."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        self.final = final
        super().__init__(reason)


class Unreachable(DispatchError):
    """The target takes no messages now; ``retry_after_s`` is what it asked to wait, if it did."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(reason)
