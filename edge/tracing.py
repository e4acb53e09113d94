"""What a worker does over time, as spans: sessions, their tracks, connections of recognizers,
finals, dispatches and finalizations. Never packets.

Comes in: the beginning and end of such work. Goes out: nothing, until ``install`` names who takes
spans (``edge.telemetry``); before that every call costs next to nothing. Any room may begin spans;
only ``edge.compose`` installs. All calls are for the event loop's thread. Attributes hold names and
numbers, never what was said.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

Attribute = str | int | float | bool


class Span(Protocol):
    """Work that has begun."""

    def note(self, **attributes: Attribute) -> None:
        """What has become known of it."""
        ...

    def fail(self, reason: str) -> None:
        """It went wrong; ``reason`` is a short stable word, or the name of an error."""
        ...

    def end(self) -> None:
        """It is over; no later call does anything."""
        ...


class Tracer(Protocol):
    """Takes spans."""

    def begin(
        self, name: str, parent: Span | None, began_s_ago: float, attributes: dict[str, Attribute]
    ) -> Span:
        """A span that began so long ago; without a parent it is the first of its trace."""
        ...


class _NoSpan:
    def note(self, **attributes: Attribute) -> None: ...

    def fail(self, reason: str) -> None: ...

    def end(self) -> None: ...


NO_SPAN: Span = _NoSpan()
_tracer: Tracer | None = None


def install(tracer: Tracer | None) -> None:
    """Have ``tracer`` take this process's spans from now on; None: nobody."""
    global _tracer
    _tracer = tracer


def is_on() -> bool:
    """Whether anybody takes spans."""
    return _tracer is not None


def begin(
    name: str, parent: Span | None = None, *, began_s_ago: float = 0.0, **attributes: Attribute
) -> Span:
    """A span that its owner ends."""
    if _tracer is None:
        return NO_SPAN
    return _tracer.begin(name, parent, began_s_ago, attributes)


@contextmanager
def span(name: str, **attributes: Attribute) -> Iterator[Span]:
    """A span as long as the block; an exception fails it and goes on."""
    begun = NO_SPAN if _tracer is None else _tracer.begin(name, None, 0.0, attributes)
    try:
        yield begun
    except BaseException as error:
        begun.fail(type(error).__name__)
        raise
    finally:
        begun.end()
