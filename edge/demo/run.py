"""The demo: two people's real speech through a real gateway and back as text, then the figures."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter

import msgspec

from edge.demo.bridge import Line, Schedule, Source, Tally, build_schedule
from edge.demo.client import ServerMessage, transcribe_url
from edge.demo.dispatched import QUEUE, DispatchedMessage, differences, dispatching
from edge.demo.gateway import GatewayFailed, GatewayProcess, running
from edge.demo.latency import Spoken, spoken_stretches, utterance_end_ms
from edge.demo.player import BridgePlayer, Played
from edge.demo.report import DemoReport, Packets, SpeakerResult, count_packets
from edge.demo.screen import Screen
from edge.demo.speech import Recording, demo_recordings, read_wav
from edge.demo.wer import compare

_PAUSE_S = 1.5
"""Silence after each playing of a recording: in a call nobody hangs up on the last word."""
_APART_S = 1.5
"""Between one speaker's first word and the next one's."""
_COUNTED_WITHIN_S = 5.0
"""Workers flush their counters every second."""


class DemoPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a demo plays."""

    speakers: int = 2
    """With more than two everybody speaks to the end: shorter recordings are repeated."""
    rounds: int = 1
    """Times the longest recording is played."""
    line: Line = Line()
    workers: int = 2


class Speaker(msgspec.Struct, frozen=True, kw_only=True):
    """One participant of the demo."""

    name: str
    text: str
    """All they say."""
    source: Source


class _Heard(msgspec.Struct, frozen=True):
    """A result and the second it came, on the schedule's clock."""

    at_s: float
    message: ServerMessage


class _Measured(msgspec.Struct, frozen=True):
    """What a playing gave."""

    played: Played
    heard: dict[str, list[_Heard]]
    """By tag."""
    packets: Packets
    cpu_s: float | None
    dispatched: list[DispatchedMessage]

    @property
    def finals(self) -> dict[str, list[str]]:
        """Texts by participant, in order of arrival."""
        finals: dict[str, list[str]] = {}
        for tag, heard in self.heard.items():
            texts = [each.message.text for each in heard if not each.message.is_interim]
            finals[tag.partition("-")[0]] = texts
        return finals


def plan_speakers(plan: DemoPlan) -> list[Speaker]:
    """The participants of a plan, their recordings read and repeated as the plan says."""
    recordings = [(each, read_wav(each.path)) for each in demo_recordings()]
    longest_s = max(speech.duration_s for _, speech in recordings) + _PAUSE_S
    speakers = []
    for index in range(plan.speakers):
        recording, speech = recordings[index % len(recordings)]
        rounds = plan.rounds
        if plan.speakers > len(recordings):
            rounds = max(1, round(plan.rounds * longest_s / (speech.duration_s + _PAUSE_S)))
        endpoint = f"{0xABCDEF01 + index:08x}"
        speakers.append(
            Speaker(
                name=_name(recording, index // len(recordings)),
                text=" ".join([recording.text] * rounds),
                source=Source(
                    tag=f"{endpoint}-{305123557 + 11 * index}",
                    speech=speech.repeated(rounds, _PAUSE_S),
                    start_s=_APART_S * index,
                ),
            )
        )
    return speakers


async def run_demo(plan: DemoPlan, screen: Screen) -> DemoReport:
    """Play a plan against a gateway started for it, showing all that happens.

    Raises ``EdgescribeError`` when there is nothing to report on; a gateway that only fails to stop
    well is reported.
    """
    screen.progress("reading the recordings")
    speakers = plan_speakers(plan)
    sources = [speaker.source for speaker in speakers]
    spoken = await spoken_stretches([source.speech for source in sources])
    schedule = build_schedule(
        sources, plan.line, lambda done: screen.progress(f"encoding the speech: {done:.0%}")
    )
    measured, failure = await _measure(plan, speakers, spoken, schedule, screen)
    screen.settle()
    latencies_ms: list[float] = []
    cuts = 0
    for speaker, stretches in zip(speakers, spoken, strict=True):
        for each in measured.heard[speaker.source.tag]:
            if not each.message.is_interim:
                latency_ms = _latency_ms(each, speaker.source, stretches)
                cuts += latency_ms is None
                latencies_ms += [] if latency_ms is None else [latency_ms]
    return DemoReport(
        speakers=[_result(speaker, measured.heard[speaker.source.tag]) for speaker in speakers],
        latencies_ms=latencies_ms,
        cuts=cuts,
        packets=measured.packets,
        audio_s=schedule.audio_s,
        cpu_s=measured.cpu_s,
        sender_late_s=measured.played.latest_s,
        dispatched=len(measured.dispatched),
        undispatched=differences(measured.dispatched, measured.finals),
        failure=failure,
    )


async def _measure(
    plan: DemoPlan,
    speakers: list[Speaker],
    spoken: list[list[Spoken]],
    schedule: Schedule,
    screen: Screen,
) -> tuple[_Measured, str | None]:
    measured: _Measured | None = None
    screen.progress("starting the gateway")
    try:
        async with running(
            workers=plan.workers,
            arguments=("--set", "providers_priority=embedded", *QUEUE),
            on_wait=lambda waited_s: screen.progress(f"starting the gateway: {waited_s:.0f} s"),
        ) as gateway:
            screen.line(
                f"gateway with {plan.workers} workers on {gateway.address},"
                f" {len(speakers)} speakers, {schedule.audio_s:.0f} s of speech,"
                f" {plan.line.loss:.0%} of the packets lost"
            )
            measured = await _play(gateway, speakers, spoken, schedule, screen)
            screen.progress("stopping the gateway")
    except GatewayFailed as error:
        if measured is None:
            raise
        return measured, str(error)
    return measured, None


async def _play(
    gateway: GatewayProcess,
    speakers: list[Speaker],
    spoken: list[list[Spoken]],
    schedule: Schedule,
    screen: Screen,
) -> _Measured:
    by_tag = {
        speaker.source.tag: (speaker, stretches)
        for speaker, stretches in zip(speakers, spoken, strict=True)
    }
    heard: dict[str, list[_Heard]] = {tag: [] for tag in by_tag}
    width = max(len(speaker.name) for speaker in speakers)

    def show(at_s: float, message: ServerMessage) -> None:
        if message.event == "error":
            screen.line(f"{at_s:6.2f} s  {message.tag}  error {message.code}: {message.message}")
        if not message.is_result or message.speaker not in by_tag:
            return
        speaker, stretches = by_tag[message.speaker]
        each = _Heard(at_s, message)
        heard[message.speaker].append(each)
        name = speaker.name.ljust(width)
        if message.is_interim:
            screen.interim(at_s, name, message.text)
        else:
            latency_ms = _latency_ms(each, speaker.source, stretches)
            note = "cut inside speech" if latency_ms is None else f"+{latency_ms:.0f} ms"
            screen.final(at_s, name, message.text, note)

    wanted = ("sendBack", "sendBackInterim", "times", "errors")
    url = transcribe_url(
        gateway.address,
        {
            "sessionId": f"demo-{secrets.token_hex(4)}",
            "provider": "embedded",
            **dict.fromkeys(wanted, "true"),
            "useDispatcher": "true",
        },
    )
    ends_s = schedule.departures[-1].at_s
    names = {tag.partition("-")[0]: speaker.name for tag, (speaker, _) in by_tag.items()}

    def show_dispatched(message: DispatchedMessage) -> None:
        name = names.get(message.endpoint_id, message.endpoint_id)
        screen.line(f" dispatched {name.ljust(width)}  {message.text}")

    async with dispatching(gateway.data_dir, show_dispatched) as dispatched:
        before, cpu_before_s = await gateway.metrics(), gateway.cpu_s()
        player = BridgePlayer(url, schedule, show, lambda at_s: screen.played(at_s, ends_s))
        played = await player.play()
        screen.progress("counting")
        cpu_after_s = gateway.cpu_s()
        packets = await _count(gateway, before, list(schedule.tallies.values()))
        finals = [each for said in heard.values() for each in said if not each.message.is_interim]
        await dispatched.complete(sum(bool(each.message.text) for each in finals))
    return _Measured(
        played,
        heard,
        packets,
        None if cpu_before_s is None or cpu_after_s is None else cpu_after_s - cpu_before_s,
        dispatched.messages,
    )


async def _count(gateway: GatewayProcess, before: Counter[str], tallies: list[Tally]) -> Packets:
    """The packet counts once all workers have flushed theirs, or after 5 s whatever they say."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + _COUNTED_WITHIN_S
    while True:
        gained = await gateway.metrics()
        gained.subtract(before)
        packets = count_packets(tallies, gained)
        if not packets.problems or loop.time() > deadline_s:
            return packets
        await asyncio.sleep(0.3)


def _name(recording: Recording, again: int) -> str:
    return recording.name if again == 0 else f"{recording.name}-{again + 1}"


def _latency_ms(heard: _Heard, source: Source, spoken: list[Spoken]) -> float | None:
    """Milliseconds from the end of the utterance a final ends with; None if it ends inside one."""
    if heard.message.end_ms is None:
        return None
    offset_ms = source.start_s * 1000
    end_ms = utterance_end_ms(spoken, heard.message.end_ms - offset_ms)
    return None if end_ms is None else heard.at_s * 1000 - offset_ms - end_ms


def _result(speaker: Speaker, heard: list[_Heard]) -> SpeakerResult:
    finals = [each.message for each in heard if not each.message.is_interim]
    finals.sort(key=lambda final: final.start_ms or 0.0)
    return SpeakerResult(
        name=speaker.name,
        finals=len(finals),
        interims=len(heard) - len(finals),
        errors=compare(speaker.text, " ".join(final.text for final in finals)),
    )
