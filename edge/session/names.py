"""Names that clients choose, made safe for file systems and object keys."""

from __future__ import annotations

import base64
import re

_SAFE = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,128}")


def safe_name(name: str) -> str:
    """The name itself if it is harmless, else ``~`` and the base64url of its UTF-8.

    No two names share a result, and no result leaves its folder: ``.`` and ``..`` are encoded too.
    """
    if _SAFE.fullmatch(name):
        return name
    encoded = base64.urlsafe_b64encode(name.encode("utf-8", "surrogatepass"))
    return "~" + encoded.decode().rstrip("=")
