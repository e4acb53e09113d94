"""Services that a registry names."""

from __future__ import annotations

from tests.router.support.serving import asgi_service

one = asgi_service("one")
two = asgi_service("two")
three = 3
