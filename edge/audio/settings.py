"""Settings of tracks: how long to wait for packets, how much of a gap to fill, what to keep."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edge.option import option


class TrackSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a track orders packets, fills gaps, and hands PCM to a recognizer."""

    asr_batch_ms: Annotated[
        int,
        option(
            "Milliseconds of audio handed to a recognizer at once",
            env="ASR_BATCH_MS",
            ge=20,
            le=1000,
        ),
    ] = 100
    """A batch holds whole packets, so it may be longer by less than one packet. Those that are
    handed over undecoded are twice as long: to send them costs nearly all that they cost."""
    reorder_packets: Annotated[
        int, option("Packets that may overtake a missing one before it counts as lost", ge=0, le=64)
    ] = 3
    """0 takes every missing packet as lost at once."""
    reorder_wait_ms: Annotated[
        int, option("Milliseconds to wait for a missing packet", ge=0, le=1000)
    ] = 60
    """Whichever of the two limits is reached first ends the waiting."""
    max_gap_fill_ms: Annotated[
        int, option("Longest gap that becomes audio; the clock jumps over the rest", ge=0, le=60000)
    ] = 2000
    """Concealment, recovered audio and silence of one gap together."""
    idle_fill_after_ms: Annotated[
        int, option("Milliseconds without a packet after which silence is made up", ge=40, le=5000)
    ] = 150
    """For packets of 20 ms; longer ones are given as much longer. From then on silence is appended
    in real time: a sender with DTX stops sending in pauses."""
    replay_ms: Annotated[
        int, option("Milliseconds of audio a track keeps for its recognizers", ge=1000, le=600000)
    ] = 30000
    """Kept as packets; the oldest are dropped and counted."""
