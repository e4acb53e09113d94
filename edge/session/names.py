"""Names that clients choose, made safe for file systems and object keys."""

from __future__ import annotations

import base64
import re
import unicodedata

MAX_NAME_BYTES = 256
_SAFE = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,128}")


def name_problem(name: str) -> str | None:
    """Why a session cannot have this name; None if it can."""
    size = len(name.encode("utf-8", "surrogatepass"))
    if not 1 <= size <= MAX_NAME_BYTES:
        return f"it has {size} bytes of UTF-8, 1 to {MAX_NAME_BYTES} are allowed"
    if any(unicodedata.category(character) == "Cc" for character in name):
        return "it holds a control character"
    return None


def safe_name(name: str) -> str:
    """The name itself if it is harmless, else ``~`` and the base64url of its UTF-8.

    No two names share a result, and no result leaves its folder: ``.`` and ``..`` are encoded too.
    """
    if _SAFE.fullmatch(name):
        return name
    encoded = base64.urlsafe_b64encode(name.encode("utf-8", "surrogatepass"))
    return "~" + encoded.decode().rstrip("=")
