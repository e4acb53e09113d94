"""``edgescribe services``: what the router of a running gateway serves, over its Deploy API."""

from __future__ import annotations

import argparse
import json
from typing import Any

from edge.cli.arguments import add_settings, load_settings, number
from edge.errors import EdgescribeError, SettingError

PREFIX = "/_deploy"
TIMEOUT_S = 15.0
CHANGES = {"register": "POST", "replace": "PUT", "remove": "DELETE"}


class ServicesFailed(EdgescribeError):
    """The gateway did not do what was asked."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, with which service, of which gateway."""
    parser.add_argument(
        "action",
        choices=("list", *CHANGES),
        help="register takes a new name only, replace any",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="the service's name")
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="module:attribute of a Sanic or ASGI application, or an http(s):// upstream",
    )
    parser.add_argument("--url", metavar="URL", help="the gateway (default: from the settings)")
    parser.add_argument(
        "--prefix",
        default=PREFIX,
        metavar="PATH",
        help=f"the router file's admin_prefix (default: {PREFIX})",
    )
    parser.add_argument(
        "--environment", default="production", help="the namespace (default: production)"
    )
    parser.add_argument("--tag", action="append", default=[], help="may be repeated")
    for limit, unit in (("wall-ms", "MS"), ("max-body", "BYTES"), ("max-concurrency", "REQUESTS")):
        parser.add_argument(f"--{limit}", type=number(int, 1, 1 << 53), metavar=unit)
    add_settings(parser, names=("host", "port", "tls_cert"))


def run(arguments: argparse.Namespace) -> int:
    """Ask the Deploy API; 0 when it did what was asked."""
    settings = load_settings(arguments).settings
    key = settings.routing.admin_key
    if not key:
        raise SettingError("admin_key", "", "the Deploy API needs the key that the gateway has")
    server = settings.server
    scheme = "https" if server.tls_cert else "http"
    address = (arguments.url or f"{scheme}://{server.host}:{server.port}").rstrip("/")
    services = arguments.prefix.rstrip("/") + "/services"
    if arguments.action == "list":
        _print(_ask(address, "GET", services, key))
        return 0
    if not arguments.name or (arguments.source is None) != (arguments.action == "remove"):
        raise SettingError("arguments", arguments.action, "give NAME, and SOURCE unless you remove")
    entry = None if arguments.action == "remove" else _entry(arguments)
    path = f"{services}/{arguments.environment}/{arguments.name}"
    told = _ask(address, CHANGES[arguments.action], path, key, entry)
    print(f"{arguments.name} in {arguments.environment}: version {told['version']}")
    return 0


def _entry(arguments: argparse.Namespace) -> dict[str, Any]:
    limits = {
        name: value
        for name in ("wall_ms", "max_body", "max_concurrency")
        if (value := getattr(arguments, name)) is not None
    }
    return {"source": arguments.source, "tags": arguments.tag, "limits": limits}


def _print(told: dict[str, Any]) -> None:
    for environment, entries in sorted(told["services"].items()):
        for name, entry in sorted(entries.items()):
            tags = " ".join(entry["tags"])
            print(f"{environment}\t{name}\t{entry['source']}\t{tags}".rstrip())


def _ask(address: str, method: str, path: str, key: str, body: object = None) -> dict[str, Any]:
    import urllib.error
    import urllib.request

    request = urllib.request.Request(
        address + path,
        None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            told: dict[str, Any] = json.load(response)
            return told
    except urllib.error.HTTPError as error:
        text = error.read(2000).decode(errors="replace")
        raise ServicesFailed(f"{address} answered {error.code}: {text}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ServicesFailed(f"{address} cannot be asked: {reason}") from error
