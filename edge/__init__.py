"""edgescribe: a self-hosted realtime transcription edge gateway.

Comes in: WebSocket connections that carry speech, and settings. Goes out: transcripts, first to
the speaker's own socket. The ``edgescribe`` command starts it; ``edge.compose`` wires the rooms.
"""
