"""Sanic servers for the router's benchmark, one a process: plain, or with a router before it.

``python -m bench.router_server plain|routed PORT``
"""

from __future__ import annotations

import sys
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.response import json, text

from router import Namespace, Router, RouterProtocol


def service(name: str) -> Sanic[Any, Any]:
    """A handler that answers at once, and one that reads and makes some JSON."""
    app: Sanic[Any, Any] = Sanic(name, configure_logging=False)
    app.config.ACCESS_LOG = False
    app.config.MOTD = False

    @app.get("/query")
    async def query(request: Request) -> HTTPResponse:
        return text("ok")

    @app.post("/api/notes/<note:int>")
    async def keep(request: Request, note: int) -> HTTPResponse:
        wanted = request.args.get("q", "")
        lines = [line for line in request.json["lines"] if wanted in line]
        return json({"note": note, "by": request.headers["authorization"][7:], "lines": lines})

    return app


def main(kind: str, port: int) -> None:
    """Serve until the process is stopped."""
    if kind == "plain":
        service("plain").run(host="127.0.0.1", port=port, single_process=True, access_log=False)
        return
    namespace = Namespace("production")
    namespace.register("db", service("db"))
    app = Router([namespace]).app()
    app.run(
        host="127.0.0.1",
        port=port,
        single_process=True,
        access_log=False,
        protocol=RouterProtocol,
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
