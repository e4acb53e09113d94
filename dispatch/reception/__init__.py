"""The other end of ``http`` and ``websocket``: messages that are brought, not fetched.

Comes in: requests and sockets of gateways. Goes out: the messages they carry, each once, to a sink,
and to the gateway an ``RPCResponse``. Only ``dispatch`` and who composes a consumer may call it.
"""
