"""The files that browsers load, ready to be sent."""

from __future__ import annotations

import gzip
import hashlib
from importlib.resources import files

import msgspec


class WebFile(msgspec.Struct, frozen=True):
    """One file, as it is and compressed."""

    content_type: str
    content: bytes
    compressed: bytes
    """With gzip."""
    etag: str
    """Weak: it is the same for both forms."""


def load_web_files() -> dict[str, WebFile]:
    """All files by the paths they are served at."""
    content = (files("edge.web") / "edgescribe.js").read_bytes()
    return {
        "/edgescribe.js": WebFile(
            content_type="text/javascript; charset=utf-8",
            content=content,
            compressed=gzip.compress(content, mtime=0),
            etag=f'W/"{hashlib.sha256(content).hexdigest()[:20]}"',
        )
    }
