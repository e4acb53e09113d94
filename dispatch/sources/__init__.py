"""Where a consumer takes messages from, each with the face of an ``Outbox``.

Comes in: what the transports ``redis`` and ``sqs`` put into their queues. Goes out: rows, leased by
session and in order. ``dispatch.local_queue`` is a source as it is. Only ``dispatch`` and who
composes a consumer may call them.
"""
