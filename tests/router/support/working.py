"""Routers that follow a registry, as the workers of a gateway have them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from router import Namespace, RegistryStore, Router, RouterProtocol, RouterSettings
from tests.router.support.serving import Reply, connected, listening, named


class Worker:
    """A router as one worker of several has it."""

    def __init__(self, store: RegistryStore, **options: Any) -> None:
        self.namespaces = (Namespace("production"), Namespace("staging"))
        self.router = Router(self.namespaces, RouterSettings(expose_errors=True))
        self.deployments = self.router.deploy_from(store, **options)
        self.port = 0

    async def ask(self, *args: Any, **kwargs: Any) -> Reply:
        """One request, on a connection of its own."""
        async with connected(self.port) as client:
            return await client.ask(*args, **kwargs)


@contextlib.asynccontextmanager
async def working(store: RegistryStore, **options: Any) -> AsyncIterator[Worker]:
    """A worker that serves."""
    worker = Worker(store, **options)
    app = worker.router.app(named("router"))
    async with listening(app, protocol=RouterProtocol) as worker.port:
        yield worker
