"""Whether a URL can be used, told before anything is sent and without saying what is in it."""

from __future__ import annotations

from urllib.parse import urlsplit


def check_url(url: str, *schemes: str) -> str:
    """The URL; ``ValueError`` when it has another scheme, no host or a port that is none."""
    forms = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or url != url.strip() or not url.isprintable():
        raise ValueError(f"it must be {forms}host[:port]/…")
    return url
