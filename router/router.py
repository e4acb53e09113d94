"""The router: decides each request of a Sanic server and hands it to its service."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from functools import lru_cache
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import msgspec
import structlog
from sanic import HTTPResponse, Request, Sanic
from sanic.config import Config
from sanic.exceptions import PayloadTooLarge, SanicException
from sanic.http import Stage
from sanic.response import text

from router import answers
from router.answers import Answer
from router.asgi import AsgiService
from router.decision import Decider, Decision, DecisionSettings
from router.deploy_api import Admits, DeployApi
from router.deployments import Deployments, RegistryStore
from router.errors import ConfigurationError
from router.front import RoutedHttp, RoutedRequest
from router.metrics import Count, Tally
from router.registry import Namespace
from router.service import Limits, Service

_log = structlog.get_logger("router")
COUNTS_AT_HAND = 1024


class RouterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the router answers; what it decides by is ``decision``."""

    decision: DecisionSettings = DecisionSettings()
    expose_errors: bool = False
    """Whether the text of a service's error is shown to clients."""
    idle_deadline_s: float = 300.0
    """For a response in which nothing moves."""


class Router:
    """Routes to the services of some namespaces.

    Served by any Sanic application whose protocol class has ``Routed`` mixed in and whose
    ``ctx.router`` it is; ``app()`` makes one. Its methods belong to one event loop.
    """

    def __init__(
        self, namespaces: Iterable[Namespace], settings: RouterSettings | None = None
    ) -> None:
        self.settings = settings or RouterSettings()
        self.namespaces: dict[str, Namespace] = {}
        for namespace in namespaces:
            if self.namespaces.setdefault(namespace.name.lower(), namespace) is not namespace:
                raise ConfigurationError(f"there are two namespaces called {namespace.name!r}")
        self._deployments: Deployments | None = None
        self._deploy_api: DeployApi | None = None
        self._deploy_service: Service | None = None
        self._decider: Decider[Service] = Decider(self.namespaces, self.settings.decision)
        self._with_proxy = self._decider.trusts_proxies
        self._tally = Tally()
        self._count = lru_cache(COUNTS_AT_HAND)(self._counted)

    def app(self, name: str = "router") -> Sanic[Config, SimpleNamespace]:
        """A Sanic application that serves nothing but this router.

        Start it with ``protocol=RouterProtocol``.
        """
        config = Config(env_prefix="")
        config.RESPONSE_TIMEOUT = self.settings.idle_deadline_s  # type: ignore[assignment]
        config.ACCESS_LOG = False
        config.MOTD = False
        app: Sanic[Config, SimpleNamespace] = Sanic(
            name, config=config, configure_logging=False, inspector=False
        )
        app.ctx.router = self
        app.error_handler.add(SanicException, _unroutable)
        app.add_route(_unrouted, "/")
        app.register_listener(self._before_start, "before_server_start")
        app.register_listener(self._before_stop, "before_server_stop")
        return app

    def deploy_from(
        self,
        store: RegistryStore,
        *,
        admin_key: str = "",
        admin_host: str = "",
        admin_prefix: str = "/_deploy",
        admits: Admits | None = None,
    ) -> Deployments:
        """Serve what a shared registry holds beside what is registered here.

        With a key, or something that admits keys, the Deploy API answers under the prefix, on the
        one host or on any. Call it before the start.
        """
        self._deployments = Deployments(store, self.namespaces)
        if admin_key or admits is not None:
            self._deploy_api = DeployApi(
                self._deployments, admin_key, host=admin_host, prefix=admin_prefix, admits=admits
            )
            self._deploy_service = AsgiService(self._deploy_api)
        return self._deployments

    async def start(self) -> None:
        """Start the services of all namespaces. Raises ``ServiceFailed``."""
        for namespace in self.namespaces.values():
            await namespace.start()
        if self._deployments is not None:
            await self._deployments.start()

    async def stop(self) -> None:
        """Stop all services."""
        if self._deployments is not None:
            await self._deployments.stop()
        if self._deploy_service is not None:
            await self._deploy_service.stop()
        for namespace in list(self.namespaces.values()):
            await namespace.stop()
        self._tally.carry()

    async def handle_request(self, request: RoutedRequest) -> None:
        """Answer a request: by its service, or by the router itself."""
        exchange: RoutedHttp = request.stream  # type: ignore[assignment]
        decision = self._decide(request, exchange)
        service = decision.found
        exchange.max_body = None
        if service is not None and service.is_limited:
            self._hold_to_limits(exchange, decision, service.limits)
        if service is None or decision.answer is not None:
            exchange.refuse_body()
            await _send(request, decision.answer or answers.CONFIGURATION_ERROR)
            self._count(decision.environment, decision.service, decision.outcome).value += 1
            return
        request.router = self
        deadline: asyncio.Timeout | None = None
        service.in_flight += 1
        try:
            if service.limits.wall_ms is None or exchange.upgrade_websocket:
                await service.handle(request)
            else:
                deadline = asyncio.timeout(service.limits.wall_ms / 1000)
                async with deadline:
                    await service.handle(request)
            if exchange.stage is not Stage.IDLE:
                service.check_end(exchange)
        except (Exception, SystemExit) as error:
            over_time = deadline is not None and deadline.expired()
            await self._end_badly(request, error, over_time=over_time)
        finally:
            service.leave()
            self._count(decision.environment, decision.service, decision.outcome).value += 1

    def _decide(self, request: RoutedRequest, exchange: RoutedHttp) -> Decision[Service]:
        """The decision on a request, shown to it; one that cannot be followed is an answer."""
        decision: Decision[Service] | None = None
        hosts = request.hosts
        if (
            len(hosts) == 1
            and request.is_readable
            and not self._with_proxy
            and request.method != "CONNECT"
        ):
            decision = self._decider.decide_plain(hosts[0], exchange.url)
        is_plain = decision is not None
        if decision is None:
            decision = self._decider.decide(request.routing_head(with_proxy=self._with_proxy))
        self._tally.decided(perf_counter() - exchange.perft0)
        api = self._deploy_api
        if api is not None and api.matches(decision.host, decision.path):
            decision.outcome, decision.answer = "ok", None
            decision.service, decision.found = "deploy", self._deploy_service
        request.decision = decision
        if not is_plain and decision.found is not None and not request.retarget(decision):
            decision.outcome, decision.answer = "bad_request", answers.BAD_REQUEST
        return decision

    def failure(self, request: RoutedRequest, error: Exception) -> HTTPResponse:
        """What a client is told of an error of a service."""
        return _response(self._failed(request, error))

    def _hold_to_limits(
        self, exchange: RoutedHttp, decision: Decision[Service], limits: Limits
    ) -> None:
        """Bound the request's body, or answer at once where the service is over a limit."""
        exchange.max_body = limits.max_body
        in_flight = decision.found.in_flight if decision.found else 0
        if limits.max_concurrency is not None and in_flight >= limits.max_concurrency:
            what = f"{limits.max_concurrency} requests at once"
            decision.answer = answers.over_limit(decision.service, what)
        elif limits.max_body is not None and exchange.bytes_left > limits.max_body:
            decision.answer = answers.too_large(decision.service, limits.max_body)
        if decision.answer is not None:
            decision.outcome = "over_limit"

    def _counted(self, environment: str, service: str, outcome: str) -> Count:
        family = service and self._decider.table.family(service)
        return self._tally.count(environment, family, outcome)

    async def _end_badly(
        self, request: RoutedRequest, error: Exception | SystemExit, *, over_time: bool
    ) -> None:
        """End a request that its service did not: with an answer, or with the connection's end."""
        exchange, decision = request.exchange, request.decision
        if exchange.has_begun:
            if over_time:
                decision.outcome = "over_limit"
            else:
                self._failed(request, error)
            exchange.abort()
        elif over_time:
            limits = decision.found.limits if decision.found else None
            what = f"{limits.wall_ms if limits else 0} ms"
            await self._refuse(request, answers.over_limit(decision.service, what))
        elif isinstance(error, PayloadTooLarge):
            bound = exchange.max_body or int(exchange.request_max_size)
            await self._refuse(request, answers.too_large(decision.service, bound))
        else:
            answer = self._failed(request, error)
            exchange.refuse_body()
            await _send(request, answer)

    async def _refuse(self, request: RoutedRequest, answer: Answer) -> None:
        request.decision.outcome = "over_limit"
        request.exchange.refuse_body()
        await _send(request, answer)

    def _failed(self, request: RoutedRequest, error: Exception | SystemExit) -> Answer:
        decision = request.decision
        decision.outcome = "dispatch_error"
        request_id = uuid.uuid4().hex
        _log.error(
            "Dispatch error",
            service=decision.service,
            environment=decision.environment,
            request_id=request_id,
            exc_info=error,
        )
        return answers.failed(str(error), request_id, expose=self.settings.expose_errors)

    async def _before_start(self, app: Sanic[Any, Any]) -> None:
        await self.start()

    async def _before_stop(self, app: Sanic[Any, Any]) -> None:
        await self.stop()


def _response(answer: Answer) -> HTTPResponse:
    headers = {}
    if answer.retry_after_s is not None:
        headers["retry-after"] = str(answer.retry_after_s)
    return HTTPResponse(answer.body, answer.status, headers, answer.content_type)


async def _send(request: RoutedRequest, answer: Answer) -> None:
    response = request.exchange.respond(_response(answer))
    await response.send(end_stream=True)


def _unroutable(request: Request, error: Exception) -> HTTPResponse:
    """The answer to what never became a request."""
    status = error.status_code if isinstance(error, SanicException) else 500
    if status == 400:
        return _response(answers.BAD_REQUEST)
    return text(str(error), status=status)


async def _unrouted(request: Request) -> HTTPResponse:
    """Sanic starts no application without a route; no request comes here."""
    return text("Not Found", status=404)
