"""Every typed endpoint of the gateway, in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edge.api.export import CONTENT_TYPES, Exporter, ExportQuery
from edge.api.http import Endpoint, Endpoints, NoQuery
from edge.api.meeting_routes import meeting_endpoints
from edge.api.openapi import JSON, Description
from edge.api.sessions import ListQuery, SessionEndpoints, SessionList, SessionState
from edge.api.stability import Figures, StabilityEndpoint
from edge.meeting.meetings import Meetings
from edge.session.stability import Report
from edge.session.store.interface import SessionStore


def endpoints(
    store: SessionStore,
    figures: Figures,
    meetings: Meetings,
    unusable: Callable[[str], str | None],
    doors: Sequence[Endpoint[Any, Any]] = (),
) -> Endpoints:
    """The endpoints, answered from a worker's store, stability figures and meetings.

    ``unusable`` says why a recognizer cannot be chosen, None if it can; ``doors`` are endpoints as
    other services have them.
    """
    described = [
        *session_endpoints(store, meetings),
        *meeting_endpoints(meetings, unusable),
        stability(figures),
        *doors,
    ]
    return Endpoints(
        (
            *described,
            Endpoint(
                method="GET",
                path="/openapi.json",
                summary="This description",
                query=NoQuery,
                content_types=(JSON,),
                handle=Description(described).get,
            ),
        )
    )


def session_endpoints(store: SessionStore, meetings: Meetings) -> Sequence[Endpoint[Any, Any]]:
    """The endpoints of all sessions."""
    sessions = SessionEndpoints(store, meetings.removal)
    return (
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
            errors=(404,),
            handle=sessions.get,
        ),
        Endpoint(
            method="DELETE",
            path="/v1/sessions/{session}",
            summary="Remove a session and all it holds",
            query=NoQuery,
            errors=(404,),
            handle=sessions.delete,
        ),
        Endpoint(
            method="GET",
            path="/v1/sessions/{session}/export",
            summary="What was said, as a file",
            query=ExportQuery,
            content_types=tuple(CONTENT_TYPES.values()),
            errors=(404, 505),
            handle=Exporter(store, meetings.views).export,
        ),
    )


def stability(figures: Figures) -> Endpoint[Any, Any]:
    """The endpoint of the stability of connections."""
    return Endpoint(
        method="GET",
        path="/sessions/metrics",
        summary="How stable connections are",
        query=NoQuery,
        answer=Report,
        handle=StabilityEndpoint(figures).get,
    )
