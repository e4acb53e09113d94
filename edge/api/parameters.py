"""Parameters that several endpoints take, read as the recorder's clients have always sent them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from msgspec import Meta

from edge.api.http import BLANKS
from edge.meeting.records import ROLES

_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_BASED = re.compile(r"0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+")
LONGEST_NUMBER = 400


def whole_number(text: str) -> int | None:
    """What JavaScript's ``Number`` makes of a text, None unless that is a whole number above 0.

    ``5.0``, ``1e2`` and ``0x10`` are whole numbers; beyond the range of a double there is none.
    """
    if len(text) > LONGEST_NUMBER:
        return None
    if _BASED.fullmatch(text):
        return int(text, 0) or None
    if not _DECIMAL.fullmatch(text):
        return None
    number = float(text)
    return int(number) if number > 0 and math.isfinite(number) and number == int(number) else None


def count(default: int | None, most: int | None = None) -> Meta:
    """A whole number; whatever is none counts as the default, more than ``most`` as that."""

    def read(text: str) -> int | None:
        number = whole_number(text)
        return number if most is None or number is None else min(number, most)

    bound = "" if most is None else f"; more than {most} is that"
    return Meta(
        description=f"a whole number from 1, anything else is {default or 'none'}{bound}",
        extra={"read": read, "schema": {"type": ["integer", "string"]}},
    )


def choice(names: Sequence[str]) -> Meta:
    """One of a few words, in any case."""

    def read(text: str) -> str:
        word = text.lower()
        if word not in names:
            raise ValueError(text)
        return word

    letters = ("".join(f"[{c.upper()}{c}]" for c in name) for name in names)
    # JSON schemas know no flags; blank counts as absent.
    pattern = rf"^[{BLANKS}]*({'|'.join(letters)})?[{BLANKS}]*$"
    return Meta(
        description=f"one of {', '.join(names)}, in any case",
        extra={"read": read, "schema": {"type": "string", "pattern": pattern}},
    )


ROLE = choice(ROLES)
