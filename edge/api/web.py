"""Serves the files that browsers load, with what caches need to know."""

from __future__ import annotations

from sanic import HTTPResponse, Request
from sanic.response import raw, text

from edge.web.files import load_web_files

CACHE = "public, max-age=300"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src blob:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""For pages: nothing from elsewhere is loaded, asked or run, and nobody frames them."""


class WebFiles:
    """One worker's answers to requests for the client library."""

    def __init__(self) -> None:
        self._files = load_web_files()

    def serves(self, target: str) -> bool:
        """Whether ``target``, a path and query as sent, is one of the files."""
        return target.partition("?")[0] in self._files

    def answer(self, request: Request, target: str) -> HTTPResponse:
        """The file, compressed where the client takes gzip; 304 when it has it, 405 for changes."""
        if request.method not in ("GET", "HEAD"):
            return text("Method Not Allowed", status=405, headers={"Allow": "GET, HEAD"})
        file = self._files[target.partition("?")[0]]
        headers = {
            "ETag": file.etag,
            "Cache-Control": CACHE,
            "Vary": "Accept-Encoding",
            # Modules and worklets of pages elsewhere are loaded only with this.
            "Access-Control-Allow-Origin": "*",
            "X-Content-Type-Options": "nosniff",
        }
        if file.is_page:
            headers["Content-Security-Policy"] = POLICY
        known = request.headers.get("if-none-match", "")
        if known == "*" or file.etag in known:
            return HTTPResponse(status=304, headers=headers)
        body = file.content
        if file.compressed and _takes_gzip(request.headers.get("accept-encoding", "")):
            headers["Content-Encoding"] = "gzip"
            body = file.compressed
        return raw(body, content_type=file.content_type, headers=headers)


def _takes_gzip(accepted: str) -> bool:
    for item in accepted.split(","):
        name, _, quality = item.partition(";")
        if name.strip().lower() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
