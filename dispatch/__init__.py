"""Delivery of finished transcripts to consumers outside the gateway.

Comes in: messages of a session, handed over by ``edge.compose``. Goes out: the same messages to a
queue or a remote procedure, at least once. It imports nothing of ``edge``; anybody may call it.
"""
