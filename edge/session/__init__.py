"""Live sessions: the tracks of a client that may lose its connection and come back.

Comes in: connections, and their packets, format announcements and ends, by tag, from
``edge.ingest``. Goes out: transcripts with session times to the outlets of a session's connections,
recordings, counts and summaries to metrics and logs. ``edge.ingest`` may call ``attachment`` and
``live``; ``edge.compose`` and ``edge.server`` may call ``gateway``.
"""
