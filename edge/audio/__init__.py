"""Tracks: from one speaker's packets as they arrive to evenly paced audio with true times.

Comes in: packets with their numbers and media timestamps, or pieces of a container. Goes out: what
a recognizer wants (PCM at its rate, Opus packets or Ogg pages), in batches, and the map from audio
time to session time. ``edge.session`` and ``edge.asr`` may call it; it knows no socket and
no recognizer.
"""
