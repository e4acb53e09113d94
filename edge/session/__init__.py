"""Live sessions: the tracks of a client that may lose its connection and come back.

Comes in: packets, format announcements and ends, by tag, from ``edge.ingest``. Goes out:
transcripts with session times to the session's outlet, counts and summaries to metrics and logs.
``edge.ingest`` may call ``attachment`` and ``live``; ``edge.compose`` and ``edge.server`` may call
``gateway``.
"""
