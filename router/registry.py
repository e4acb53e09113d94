"""The registry of one environment: services by name, swapped at once, retired in peace."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import structlog

from router.errors import BindingUnavailable, ConfigurationError, ServiceNotDeployed
from router.loading import ServiceSource, service_of
from router.service import Limits, Service
from router.table import SERVICE_NAME

RETIRE_DEADLINE_S = 300.0
"""How long requests in flight may keep a replaced service."""

_log = structlog.get_logger("router.registry")


class Namespace:
    """The services of one environment. Belongs to one event loop, once it has started."""

    def __init__(self, name: str, *, retire_deadline_s: float = RETIRE_DEADLINE_S) -> None:
        self.name = name
        self._services: dict[str, Service] = {}
        self._retire_deadline_s = retire_deadline_s
        self._retiring: dict[Service, asyncio.Task[None]] = {}
        """Replaced services that still have requests in flight."""
        self._endings: set[asyncio.Task[None]] = set()
        self._started = False

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._services))

    def find(self, service: str) -> Service | None:
        """What is registered under a name, or None."""
        return self._services.get(service)

    def get(self, service: str) -> Binding:
        """A *service binding*: an object whose methods are those of the service, awaited."""
        return Binding(service, self.find)

    def register(
        self,
        name: str,
        source: ServiceSource,
        *,
        limits: Limits | None = None,
        tags: tuple[str, ...] = (),
    ) -> None:
        """Add or replace a service before the router has started.

        ``source`` is a Sanic application or blueprint, any ASGI application, a
        ``module:attribute`` that names one, an ``http(s)://`` upstream, or a ``Service``.
        """
        if self._started:
            raise ConfigurationError(f"{self.name} has started: await replace({name!r}, …)")
        self._services[check_name(name)] = service_of(source, limits, tags)

    async def replace(
        self,
        name: str,
        source: ServiceSource,
        *,
        limits: Limits | None = None,
        tags: tuple[str, ...] = (),
    ) -> None:
        """Start a service and put it in the place of what was there, if anything was.

        The swap is atomic: each request goes to the one or to the other, and those in flight end
        on the old one. Raises ``ServiceFailed``, and then nothing has changed.
        """
        service = service_of(source, limits, tags)
        check_name(name)
        if self._services.get(name) is service:
            return
        if self._started and not self._take_back(service):
            await service.start()
        old = self._services.get(name)
        self._services[name] = service
        self._retire(name, old)

    async def remove(self, name: str) -> None:
        """Take a service away; requests in flight end on it. Raises ``ServiceNotDeployed``."""
        if name not in self._services:
            raise ServiceNotDeployed(f"{name!r} is not deployed in {self.name}")
        self._retire(name, self._services.pop(name))

    async def start(self) -> None:
        """Start every service. Raises ``ServiceFailed``."""
        self._started = True
        for service in list(self._services.values()):
            await service.start()

    async def stop(self) -> None:
        """Stop every service, also those that still retire."""
        self._started = False
        retiring = list(self._retiring)
        for service in retiring:
            self._retiring.pop(service).cancel()
        await asyncio.gather(*self._endings, return_exceptions=True)
        for service in retiring:
            await _stop("replaced", service)
        for name, service in list(self._services.items()):
            await _stop(name, service)

    def _take_back(self, service: Service) -> bool:
        """Keep a service from its retirement, in which it has not been stopped yet."""
        task = self._retiring.pop(service, None)
        return task is not None and task.cancel()

    def _retire(self, name: str, service: Service | None) -> None:
        if service is None or not self._started:
            return
        task = asyncio.get_running_loop().create_task(self._end(name, service))
        self._retiring[service] = task
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def _end(self, name: str, service: Service) -> None:
        try:
            async with asyncio.timeout(self._retire_deadline_s):
                await service.drained()
        except TimeoutError:
            _log.warning("a replaced service is stopped in flight", service=name)
        del self._retiring[service]
        await _stop(name, service)


async def _stop(name: str, service: Service) -> None:
    try:
        await service.stop()
    except Exception as error:
        _log.error("a service did not stop", service=name, exc_info=error)


def check_name(name: str) -> str:
    """The name, if it may be a service's. Raises ``ConfigurationError``."""
    if not SERVICE_NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is no service name: use lower-case letters, digits and hyphens, at most 63, "
            "a letter or digit first and last"
        )
    return name


class Binding:
    """Calls the methods of whatever is registered under a name at the time of the call."""

    __slots__ = ("_find", "_name")

    def __init__(self, name: str, find: Callable[[str], Service | None]) -> None:
        self._name = name
        self._find = find

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)

        async def call(*args: Any, **kwargs: Any) -> Any:
            service = self._find(self._name)
            if service is None:
                raise ServiceNotDeployed(f"{self._name!r} is not deployed")
            target = getattr(service.binding, method, None)
            if not callable(target):
                raise BindingUnavailable(f"{self._name!r} has no method {method!r} to call")
            service.enter()
            try:
                result = target(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result
            finally:
                service.leave()

        return call
