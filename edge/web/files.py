"""The files that browsers load, ready to be sent."""

from __future__ import annotations

import gzip
import hashlib
from importlib.resources import files
from pathlib import PurePosixPath

import msgspec

CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".ogg": "audio/ogg",
    ".svg": "image/svg+xml",
}
COMPRESSED = (".css", ".html", ".js", ".svg")
CONSOLE = "/console"


class WebFile(msgspec.Struct, frozen=True):
    """One file, as it is and compressed."""

    content_type: str
    content: bytes
    compressed: bytes
    """With gzip; empty where that makes it no smaller."""
    etag: str
    """Weak: it is the same for both forms."""
    is_page: bool = False


def load_web_files() -> dict[str, WebFile]:
    """All files by the paths they are served at; the console's page is at ``/console``, too."""
    folder = files("edge.web")
    found = {"/edgescribe.js": _file("edgescribe.js", (folder / "edgescribe.js").read_bytes())}
    for item in (folder / "console").iterdir():
        if PurePosixPath(item.name).suffix in CONTENT_TYPES:
            found[f"{CONSOLE}/{item.name}"] = _file(item.name, item.read_bytes())
    page = found[f"{CONSOLE}/index.html"]
    return {**found, CONSOLE: page, f"{CONSOLE}/": page}


def _file(name: str, content: bytes) -> WebFile:
    kind = PurePosixPath(name).suffix
    return WebFile(
        content_type=CONTENT_TYPES[kind],
        content=content,
        compressed=gzip.compress(content, mtime=0) if kind in COMPRESSED else b"",
        etag=f'W/"{hashlib.sha256(content).hexdigest()[:20]}"',
        is_page=kind == ".html",
    )
