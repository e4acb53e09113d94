"""When a demo passes and what its summary says."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from edge.demo.bridge import Tally
from edge.demo.report import DemoReport, Packets, SpeakerResult, count_packets
from edge.demo.wer import WordErrors

PACKETS = Packets(
    sent=100,
    lost=3,
    late=2,
    silent=20,
    received=100,
    decoded=99,
    recovered=2,
    concealed=2,
    silenced=0,
    reordered=2,
    discarded=1,
)


def packets(**changed: int) -> Packets:
    values = {name: getattr(PACKETS, name) for name in Packets.__struct_fields__}
    return Packets(**{**values, **changed})


def report(**changed: Any) -> DemoReport:
    values: dict[str, Any] = {
        "speakers": [
            SpeakerResult(
                name="a", finals=2, interims=5, errors=WordErrors(1, 0, 0, reference_words=10)
            ),
            SpeakerResult(
                name="b", finals=1, interims=2, errors=WordErrors(0, 1, 0, reference_words=10)
            ),
        ],
        "latencies_ms": [400.0, 500.0, 600.0],
        "cuts": 1,
        "packets": PACKETS,
        "audio_s": 50.0,
        "cpu_s": 4.0,
        "sender_late_s": 0.004,
    }
    return DemoReport(**{**values, **changed})


def test_a_good_demo_has_no_problem() -> None:
    assert report().problems == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"received": 99}, "100 packets were sent but 99 received"),
        ({"decoded": 98}, "100 packets were received but 98 decoded and 1 discarded"),
        ({"recovered": 0, "concealed": 2}, "3 packets were lost but 2 filled in"),
    ],
)
def test_a_packet_of_which_nobody_knows_is_a_problem(changed: dict[str, int], said: str) -> None:
    assert said in report(packets=packets(**changed)).problems


def test_too_many_wrong_words_are_a_problem() -> None:
    def at(wrong: int) -> list[str]:
        errors = WordErrors(wrong, 0, 0, reference_words=100)
        speaker = SpeakerResult(name="a", finals=1, interims=0, errors=errors)
        return report(speakers=[speaker]).problems

    assert at(25) == []
    assert at(26) == ["the word error rate is 26.0%, above 25%"]


def test_a_bad_stop_is_a_problem() -> None:
    said = "the gateway ended with status 1"
    assert report(failure=said).problems == [said]


def test_the_summary_has_every_figure() -> None:
    lines = dict(line.split("  ", 1) for line in report().lines())
    text = {name: value.strip() for name, value in lines.items()}
    assert text["finals"] == "3 (a 2, b 1), interims 7"
    assert text["word error rate"] == "10.0% (a 10.0%, b 10.0%): 2 of 20 words"
    assert text["end of speech"].startswith("to final p50 500 ms, p95 600 ms over 3 utterances")
    assert text["packets"].startswith("sent 100, lost on the way 3, out of order 2")
    assert "recovered 2, concealed 2" in text["the gateway's count"]
    assert text["CPU"].startswith("80 ms per second of audio")


def test_what_is_unknown_is_said_to_be() -> None:
    text = "\n".join(report(cpu_s=None, latencies_ms=[]).lines())
    assert "not known here" in text and "no final ended with an utterance" in text


def test_the_two_sides_counts_are_set_beside_each_other() -> None:
    tallies = [
        Tally(encoded=60, dtx=10, dropped=2, sent=48, late=1),
        Tally(encoded=60, dtx=10, dropped=1, sent=49, late=1),
    ]
    gateway = Counter(
        {
            "otp_client_audio_chunks_total": 97,
            "edgescribe_packets_total/decoded": 95,
            "edgescribe_packets_total/late": 1,
            "edgescribe_packets_total/corrupt": 1,
            "edgescribe_lost_packets_total/recovered_fec": 2,
            "edgescribe_lost_packets_total/concealed": 1,
            "edgescribe_lost_packets_total/skipped": 1,
            "edgescribe_reordered_packets_total": 1,
        }
    )
    counted = count_packets(tallies, gateway)
    assert counted == Packets(
        sent=97,
        lost=3,
        late=2,
        silent=20,
        received=97,
        decoded=95,
        recovered=2,
        concealed=1,
        silenced=1,
        reordered=1,
        discarded=2,
    )
    assert counted.problems == []
