"""Which messages were taken already, as far as one process remembers."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

RETENTION_S = 4 * 86400.0
MAX_SEEN = 100_000


class Seen:
    """Message ids for ``window_s``, at most ``limit`` of them: the oldest are forgotten first."""

    def __init__(
        self,
        window_s: float = RETENTION_S,
        limit: int = MAX_SEEN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._window_s = window_s
        self._limit = limit
        self._clock = clock
        self._ids: OrderedDict[str, float] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        at_s = self._ids.get(name)
        return at_s is not None and self._clock() - at_s < self._window_s

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, names: Iterable[str]) -> None:
        """They are remembered from now on, also if they were known."""
        now_s = self._clock()
        for name in names:
            self._ids[name] = now_s
            self._ids.move_to_end(name)
        while self._ids:
            oldest = next(iter(self._ids.values()))
            if len(self._ids) <= self._limit and now_s - oldest < self._window_s:
                return
            self._ids.popitem(last=False)
