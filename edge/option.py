"""How a room declares its settings: a frozen ``msgspec.Struct`` whose fields carry an ``option``.

Comes in: a description, the environment names, bounds. Goes out: a ``msgspec.Meta`` for
``Annotated``. Any room may call it; ``edge.settings`` collects the Structs into the one table.
"""

from __future__ import annotations

from typing import Any

import msgspec


def option(
    description: str,
    *,
    env: str | tuple[str, ...] = (),
    secret: bool = False,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    pattern: str | None = None,
) -> msgspec.Meta:
    """Describe one setting.

    ``env`` lists environment names in order of precedence; the name ``EDGESCRIBE_<FIELD>`` is
    always read too. ``secret`` values are shown as ``***``. Bounds are checked when settings load.
    """
    names = (env,) if isinstance(env, str) else env
    limits: dict[str, Any] = {"ge": ge, "gt": gt, "le": le, "pattern": pattern}
    return msgspec.Meta(description=description, extra={"env": names, "secret": secret}, **limits)
