"""Recognizers: from a track's audio to interim and final transcripts.

Comes in: audio in the form a recognizer asked for. Goes out: ``Interim`` and ``Final`` with audio
times. ``edge.session`` may call the supervisor and the registry; nothing else is public.
"""
