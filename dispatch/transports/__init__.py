"""The ways out of the outbox, one module each.

Comes in: envelopes of one session at a time. Goes out: the same messages, in order, to a queue or a
service; ``Unreachable`` and ``Refused`` when not. Only ``dispatch`` and who composes it call them.
"""
