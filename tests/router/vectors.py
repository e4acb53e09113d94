"""The conformance vectors: each a request and the answer that must come, to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from router.table import V1_SERVICES


class Vector(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One row of vectors.json."""

    id: str
    host: str | None
    target: str
    note: str
    expect_status: int
    expect: Any
    method: str = "GET"
    ver: str = "1.1"
    env: str = "production"
    reg: tuple[str, ...] = V1_SERVICES
    profile: str = "v1"
    zones: tuple[str, ...] = ()
    raises: str | None = None
    cfgmissing: bool = False

    @property
    def body(self) -> bytes:
        """What must be sent, where the answer is the router's."""
        if isinstance(self.expect, str):
            return self.expect.encode()
        return msgspec.json.encode(self.expect)

    @property
    def service(self) -> str | None:
        """The service that must answer, if one must."""
        return self.expect.get("service") if isinstance(self.expect, dict) else None


VECTORS = msgspec.json.decode(
    (Path(__file__).parent / "vectors.json").read_bytes(), type=list[Vector]
)
