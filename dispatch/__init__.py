"""The room of the dispatcher: finished transcripts on their way to consumers outside the gateway.

It holds nothing yet. Comes in: messages of a session, handed over by ``edge.compose``.
Goes out: the same messages, at least once. It imports nothing of ``edge`` or ``router``;
anybody may call it.
"""
