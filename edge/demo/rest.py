"""A gateway's meetings over plain HTTP, as the recorder's scripts and its desktop client ask."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import msgspec

from edge.demo.client import LOOPBACK, Unreachable
from edge.demo.recorder import Role, Stored
from edge.errors import EdgescribeError

TIMEOUT_S = 90.0
_SHOWN_CHARACTERS = 240

T = TypeVar("T")


class NotAnswered(EdgescribeError):
    """The gateway refused a request, or answered what cannot be read."""

    def __init__(self, message: str, status: int | None = None) -> None:
        self.status = status
        """Of HTTP; None where the answer's body is the fault."""
        super().__init__(message)


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Of ``GET /v1/sessions/{id}/state``, what the clients here look at."""

    session_id: str
    ingest: Stored
    ingest_by_stream: dict[Role, Stored]
    event_count: int = 0
    utterance_count_by_stream: dict[Role, int] = {}

    def stored(self, role: Role) -> Stored:
        """What is stored of a role."""
        return self.ingest if role == "mixed" else self.ingest_by_stream.get(role, Stored())


class Utterance(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was said."""

    utterance_id: str = ""
    """Of the raw view."""
    merged_id: str = ""
    """Of the merged view."""
    stream_role: Role
    text: str
    start_seq: int
    end_seq: int
    start_ms: int
    end_ms: int


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Who said it."""

    stream_role: Role
    utterance_id: str | None = None
    speaker_name: str | None = None


class Utterances(msgspec.Struct, frozen=True, kw_only=True):
    """Of ``GET /v1/sessions/{id}/utterances``."""

    count: int
    items: list[Utterance]


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """Of ``GET /v1/sessions/{id}/events``."""

    count: int
    items: list[Event]


class WindowsRun(msgspec.Struct, frozen=True, kw_only=True):
    """Of ``POST /v1/sessions/{id}/asr-run``."""

    generated: int
    last_window_end_seq: int
    utterance_count: int
    last_error: str | None = None


class Finalized(msgspec.Struct, frozen=True, kw_only=True):
    """Of ``POST /v1/sessions/{id}/finalize``."""

    session_id: str
    result_key: str
    event_count: int
    finalized_at: str


class Meeting:
    """One session of the gateway at a base address; a call blocks until it is answered.

    Calls raise ``Unreachable`` where nobody answers within ``timeout_s``, ``NotAnswered`` for an
    answer other than 200 or of another shape.
    """

    def __init__(self, base: str, session_id: str, timeout_s: float = TIMEOUT_S) -> None:
        problem = Unreachable(f"{base!r} is not a gateway's address; use http://HOST:PORT")
        try:
            parts = urlsplit(base if "://" in base else f"http://{base}")
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise problem from None
        if parts.scheme not in ("http", "https") or not host:
            raise problem
        self._base = f"{parts.geturl().rstrip('/')}/v1/sessions/{quote(session_id, safe='')}"
        self._timeout_s = timeout_s
        self._opener = build_opener(*([ProxyHandler({})] if host in LOOPBACK else []))

    def state(self) -> State:
        """Everything that is known, in figures."""
        return self._ask("GET", "/state", State)

    def utterances(self, role: Role, *, view: str = "raw", limit: int = 1000) -> Utterances:
        """The last utterances of a role."""
        query = {"stream_role": role, "view": view, "limit": str(limit)}
        return self._ask("GET", "/utterances", Utterances, query)

    def events(self, *, limit: int = 100) -> Events:
        """The last events of all roles."""
        return self._ask("GET", "/events", Events, {"limit": str(limit)})

    def configure(self, body: Mapping[str, object]) -> None:
        """Set names and the roster."""
        self._ask("POST", "/config", dict[str, object], body=body)

    def reset_recognition(self, role: Role) -> None:
        """Forget a role's utterances and events; its audio is kept."""
        self._ask("POST", "/asr-reset", dict[str, object], {"stream_role": role}, body={})

    def run_windows(self, role: Role, max_windows: int = 0) -> WindowsRun:
        """Transcribe stored audio that no utterance covers; 0 is all of it."""
        query = {"stream_role": role, "max_windows": str(max_windows)}
        return self._ask("POST", "/asr-run", WindowsRun, query, body={})

    def finalize(self, metadata: Mapping[str, object] | None = None) -> Finalized:
        """Hear recognizers out and write result.json."""
        return self._ask("POST", "/finalize", Finalized, body={"metadata": metadata or {}})

    def result(self, kind: type[T]) -> T:
        """The last result.json."""
        return self._ask("GET", "/result", kind)

    def _ask(
        self,
        method: str,
        path: str,
        kind: type[T],
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> T:
        url = self._base + path + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else msgspec.json.encode(body)
        request = Request(url, data, {"Content-Type": "application/json"}, method=method)
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                answer: bytes = response.read()
        except HTTPError as error:
            with error:
                said = error.read(_SHOWN_CHARACTERS).decode(errors="replace").strip()
            message = f"{method} {url} was answered {error.code}: {said}"
            raise NotAnswered(message, error.code) from None
        except TimeoutError:
            raise Unreachable(f"{url} did not answer within {self._timeout_s:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise Unreachable(f"{url} cannot be asked: {reason}") from None
        try:
            return msgspec.json.decode(answer, type=kind)
        except msgspec.DecodeError as error:
            raise NotAnswered(f"{method} {url} was answered with something else: {error}") from None
