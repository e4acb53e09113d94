"""``edgescribe probe``: a real HTTP request, because an accepted connection proves nothing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli.arguments import add_settings, load_settings, number
from edge.errors import EdgescribeError, SettingError

if TYPE_CHECKING:
    import http.client
    import ssl

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
    parser.add_argument(
        "--cacert",
        type=Path,
        metavar="FILE",
        help="PEM file of the authorities to trust for https (default: the system's)",
    )
    add_settings(parser, names=("host", "port", "tls_cert"))


def run(arguments: argparse.Namespace) -> int:
    """Ask; 0 for a 200."""
    import http.client

    own = arguments.url is None
    address = _own_address(arguments) if own else arguments.url
    connection, path = _connection(address, arguments, own)
    try:
        connection.request("GET", path + PATHS[arguments.question])
        response = connection.getresponse()
        body = response.read(SHOWN_BYTES).decode(errors="replace").strip()
    except TimeoutError as error:
        raise ProbeFailed(f"{address} did not answer within {arguments.timeout:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "verify_message", None) or getattr(error, "strerror", None)
        reason = reason or str(error) or type(error).__name__
        raise ProbeFailed(f"{address} cannot be asked: {reason}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise ProbeFailed(f"{address} answered {response.status}: {body}")
    print(body)
    return 0


def _connection(
    address: str, arguments: argparse.Namespace, own: bool
) -> tuple[http.client.HTTPConnection, str]:
    """A connection that is not open yet, and the path before the question's."""
    import http.client
    from urllib.parse import urlsplit

    wrong = SettingError("URL", address, "write it like http://127.0.0.1:8080")
    try:
        url = urlsplit(address)
        port = url.port
    except ValueError:
        raise wrong from None
    if url.scheme not in ("http", "https") or not url.hostname:
        raise wrong
    path, timeout_s = url.path.rstrip("/"), arguments.timeout
    if url.scheme == "http":
        return http.client.HTTPConnection(url.hostname, port, timeout=timeout_s), path
    context = _trust(arguments.cacert, own)
    return http.client.HTTPSConnection(url.hostname, port, timeout=timeout_s, context=context), path


def _trust(authorities: Path | None, own: bool) -> ssl.SSLContext:
    """Whom to believe.

    The gateway of the settings is asked by its address, which its certificate seldom names, and
    whether it lives does not depend on that certificate: without ``--cacert`` it is not verified.
    """
    import ssl

    try:
        context = ssl.create_default_context(cafile=authorities)
    except ssl.SSLError as error:
        wrong = "it must be a PEM file of certificates"
        raise SettingError("--cacert", str(authorities), wrong) from error
    except OSError as error:
        wrong = f"cannot read it: {error.strerror}"
        raise SettingError("--cacert", str(authorities), wrong) from error
    if own and authorities is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _own_address(arguments: argparse.Namespace) -> str:
    server = load_settings(arguments).settings.server
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)
    scheme = "https" if server.tls_cert else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{server.port}"
