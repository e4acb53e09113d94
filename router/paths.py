"""Targets of requests: authority, path and query, the path normalised once (section R2).

The service gets the same path as the decision: nobody can be sent past a rule by a spelling.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://([^/\\?#]*)")
_SINGLE_DOT = frozenset((".", "%2e"))
_DOUBLE_DOT = frozenset(("..", ".%2e", "%2e.", "%2e%2e"))


class Target(NamedTuple):
    """The parts of a request's target."""

    authority: str | None
    """Of an absolute-form target, as written."""
    path: str
    query: str
    """With its question mark; empty when there is none."""


def split_target(target: str) -> Target | None:
    """The parts of an origin-form, absolute-form or asterisk-form target; None for others."""
    authority: str | None = None
    if not target.startswith(("/", "\\")):
        if target == "*":
            return Target(None, "*", "")
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            return None
        authority = absolute[1]
        target = target[absolute.end() :]
        if not target.startswith(("/", "\\")):
            target = "/" + target
    target = target.partition("#")[0]
    path, mark, query = target.partition("?")
    return Target(authority, normalise_path(path), mark + query)


def normalise_path(path: str) -> str:
    """A path that begins with a slash: backslashes become slashes, dot segments are resolved.

    Dots may be written ``%2e``; nothing else is decoded and ``//`` stays (RFC 3986 section 5.2.4).
    """
    if "\\" in path:
        path = path.replace("\\", "/")
    if "/." not in path and "%2" not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")[1:]
    last = len(segments) - 1
    for at, segment in enumerate(segments):
        folded = segment.lower()
        if folded in _DOUBLE_DOT:
            if kept:
                kept.pop()
            if at == last:
                kept.append("")
        elif folded in _SINGLE_DOT:
            if at == last:
                kept.append("")
        else:
            kept.append(segment)
    return "/" + "/".join(kept)
