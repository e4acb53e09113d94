"""An authority of the tests' own, and upstreams that speak TLS by it."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from functools import cache

import pytest
import trustme


@cache
def authority() -> trustme.CA:
    """The one that ``trusted`` has clients believe."""
    return trustme.CA()


def context_for(*names: str) -> ssl.SSLContext:
    """A server's context, with a certificate for these names."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert(*names).configure_cert(context)
    return context


@contextlib.contextmanager
def trusted() -> Iterator[None]:
    """Clients that are made within believe the authority."""
    with authority().cert_pem.tempfile() as file, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", file)
        yield
