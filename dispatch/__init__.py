"""The room of the dispatcher: finished transcripts on their way to consumers outside the gateway.

It holds nothing yet. What will come in: messages of a session, handed over by ``edge.compose``.
What will go out: the same messages, at least once. It imports nothing of ``edge`` or ``router``;
anybody may call it.
"""
