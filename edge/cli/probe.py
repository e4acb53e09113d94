"""``edgescribe probe``: a real HTTP request, because an accepted connection proves nothing."""

from __future__ import annotations

import argparse

from edge.cli.arguments import add_settings, load_settings, number
from edge.errors import EdgescribeError, SettingError

PATHS = {"live": "/health", "ready": "/ready"}
SHOWN_BYTES = 200


class ProbeFailed(EdgescribeError):
    """The gateway did not answer as a healthy one does."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to ask, whom, and for how long."""
    parser.add_argument("question", choices=tuple(PATHS), help="live: answers; ready: takes work")
    parser.add_argument(
        "url", nargs="?", metavar="URL", help="address of the gateway (default: from the settings)"
    )
    parser.add_argument(
        "--timeout",
        type=number(float, 0.01, 600),
        default=3.0,
        metavar="SECONDS",
        help="longest wait (default: 3)",
    )
    add_settings(parser, names=("host", "port"))


def run(arguments: argparse.Namespace) -> int:
    """Ask; 0 for a 200."""
    import http.client
    from urllib.parse import urlsplit

    address = arguments.url or _own_address(arguments)
    wrong = SettingError("URL", address, "write it like http://127.0.0.1:8080")
    try:
        url = urlsplit(address)
        port = url.port
    except ValueError:
        raise wrong from None
    if url.scheme not in ("http", "https") or not url.hostname:
        raise wrong
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname, port, timeout=arguments.timeout)
    try:
        connection.request("GET", url.path.rstrip("/") + PATHS[arguments.question])
        response = connection.getresponse()
        body = response.read(SHOWN_BYTES).decode(errors="replace").strip()
    except TimeoutError as error:
        raise ProbeFailed(f"{address} did not answer within {arguments.timeout:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ProbeFailed(f"{address} cannot be asked: {reason}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise ProbeFailed(f"{address} answered {response.status}: {body}")
    print(body)
    return 0


def _own_address(arguments: argparse.Namespace) -> str:
    server = load_settings(arguments).settings.server
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)
    return f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"
