"""What no client was there for: kept for its return, oldest first, the oldest given up first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from edge.logs import Repeats
from edge.session.interface import SessionOutlet, SpokenLine, TagFailure


class Missed:
    """One session's finals and failures that wait, at most ``most`` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[SpokenLine | TagFailure] = deque()
        self._dropped = 0

    def keep(self, line: SpokenLine | TagFailure) -> None:
        """It has to be told later."""
        self._waiting.append(line)
        if len(self._waiting) > self._most:
            self._waiting.popleft()
            self._dropped += 1

    def keep_first(self, lines: Sequence[SpokenLine]) -> None:
        """These are older than what waits."""
        self._waiting.extendleft(reversed(lines))

    def tell(self, outlet: SessionOutlet, caught_up: Callable[[SpokenLine], None]) -> bool:
        """Send what waits until the client is gone again; whether that was the last of it."""
        waiting = self._waiting
        if not waiting:
            return False
        while waiting and outlet.is_open:
            line = waiting[0]
            if isinstance(line, TagFailure):
                outlet.tag_failed(line)
            elif outlet.missed(line):
                caught_up(line)
            else:
                break
            waiting.popleft()
        return not waiting

    def note(self, repeats: Repeats) -> None:
        """Log what was never told."""
        if self._waiting:
            repeats.note("a client did not come back for its finals", finals=len(self._waiting))
        if self._dropped:
            repeats.note("too many finals waited for a client", dropped=self._dropped)
