"""The gateway's way out to the dispatcher: which transport, and the task that feeds it.

Comes in: the session store, whose outbox holds a message for each final of a session that asked for
it. Goes out: those messages, over a transport of ``dispatch``, and what became of them as metrics.
``edge.compose`` builds it; ``edge.server`` and ``edge.cli`` may call it.
"""
