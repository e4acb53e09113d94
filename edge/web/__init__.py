"""What browsers load from the gateway: the JavaScript client of ``edge.session.v1``.

Comes in: nothing. Goes out: ``files``, what is served and as what; docs/javascript-client.md
describes the client to page authors. ``edge.api`` may call.
"""
