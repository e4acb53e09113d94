"""The decision: from a request's head to a service or to one of the router's own answers.

Nothing here waits or knows a socket; sections R1 to R6 of the rules, in this order.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

import msgspec

from router import answers
from router.answers import Answer
from router.errors import ConfigurationError
from router.hosts import CACHED_HOSTS, MAX_CACHED, forwarded_host, normalise_host
from router.paths import split_target
from router.table import Naming, ServiceTable, TableSettings, suffix_chooser

ENVIRONMENTS = ("production", "staging", "development")

Outcome = Literal[
    "ok",
    "not_found",
    "not_deployed",
    "bad_request",
    "config_error",
    "dispatch_error",
    "over_limit",
]
ServiceT = TypeVar("ServiceT")
ServiceT_co = TypeVar("ServiceT_co", covariant=True)


class Lookup(Protocol[ServiceT_co]):
    """The part of a namespace that a decision needs."""

    def find(self, service: str) -> ServiceT_co | None:
        """What is registered under a name."""


class RequestHead(msgspec.Struct, frozen=True):
    """What a decision is made of; texts as they came, fields without surrounding blanks."""

    method: str
    target: str
    hosts: Sequence[str]
    """The values of all Host fields."""
    version: str = "1.1"
    x_forwarded_host: str | None = None
    forwarded: str | None = None
    peer: str | None = None
    """The peer's address; None for one that has none, such as a UNIX socket's."""


class Decision(msgspec.Struct, Generic[ServiceT]):
    """Either ``found`` is set, or ``answer``."""

    outcome: Outcome
    host: str = ""
    """Normalised."""
    path: str = ""
    """Normalised, without query."""
    query: str = ""
    """With its question mark; empty when there is none."""
    authority: str | None = None
    """Of an absolute-form target, as written."""
    environment: str = ""
    service: str = ""
    found: ServiceT | None = None
    answer: Answer | None = None


class DecisionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How requests are told apart."""

    environment: str = "production"
    """Compared without regard to case, echoed as written."""
    environment_suffixes: Mapping[str, str] = {}
    """Environments of host suffixes, ``{"*.staging.example": "staging"}``; the longest wins."""
    table: TableSettings = TableSettings()
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks of peers whose ``X-Forwarded-Host`` and ``Forwarded`` count."""


class _Place(NamedTuple):
    """What is known of a host before a path is."""

    host: str
    """Normalised."""
    environment: str
    namespace: str
    naming: Naming


class Decider(Generic[ServiceT]):
    """Decides by settings that stay and namespaces that change."""

    def __init__(
        self, namespaces: Mapping[str, Lookup[ServiceT]], settings: DecisionSettings
    ) -> None:
        self._namespaces = namespaces
        self.table = ServiceTable(settings.table)
        self._environment = settings.environment
        self._folded = {settings.environment: settings.environment.lower()}
        for name in settings.environment_suffixes.values():
            self._folded[name] = name.lower()
        self._by_suffix: Callable[[str], str | None] | None = (
            suffix_chooser(settings.environment_suffixes) if settings.environment_suffixes else None
        )
        self._trusted = [_network(text) for text in settings.trusted_proxies]
        for name, folded in self._folded.items():
            if folded not in namespaces:
                known = ", ".join(sorted(namespaces)) or "none"
                raise ConfigurationError(
                    f"there is no namespace for the environment {name!r}; there are: {known}"
                )

        self._locate = lru_cache(CACHED_HOSTS)(self._located)
        self._nowhere = self._place("")

    @property
    def trusts_proxies(self) -> bool:
        """Whether what a proxy tells may count at all."""
        return bool(self._trusted)

    def decide(self, head: RequestHead) -> Decision[ServiceT]:
        """Never raises, whatever the head holds."""
        authority: str | None = None
        path, query = "", ""
        is_connect = head.method == "CONNECT"
        if not is_connect:
            target = split_target(head.target)
            if target is None:
                return Decision("bad_request", answer=answers.BAD_REQUEST)
            authority, path, query = target
        place = self._admit(head, authority)
        if place is None:
            return Decision("bad_request", answer=answers.BAD_REQUEST)
        if is_connect:
            return Decision("bad_request", place.host, answer=answers.CONNECT_REFUSED)
        return self._settle(place, path, query, authority)

    def decide_plain(self, host: str, target: str) -> Decision[ServiceT] | None:
        """The same, sooner, for one Host field, no trusted proxy and a method but ``CONNECT``.

        None when the target has to be normalised first, or the host is longer than any.
        """
        if (
            len(host) > MAX_CACHED
            or not target.startswith("/")
            or "/." in target
            or "%2" in target
            or "#" in target
            or "\\" in target
        ):
            return None
        place = self._locate(host)
        if place is None:
            return Decision("bad_request", answer=answers.BAD_REQUEST)
        if "?" in target:
            path, mark, query = target.partition("?")
            return self._settle(place, path, mark + query, None)
        return self._settle(place, target, "", None)

    def _settle(
        self, place: _Place, path: str, query: str, authority: str | None
    ) -> Decision[ServiceT]:
        host, environment = place.host, place.environment
        namespace = self._namespaces.get(place.namespace)
        if namespace is None:
            return Decision(
                "config_error", host, path, query, authority, answer=answers.CONFIGURATION_ERROR
            )
        service = place.naming.service or self.table.choose_by(place.naming, path)
        if service is None:
            answer = answers.not_found(host, path, self.table.listed)
            return Decision("not_found", host, path, query, authority, environment, answer=answer)
        found = namespace.find(service)
        if found is None:
            answer = answers.not_deployed(service, environment)
            return Decision(
                "not_deployed", host, path, query, authority, environment, service, answer=answer
            )
        return Decision("ok", host, path, query, authority, environment, service, found)

    def _admit(self, head: RequestHead, authority: str | None) -> _Place | None:
        """Where the host that counts leads; None when there is none to be had."""
        hosts = head.hosts
        if len(hosts) != 1:
            if hosts or head.version != "1.0":
                return None
            host = authority
        else:
            host = hosts[0] if authority is None else authority
        if self._trusted and self._trusts(head.peer):
            told = forwarded_host(head.x_forwarded_host, head.forwarded)
            host = host if told is None else told
        if host is None:
            return self._nowhere
        return self._locate(host) if len(host) <= MAX_CACHED else self._located(host)

    def _located(self, authority: str) -> _Place | None:
        """Where a host leads, as written; ``_locate`` keeps the last ones."""
        host = normalise_host(authority)
        return None if host is None else self._place(host)

    def _place(self, host: str) -> _Place:
        environment = (self._by_suffix and self._by_suffix(host)) or self._environment
        return _Place(host, environment, self._folded[environment], self.table.naming(host))

    def _trusts(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address((peer or "").partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._trusted)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigurationError(
            f"{text!r} in trusted_proxies is no address or network: {error}"
        ) from None
