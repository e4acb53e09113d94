"""Which service a host and a path name (sections R4 and R5)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

import msgspec

from router.errors import ConfigurationError
from router.hosts import normalise_host

V1_SERVICES: Final = ("gateway", "db", "auth", "schedule", "webhooks", "email", "mcp", "queue")
V2_SERVICES: Final = (*V1_SERVICES, "fn", "agent", "workflows")
V2_ALIASES: Final = {
    "database.do": "db",
    "db.mw": "db",
    "apis.do": "gateway",
    "彡.io": "db",
    "人.io": "agent",
}
LISTED: Final = 8
"""How many services the answer to an unknown one lists."""
DEFAULT_SERVICE: Final = "gateway"
ZONELESS_APEX: Final = frozenset(("do", "api.do"))
"""What stands for a zone's apex when no zones are set."""

SERVICE_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_VERSION: Final = re.compile(r"v[0-9]+(?:-[a-z0-9]+)*")
_LOOPBACK: Final = re.compile(r"127(?:\.[0-9]{1,3}){3}|localhost|.*\.localhost|\[::1\]")


class TableSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The names that hosts and paths are matched with."""

    profile: Literal["v1", "v2"] = "v1"
    """``v2`` knows versions (``v1.db.example.org``), aliases and three more services."""
    services: tuple[str, ...] = ()
    """Empty: those of the profile."""
    zones: tuple[str, ...] = ()
    """Hosts must equal one or end with ``.`` and one; empty accepts any host."""
    allow_loopback: bool = False
    """Whether loopback hosts are accepted beside the zones."""
    gateway_hosts: tuple[str, ...] = ()
    """Hosts that reach the default service besides the zones' apex and ``api``."""
    aliases: Mapping[str, str] | None = None
    """Service of a whole host, profile v2 only; None: the profile's."""


class Naming(NamedTuple):
    """What a host says of the service, whatever the path is."""

    service: str | None = None
    """The one it names itself; the path does not count then."""
    by_path: bool = False
    """Whether the path may name one."""
    otherwise: str | None = None
    """The one of a path that names none."""


class ServiceTable:
    """Immutable; ``choose`` is all there is to ask."""

    def __init__(self, settings: TableSettings | None = None) -> None:
        settings = settings or TableSettings()
        versions = settings.profile == "v2"
        names = settings.services or (V2_SERVICES if versions else V1_SERVICES)
        for name in names:
            if not SERVICE_NAME.fullmatch(name):
                raise ConfigurationError(
                    f"{name!r} in services is no service name: use lower-case letters, digits and "
                    "hyphens, at most 63, a letter or digit first and last"
                )
        self.listed = names[:LISTED]
        self._names = frozenset(names)
        self._versions = versions
        self._zones = frozenset(_host(zone, "zones") for zone in settings.zones)
        self._suffixes = tuple("." + zone for zone in sorted(self._zones))
        self._allow_loopback = settings.allow_loopback
        apex = self._zones | {"api." + zone for zone in self._zones}
        extra = frozenset(_host(host, "gateway_hosts") for host in settings.gateway_hosts)
        self._extra = extra
        self._default_hosts = (apex or ZONELESS_APEX) | extra
        aliases = V2_ALIASES if settings.aliases is None else settings.aliases
        self._aliases = (
            {_host(host, "aliases"): service for host, service in aliases.items()}
            if versions
            else {}
        )

    def choose(self, host: str, path: str) -> str | None:
        """The service of a normalised host and path, or None.

        It need not be registered: with versions it may be a name that no table holds.
        """
        return self.choose_by(self.naming(host), path)

    def choose_by(self, naming: Naming, path: str) -> str | None:
        """The same, of what a host was found to say."""
        if naming.service is not None:
            return naming.service
        if naming.by_path and path.startswith("/api/"):
            segment = path[5:].partition("/")[0]
            if segment in self._names:
                return segment
        return naming.otherwise

    def naming(self, host: str) -> Naming:
        """What a normalised host says of the service."""
        if self._zones and not self._is_accepted(host):
            return Naming()
        if self._versions:
            service = self._version_of(host) or self._aliases.get(host)
            if service is not None:
                return Naming(service)
        first = host.partition(".")[0]
        if first in self._names:
            return Naming(first)
        is_default = first == "api" or host in self._default_hosts
        return Naming(by_path=True, otherwise=DEFAULT_SERVICE if is_default else None)

    def family(self, service: str) -> str:
        """The table's name for a service: that of ``db-v1`` is ``db``. Bounds what metrics count"""
        if service in self._names:
            return service
        name = service.rpartition("-v")[0]
        while name and name not in self._names:
            name = name.rpartition("-v")[0]
        return name or "other"

    def _is_accepted(self, host: str) -> bool:
        return (
            host in self._zones
            or host.endswith(self._suffixes)
            or host in self._extra
            or (self._allow_loopback and _LOOPBACK.fullmatch(host) is not None)
        )

    def _version_of(self, host: str) -> str | None:
        """``db-v2`` for ``v2.db.<zone>``."""
        version, _, rest = host.partition(".")
        if not _VERSION.fullmatch(version):
            return None
        service, _, zone = rest.partition(".")
        if service not in self._names or not (zone in self._zones if self._zones else zone):
            return None
        return f"{service}-{version}"


def suffix_chooser(suffixes: Mapping[str, str]) -> Callable[[str], str | None]:
    """Finds the environment of a host by suffixes such as ``*.staging.example``, longest first."""
    ordered = sorted(
        (
            ("." + _host(suffix.removeprefix("*."), "suffixes"), name)
            for suffix, name in suffixes.items()
        ),
        key=lambda item: -len(item[0]),
    )

    def choose(host: str) -> str | None:
        dotted = "." + host
        return next((name for suffix, name in ordered if dotted.endswith(suffix)), None)

    return choose


def _host(text: str, setting: str) -> str:
    host = normalise_host(text)
    if host is None:
        raise ConfigurationError(f"{text!r} in {setting} is no host name")
    return host
