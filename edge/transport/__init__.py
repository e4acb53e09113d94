"""WebSocket connections from the upgrade to the close, on top of Sanic's HTTP server.

Comes in: bytes of an upgraded connection. Goes out: whole messages to a ``Receiver``, and whatever
the receiver sends through its ``Socket``. ``edge.ingest`` may call it; it knows no protocol above
RFC 6455.
"""
