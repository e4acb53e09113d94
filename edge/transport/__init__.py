"""WebSocket connections from the upgrade to the close, on top of Sanic's HTTP server.

Comes in: an HTTP request that wants to be a WebSocket (``lane.accept``), then the bytes of its
connection. Goes out: whole messages to a ``Receiver``, and whatever the receiver sends through its
``Socket``. ``edge.server`` may call ``lane`` and ``registry`` to accept and close, ``edge.ingest``
receives (``interface``); it knows no protocol above RFC 6455.
"""
