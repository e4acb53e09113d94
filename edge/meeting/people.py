"""What ``hello`` and ``config`` change: names, the roster; what ``capture_status`` changes.

The rules are those of the recorder's protocol: blank strings and empty lists never clear anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta

from edge.meeting.records import (
    ROLES,
    Capture,
    Captures,
    CaptureState,
    People,
    Person,
    Role,
    iso,
)

_PRIORITY: tuple[CaptureState, ...] = ("recovering", "running", "failed", "idle")


def _meant(description: str) -> Meta:
    return Meta(extra_json_schema={"description": description})


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a client says of a meeting; members it does not know how to give right are ignored."""

    interviewer_name: Annotated[object, _meant("a name; a blank one changes nothing")] = None
    teams_interviewer_name: Annotated[object, _meant("the same, in the roster's spelling")] = None
    teams_participants: Annotated[
        object, _meant("names, and objects with name and email; an empty list changes nothing")
    ] = None
    provider: Annotated[object, _meant("the recognizer that listens from now on")] = None


def parse_roster(value: object) -> tuple[Person, ...]:
    """The entries of a list that can be used: names, and objects with ``name`` and ``email``."""
    if not isinstance(value, list):
        return ()
    people = []
    for item in value:
        if isinstance(item, str) and item.strip():
            people.append(Person(item.strip()))
        elif isinstance(item, dict) and (name := _text(item.get("name"))):
            people.append(Person(name, _text(item.get("email")) or None))
    return tuple(people)


def tell(people: People, told: Told) -> People:
    """The people after a ``hello`` or ``config``; the same ones when it says nothing new."""
    config = dict(people.config)
    interviewer = _text(told.interviewer_name)
    teams = _text(told.teams_interviewer_name) or interviewer
    if interviewer:
        config["interviewer_name"] = interviewer
    if teams:
        config["teams_interviewer_name"] = teams
    changed = People(
        config=config,
        roster=parse_roster(told.teams_participants) or people.roster,
        provider=_text(told.provider) or people.provider,
        updated_at=people.updated_at,
    )
    is_known = people.updated_at is not None and changed == people
    return people if is_known else msgspec.structs.replace(changed, updated_at=iso())


def capture_problem(payload: Mapping[str, object]) -> str | None:
    """Why a ``capture_status`` is refused."""
    state = payload.get("capture_state")
    if isinstance(state, str) and state.strip() and state.strip() not in _PRIORITY:
        return f"capture_state is one of {', '.join(sorted(_PRIORITY))}"
    return None


def capture(captures: Captures, role: Role, payload: Mapping[str, object]) -> Captures:
    """The captures after a ``capture_status`` of one role; the same when nothing has changed."""
    changed = msgspec.structs.replace(captures, **{role: _patched(captures.of(role), payload)})
    both = (changed.teacher.capture_state, changed.students.capture_state)
    mixed = msgspec.structs.replace(
        changed.mixed,
        capture_state=next(state for state in _PRIORITY if state in both),
        echo_suppressed_chunks=changed.teacher.echo_suppressed_chunks,
        echo_suppression_recent_rate=changed.teacher.echo_suppression_recent_rate,
    )
    changed = msgspec.structs.replace(changed, mixed=mixed)
    now = iso()
    for name in ROLES:
        new = changed.of(name)
        is_first = name == role and new.updated_at is None
        if is_first or new != captures.of(name):
            new = msgspec.structs.replace(new, updated_at=now)
            changed = msgspec.structs.replace(changed, **{name: new})
    return captures if changed == captures else changed


def _patched(old: Capture, payload: Mapping[str, object]) -> Capture:
    changes: dict[str, object] = {}
    if state := _text(payload.get("capture_state")):
        changes["capture_state"] = state
    for name in ("last_recover_at", "last_recover_error"):
        if name in payload and (payload[name] is None or _text(payload[name])):
            changes[name] = _text(payload[name]) or None
    for name in ("recover_attempts", "echo_suppressed_chunks"):
        count = _number(payload.get(name, UNSET))
        if count is not None and count >= 0:
            changes[name] = math.floor(count)
    rate = _number(payload.get("echo_suppression_recent_rate", UNSET))
    if rate is not None:
        changes["echo_suppression_recent_rate"] = min(1.0, max(0.0, rate))
    return msgspec.structs.replace(old, **changes)


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    """What a member of a payload counts as; null counts as 0, so that it resets a counter."""
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
