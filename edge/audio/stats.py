"""What a track counts: plain integers, written on the way of each packet, read by the metrics.

Every packet received is counted once:
``received == decoded + corrupt + late + duplicate + empty + unplayed + AudioTrack.pending``.
So is every number that was skipped: ``lost == recovered_fec + concealed + silenced + skipped``.

* ``decoded``: played; counted when first played, not again in a replay.
* ``corrupt``: not an Opus packet, or refused by the decoder; bridged like a loss of that length.
* ``late``: came after its place had been played without it.
* ``empty``: without a payload.
* ``unplayed``: left the track before anything had played them.
* ``reordered``: came after a higher number and were put in their place; counted above as well.
* ``lost``: numbers skipped when the wait for them was over.
* ``recovered_fec``: lost packets played from the copy in the packet after them.
* ``concealed``: lost packets bridged by the decoder.
* ``silenced``: lost packets in whose place is silence.
* ``skipped``: lost packets the clock jumped over.
* ``silence_ms``: silence put in for DTX, mute and long gaps.
* ``jumps``: times the session clock moved against the audio: long gaps, stalls, new sender clocks.
* ``restarts``: times the packet numbers started anew without a word.
* ``container_faults``: pages, blocks and packets of a container that were missing or damaged.
* ``overflow_dropped_ms``: audio dropped, because too much was kept, before anything had played it.
* ``shed_ms``: audio that no recognizer was given because the worker had no time to decode it.
"""

from _native.track import TrackStats

__all__ = ["TrackStats"]
