"""A media server to talk to the gateway with: real speech in, transcripts and figures out.

Comes in: WAV files or a dump, and a gateway's URL (or none: then it starts one). Goes out: the
event stream a Jitsi bridge sends, the transcripts that come back, and a report. ``edge.cli`` and
``bench`` may call it; it uses the gateway through its socket only, as a stranger would, and the
embedded recognizer's speech detector to time it.
"""
