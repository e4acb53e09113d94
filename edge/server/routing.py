"""The router in front of the gateway: built only where the settings switch it on.

The gateway is the service ``gateway`` of every namespace that has none of its own; other services
come from the router's file and, over the Deploy API, from the session store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sanic import Sanic
from sanic.config import Config

from dispatch.errors import Unreachable
from dispatch.messages import DispatcherTranscriptionMessage, RPCResponse
from edge.auth.guard import Guard
from edge.errors import Conflict, SettingError, StoreUnavailable
from edge.server.settings import RoutingSettings
from edge.session.store.interface import SessionStore, shared_scope
from router import Router, Service, Stored
from router.configuration import FileSettings, read, router_of
from router.errors import (
    BindingUnavailable,
    RegistryUnavailable,
    RouterError,
    ServiceNotDeployed,
    VersionConflict,
)
from router.front import RoutedRequest
from router.registry import Binding
from router.table import DEFAULT_SERVICE

SCOPE = shared_scope("router")
FAMILY = "registry"
KEY = "services"


class GatewayService(Service):
    """The gateway of this worker, which the worker itself starts and stops."""

    def __init__(self, app: Sanic[Config, Any]) -> None:
        super().__init__()
        self._app = app

    def handle(self, request: RoutedRequest) -> Awaitable[None]:
        """As without a router."""
        return self._app.handle_request(request)


class RegistryRecords:
    """Keeps the router's registry in the session store, for all workers and nodes."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def load(self) -> Stored:
        """The document. Raises ``RegistryUnavailable``."""
        try:
            record = await self._store.get(SCOPE, FAMILY, KEY)
        except StoreUnavailable as error:
            raise RegistryUnavailable(str(error)) from error
        return Stored(0, b"") if record is None else Stored(record.version, record.body)

    async def save(self, body: bytes, base: int) -> None:
        """Replace version ``base`` by ``body``.

        Raises ``VersionConflict``, ``RegistryUnavailable``.
        """
        try:
            await self._store.put(SCOPE, FAMILY, KEY, body, base)
        except Conflict as conflict:
            raise VersionConflict(f"version {base} is not the newest") from conflict
        except StoreUnavailable as error:
            raise RegistryUnavailable(str(error)) from error


def build_router(
    settings: RoutingSettings, app: Sanic[Config, Any], store: SessionStore, guard: Guard | None
) -> Router:
    """This worker's router, not yet started; its Deploy API also takes keys that ``guard`` knows.

    Raises ``SettingError``.
    """
    path = settings.router_file
    try:
        file = FileSettings() if path is None else read(path)
        router = router_of(file)
        for namespace in router.namespaces.values():
            if namespace.find(DEFAULT_SERVICE) is None:
                namespace.register(DEFAULT_SERVICE, GatewayService(app))
        router.deploy_from(
            RegistryRecords(store),
            admin_key=settings.admin_key,
            admin_host=file.admin_host,
            admin_prefix=file.admin_prefix,
            admits=guard.may_deploy if guard else None,
        )
    except RouterError as error:
        raise SettingError("router_file", str(path), str(error)) from error
    return router


class Archive:
    """A service of the router as a dispatcher; while it is not deployed, messages wait."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding

    async def dispatch(self, message: DispatcherTranscriptionMessage) -> RPCResponse:
        """Call it; raises ``Unreachable`` and what the service raises."""
        try:
            answer: RPCResponse = await self._binding.dispatch(message)
        except (ServiceNotDeployed, BindingUnavailable) as error:
            raise Unreachable(str(error)) from error
        return answer


def lookup_in(router: Router) -> Callable[[str], Archive]:
    """Finds dispatchers by ``service`` or ``environment/service``; the first environment is meant
    where none is named. Raises ``SettingError``."""

    def find(name: str) -> Archive:
        environment, _, service = name.rpartition("/")
        namespaces = router.namespaces
        namespace = namespaces.get(environment) if environment else next(iter(namespaces.values()))
        if namespace is None:
            raise SettingError("dispatch_binding", name, f"there is no environment {environment}")
        return Archive(namespace.get(service))

    return find
