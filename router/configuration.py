"""A router's configuration in a TOML file::

port = 8081
environment = "development"
expose_errors = true

[table]
zones = ["localhost"]
services = ["gateway", "notes"]

[services.development.notes]
source = "examples.notes:app"
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from router.decision import ENVIRONMENTS, DecisionSettings
from router.deployments import Entry
from router.errors import RouterError
from router.registry import Namespace
from router.router import Router, RouterSettings
from router.table import TableSettings

Services = dict[str, dict[str, Entry]]


class FileSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file holds."""

    host: str = "127.0.0.1"
    port: int = 8081
    environment: str = "production"
    expose_errors: bool = False
    admin_host: str = ""
    """Where the Deploy API answers, if there is one; empty: on any host."""
    admin_prefix: str = "/_deploy"
    trusted_proxies: tuple[str, ...] = ()
    environment_suffixes: dict[str, str] = {}
    table: TableSettings = TableSettings()
    services: Services = {}


def router_of(settings: FileSettings) -> Router:
    """A router with the services of the file. Raises ``RouterError``."""
    namespaces = {name: Namespace(name) for name in ENVIRONMENTS}
    for environment, entries in settings.services.items():
        namespace = namespaces.setdefault(environment.lower(), Namespace(environment))
        for name, entry in entries.items():
            namespace.register(name, entry.source, limits=entry.limits, tags=entry.tags)
    decision = DecisionSettings(
        environment=settings.environment,
        environment_suffixes=settings.environment_suffixes,
        table=settings.table,
        trusted_proxies=settings.trusted_proxies,
    )
    return Router(
        namespaces.values(),
        RouterSettings(decision=decision, expose_errors=settings.expose_errors),
    )


def read(path: Path) -> FileSettings:
    """The settings of a file. Raises ``RouterError``."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), FileSettings)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise RouterError(f"{path}: {error}") from error
