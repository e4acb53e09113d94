"""Admission of a Host value: one spelling for every host, or none.

Section R1 of the rules: RFC 9110 section 7.2 for the grammar, UTS-46 (non-transitional) for what
is not ASCII.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

import idna

MAX_NAME = 253
MAX_LABEL = 63
MAX_PORT = 65535
CACHED_HOSTS = 4096
MAX_CACHED = 512
"""Characters; nobody fills a cache with longer ones."""

_REG_NAME = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=]+")
_PORT = re.compile(r"0*([0-9]{0,5})")
_FORWARDED_HOST = re.compile(r'(?:^|;)\s*host=(?:"((?:[^"\\]|\\.)*)"|([^\s";,]*))', re.I)


def normalise_host(authority: str) -> str | None:
    """The host of ``uri-host [":" [port]]``: lower case, A-labels, no port, no final dot.

    IPv6 literals are compressed and keep their brackets. None when it is not a valid one.
    """
    return _normalised(authority) if len(authority) <= MAX_CACHED else _normalise(authority)


def _normalise(authority: str) -> str | None:
    if authority.startswith("["):
        literal, bracket, rest = authority[1:].partition("]")
        if not bracket or (rest and rest[0] != ":") or not _is_port(rest[1:]):
            return None
        return _ipv6(literal)
    host, _, port = authority.partition(":")
    if not _is_port(port):
        return None
    if not host.isascii():
        host = _to_ascii(host) or ""
    elif not _REG_NAME.fullmatch(host):
        return None
    host = host.removesuffix(".").lower()
    if not host or len(host) > MAX_NAME:
        return None
    if any(not 0 < len(label) <= MAX_LABEL for label in host.split(".")):
        return None
    return host


_normalised = lru_cache(CACHED_HOSTS)(_normalise)


def forwarded_host(x_forwarded_host: str | None, forwarded: str | None) -> str | None:
    """The first host that a proxy tells of, as written; None when it tells of none.

    ``X-Forwarded-Host`` goes before ``Forwarded`` (RFC 7239).
    """
    if x_forwarded_host is not None:
        return x_forwarded_host.partition(",")[0].strip()
    if forwarded is not None:
        found = _FORWARDED_HOST.search(_first_element(forwarded))
        if found:
            quoted, token = found.groups()
            return re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token
    return None


def _first_element(forwarded: str) -> str:
    """What stands before the first comma that is not within quotes."""
    within, escaped = False, False
    for at, character in enumerate(forwarded):
        if escaped:
            escaped = False
        elif character == "\\" and within:
            escaped = True
        elif character == '"':
            within = not within
        elif character == "," and not within:
            return forwarded[:at]
    return forwarded


def _is_port(port: str) -> bool:
    found = _PORT.fullmatch(port) if port.isascii() else None
    return found is not None and int(found[1] or 0) <= MAX_PORT


def _ipv6(literal: str) -> str | None:
    if "%" in literal:
        return None
    try:
        return f"[{ipaddress.IPv6Address(literal).compressed}]"
    except ValueError:
        return None


def _to_ascii(host: str) -> str | None:
    """A-labels of a host that holds other characters than ASCII; None when UTS-46 forbids it."""
    if len(host) > MAX_NAME:
        return None
    try:
        mapped = idna.uts46_remap(host, std3_rules=False, transitional=False)
        labels = [
            label if label.isascii() else idna.alabel(label).decode("ascii")
            for label in mapped.split(".")
        ]
    except (UnicodeError, IndexError):
        return None
    name = ".".join(labels)
    # The mapping turns full-width forms into what the grammar forbids, a slash or a colon.
    return name if _REG_NAME.fullmatch(name) else None
