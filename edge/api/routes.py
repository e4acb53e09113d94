"""Every typed endpoint of the gateway, in one table."""

from __future__ import annotations

from edge.api.export import Exporter, ExportQuery
from edge.api.http import Endpoint, Endpoints, NoQuery
from edge.api.sessions import ListQuery, SessionEndpoints, SessionList, SessionState
from edge.api.stability import Figures, StabilityEndpoint
from edge.session.stability import Report
from edge.session.store.interface import SessionStore


def endpoints(store: SessionStore, figures: Figures) -> Endpoints:
    """The endpoints, answered from a worker's store and its stability figures."""
    sessions = SessionEndpoints(store)
    return Endpoints(
        (
            Endpoint(
                method="GET",
                path="/v1/sessions",
                summary="List sessions",
                query=ListQuery,
                answer=SessionList,
                handle=sessions.page,
            ),
            Endpoint(
                method="GET",
                path="/v1/sessions/{session}",
                summary="Where a session stands and who is there",
                query=NoQuery,
                answer=SessionState,
                handle=sessions.get,
            ),
            Endpoint(
                method="DELETE",
                path="/v1/sessions/{session}",
                summary="Remove a session and all it holds",
                query=NoQuery,
                handle=sessions.delete,
            ),
            Endpoint(
                method="GET",
                path="/v1/sessions/{session}/export",
                summary="What was said, as a file",
                query=ExportQuery,
                handle=Exporter(store).export,
            ),
            Endpoint(
                method="GET",
                path="/sessions/metrics",
                summary="How stable connections are",
                query=NoQuery,
                answer=Report,
                handle=StabilityEndpoint(figures).get,
            ),
        )
    )
