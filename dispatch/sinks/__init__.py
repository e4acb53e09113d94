"""Where a consumer puts messages, beside the transports that it shares with the gateway.

Comes in: envelopes of one session at a time. Goes out: one line of JSON a message, to standard
output or to files that are rotated. ``webhook`` is ``transports.http`` and ``module:attribute`` is
``transports.binding``. Only ``dispatch`` and who composes a consumer may call them.
"""
