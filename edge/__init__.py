"""edgescribe: a self-hosted realtime transcription edge gateway.

Comes in: WebSocket connections that carry speech, and settings. Goes out: transcripts, first to
the speaker's own socket. Only the ``edgescribe`` command calls it, and ``edge.compose`` wires its
rooms together.
"""
