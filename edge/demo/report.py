"""What a demo measured, how it is told, and whether it is good enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from edge.demo.bridge import Tally
from edge.demo.latency import percentile
from edge.demo.wer import WordErrors, total

WORST_WORD_ERROR_RATE = 0.25
_DISCARDED = ("corrupt", "late", "duplicate", "empty", "unplayed")
_LABEL_WIDTH = 20


class SpeakerResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came back for one participant."""

    name: str
    finals: int
    interims: int
    errors: WordErrors


class Packets(msgspec.Struct, frozen=True, kw_only=True):
    """The packets of all tags: what the bridge did with them and what the gateway says it did."""

    sent: int
    lost: int
    """Dropped on the way on purpose."""
    late: int
    silent: int
    """Frames DTX left out."""
    received: int
    decoded: int
    recovered: int
    """Losses filled from in-band FEC."""
    concealed: int
    """Losses and corrupt packets filled by the decoder's guess."""
    silenced: int
    """Losses filled with silence, or jumped over in a gap too long to fill."""
    reordered: int
    discarded: int
    """Packets counted as late, repeated, empty, corrupt or left over, instead of being decoded."""

    @property
    def problems(self) -> list[str]:
        """Packets of which the two sides' counts don't tell what became of them."""
        found = []
        if self.received != self.sent:
            found.append(f"{self.sent} packets were sent but {self.received} received")
        if self.decoded + self.discarded != self.received:
            found.append(
                f"{self.received} packets were received but {self.decoded} decoded"
                f" and {self.discarded} discarded"
            )
        filled = self.recovered + self.concealed + self.silenced
        if filled < self.lost:
            found.append(f"{self.lost} packets were lost but {filled} filled in")
        return found


class DemoReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a demo."""

    speakers: list[SpeakerResult]
    latencies_ms: list[float]
    """From the last speech frame of the clean source to the arrival of the final."""
    cuts: int
    """Finals that end inside speech, and so have no such latency."""
    packets: Packets
    audio_s: float
    cpu_s: float | None
    """CPU of all the gateway's processes while it played; None where that cannot be read."""
    sender_late_s: float
    """How late the bridge itself sent its latest packet: what the latencies may owe to it."""
    dispatched: int = 0
    """Finals that came to the dispatcher."""
    undispatched: list[str] = []
    """Participants of whom it got something else than their finals."""
    failure: str | None = None
    """Why the gateway did not stop well, if so."""

    @property
    def errors(self) -> WordErrors:
        return total(speaker.errors for speaker in self.speakers)

    @property
    def problems(self) -> list[str]:
        """Why the demo failed; empty when it passed."""
        found = list(self.packets.problems)
        if self.errors.rate > WORST_WORD_ERROR_RATE:
            found.append(
                f"the word error rate is {self.errors.rate:.1%}, above {WORST_WORD_ERROR_RATE:.0%}"
            )
        found += self.undispatched
        if self.failure:
            found.append(self.failure)
        return found

    def lines(self) -> list[str]:
        """The summary for a person, one fact a line."""
        errors, packets = self.errors, self.packets
        finals = sum(speaker.finals for speaker in self.speakers)
        interims = sum(speaker.interims for speaker in self.speakers)
        by_finals = self._by_speaker([str(speaker.finals) for speaker in self.speakers])
        by_rate = self._by_speaker([f"{speaker.errors.rate:.1%}" for speaker in self.speakers])
        rows = [
            ("finals", f"{finals} ({by_finals}), interims {interims}"),
            (
                "word error rate",
                f"{errors.rate:.1%} ({by_rate}): {errors.errors} of {errors.reference_words} words",
            ),
            ("end of speech", self._latency()),
            (
                "packets",
                f"sent {packets.sent}, lost on the way {packets.lost}, out of order"
                f" {packets.late}, left out in silence {packets.silent}",
            ),
            (
                "the gateway's count",
                f"received {packets.received}, decoded {packets.decoded}, put in order"
                f" {packets.reordered}, recovered {packets.recovered}, concealed"
                f" {packets.concealed}, silenced {packets.silenced}, discarded"
                f" {packets.discarded}",
            ),
            ("dispatched", f"{self.dispatched} finals, by the local queue to another process"),
            ("CPU", self._cpu()),
        ]
        return [f"{label:<{_LABEL_WIDTH}} {value}" for label, value in rows]

    def _latency(self) -> str:
        if not self.latencies_ms:
            return "no final ended with an utterance"
        cuts = f", {self.cuts} more cut inside speech" if self.cuts else ""
        return (
            f"to final p50 {percentile(self.latencies_ms, 0.5):.0f} ms,"
            f" p95 {percentile(self.latencies_ms, 0.95):.0f} ms"
            f" over {len(self.latencies_ms)} utterances{cuts}"
            f" (bridge up to {self.sender_late_s * 1000:.0f} ms behind)"
        )

    def _cpu(self) -> str:
        if self.cpu_s is None:
            return "not known here (no /proc)"
        return (
            f"{self.cpu_s / self.audio_s * 1000:.0f} ms per second of audio"
            f" ({self.cpu_s:.1f} s for {self.audio_s:.0f} s, all processes of the gateway)"
        )

    def _by_speaker(self, values: Sequence[str]) -> str:
        names = [speaker.name for speaker in self.speakers]
        return ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))


def count_packets(tallies: Sequence[Tally], gateway: Counter[str]) -> Packets:
    """Set the bridge's tallies beside the gateway's counters (what they gained while it played)."""
    return Packets(
        sent=sum(tally.sent for tally in tallies),
        lost=sum(tally.dropped for tally in tallies),
        late=sum(tally.late for tally in tallies),
        silent=sum(tally.dtx for tally in tallies),
        received=gateway["otp_client_audio_chunks_total"],
        decoded=gateway["edgescribe_packets_total/decoded"],
        recovered=gateway["edgescribe_lost_packets_total/recovered_fec"],
        concealed=gateway["edgescribe_lost_packets_total/concealed"],
        silenced=gateway["edgescribe_lost_packets_total/silenced"]
        + gateway["edgescribe_lost_packets_total/skipped"],
        reordered=gateway["edgescribe_reordered_packets_total"],
        discarded=sum(gateway[f"edgescribe_packets_total/{name}"] for name in _DISCARDED),
    )
