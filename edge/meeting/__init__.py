"""Meetings as interview recorders hold them: two streams, who speaks, windows, result.json.

Comes in: chunks and configuration from ``edge.ingest``, requests from ``edge.api``. Goes out:
objects to ``edge.objects``; records, utterances and speaker events to the session's log in the
store. ``edge.ingest`` and ``edge.api`` may call it; ``edge.compose`` makes one set of its services
for each worker. A meeting is an ordinary session: whatever follows, exports or keeps sessions does
so with meetings.
"""
