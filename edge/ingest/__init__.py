"""Client protocols: from an upgrade request and its messages to calls on a session.

Comes in: upgrade requests (path, query, headers) and whole WebSocket messages. Goes out: packets
and commands to ``edge.session``, and results back to the client in its own words. ``edge.compose``
may call ``registry``, the gateway what it gets from there (``interface``); a protocol is one module
plus one line in ``registry``. Whole files come by way of ``edge.api``, which calls ``file``.
"""
