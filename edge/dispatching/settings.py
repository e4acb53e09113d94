"""Settings of the dispatcher: where finished transcripts go, and how hard it is tried."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge.option import option


class DispatchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where finals go. Of the ways that are set the first in this order is taken: ``sqs``,
    ``redis``, ``local`` (on), ``binding``, ``http``, ``websocket``; with none of them the local
    queue, unless it is off."""

    dispatch_sqs_url: Annotated[str, option("URL of an SQS queue for finals")] = ""
    """One that ends with ``.fifo`` keeps each session in order at its consumers, too."""
    dispatch_sqs_region: Annotated[
        str, option("Region of that queue", env=("AWS_REGION", "AWS_DEFAULT_REGION"))
    ] = "us-east-1"
    """Credentials come from where AWS clients look for them."""
    dispatch_sqs_endpoint: Annotated[str, option("Address of an SQS that is not Amazon's")] = ""
    """Like ``http://127.0.0.1:9324``."""
    dispatch_redis_url: Annotated[
        str, option("Redis or Valkey whose streams take finals", secret=True)
    ] = ""
    """Like ``redis://host:6379/0``; may be the one that keeps the sessions."""
    dispatch_local: Annotated[
        Literal["auto", "on", "off"], option("Whether finals go to the queue of this machine")
    ] = "auto"
    """``auto``: if no other way is set. It lies in the data directory."""
    dispatch_binding: Annotated[
        str, option("Dispatcher in this process: module:attribute, or a service of the router")
    ] = ""
    """An object with ``async dispatch(message)``, or a class of which one is made."""
    dispatch_http_url: Annotated[str, option("URL that each final is posted to")] = ""
    """It answers with an RPCResponse."""
    dispatch_secret: Annotated[str, option("Key that posts are signed with", secret=True)] = ""
    """HMAC-SHA256, in ``X-Signature``; empty: not signed."""
    dispatcher_ws_url: Annotated[
        str, option("WebSocket that takes each session's finals", env="DISPATCHER_WS_URL")
    ] = ""
    """``?sessionId=`` is added."""
    dispatcher_headers: Annotated[
        str,
        option(
            "Headers for posts and WebSockets, as a JSON object",
            env="DISPATCHER_HEADERS",
            secret=True,
        ),
    ] = "{}"
    """Such as an authorization."""
    dispatch_outbox_max: Annotated[
        int, option("Finals that may wait to be dispatched", ge=100, le=10_000_000)
    ] = 100_000
    """The oldest beyond become dead letters with the reason ``overflow``."""
    dispatch_max_retries: Annotated[
        int, option("Deliveries tried again after a refusal", ge=0, le=100)
    ] = 3
    """Then a dead letter. Targets out of reach are tried without end."""
    dispatch_deadline_s: Annotated[
        float, option("Longest wait for a target's answer", gt=0, le=60)
    ] = 10.0
    """In seconds."""
