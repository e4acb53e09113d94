"""Who in this worker listens to which session."""

from __future__ import annotations

from collections.abc import Callable

from edge.session.store.interface import Listener, Signal


class Listeners:
    """Hands signals to listeners; used on the event loop only."""

    def __init__(self) -> None:
        self._by_session: dict[str, dict[int, Listener]] = {}
        self._next = 0

    def __contains__(self, session: str) -> bool:
        return session in self._by_session

    def __bool__(self) -> bool:
        return bool(self._by_session)

    def names(self) -> list[str]:
        return list(self._by_session)

    def add(self, session: str, listener: Listener) -> Callable[[], None]:
        """Hear a session; the answer ends it and may be called twice."""
        number, self._next = self._next, self._next + 1
        self._by_session.setdefault(session, {})[number] = listener

        def end() -> None:
            heard = self._by_session.get(session, {})
            heard.pop(number, None)
            if not heard:
                self._by_session.pop(session, None)

        return end

    def tell(self, signal: Signal) -> None:
        """Hand one signal on; one without a session goes to all."""
        sessions = [signal.session] if signal.session else self.names()
        for session in sessions:
            for listener in tuple(self._by_session.get(session, {}).values()):
                listener(signal)
