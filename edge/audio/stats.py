"""What a track counts: plain integers, written on the way of each packet, read by the metrics."""

from __future__ import annotations

import msgspec


class TrackStats(msgspec.Struct, kw_only=True, gc=False):
    """Totals of one track since it opened.

    Every packet received is counted once:
    ``received == decoded + corrupt + late + duplicate + empty + unplayed + AudioTrack.pending``.
    So is every number that was skipped: ``lost == recovered_fec + concealed + silenced + skipped``.
    """

    received: int = 0
    decoded: int = 0
    """Played; counted when first played, not again in a replay."""
    corrupt: int = 0
    """Not an Opus packet, or refused by the decoder; bridged like a loss of the same length."""
    late: int = 0
    """Came after its place had been played without it."""
    duplicate: int = 0
    empty: int = 0
    """Without a payload."""
    unplayed: int = 0
    """Left the track before anything had played them."""
    reordered: int = 0
    """Came after a higher number and were put in their place; they are counted above as well."""
    lost: int = 0
    """Numbers skipped when the wait for them was over."""
    recovered_fec: int = 0
    """Lost packets played from the copy in the packet after them."""
    concealed: int = 0
    """Lost packets bridged by the decoder."""
    silenced: int = 0
    """Lost packets in whose place is silence."""
    skipped: int = 0
    """Lost packets the clock jumped over."""
    silence_ms: int = 0
    """Silence put in for DTX, mute and long gaps."""
    jumps: int = 0
    """Times the session clock moved against the audio: long gaps, stalls, new sender clocks."""
    restarts: int = 0
    """Times the packet numbers started anew without a word."""
    container_faults: int = 0
    """Pages, blocks and packets of a container that were missing or damaged."""
    overflow_dropped_ms: int = 0
    """Audio dropped, because too much was kept, before anything had played it."""
