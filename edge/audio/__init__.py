"""Tracks: from one speaker's packets as they arrive to evenly paced PCM with true times.

Comes in: packets with their numbers and media timestamps. Goes out: PCM at the rate a recognizer
wants, in batches, and the map from audio time to session time. ``edge.session`` and ``edge.asr``
may call it; it knows no socket and no recognizer.
"""
