"""A piece of audio that is complete, heard as a whole."""

from __future__ import annotations

import time
from http import HTTPStatus

import msgspec
import pytest

from edge.asr.batch import recognize
from edge.asr.deepgram import DeepgramRecognizer, DeepgramSettings
from edge.asr.funasr import FunASRRecognizer, FunASRSettings
from edge.errors import RecognizerClosed, RecognizerError, RecognizerRefused, RecognizerTimeout
from tests.asr.fakes import deepgram_endpoint
from tests.asr.fakes.common import Fault
from tests.asr.fakes.deepgram_endpoint import FakeDeepgram
from tests.asr.fakes.funasr_endpoint import KEY, RATE_HZ, FakeFunASR
from tests.asr.support.supervision import until
from tests.asr.support.tones import sentence, silence

SAID = (
    silence(500, RATE_HZ)
    + sentence("alpha bravo", RATE_HZ)
    + silence(700, RATE_HZ)
    + sentence("charlie", RATE_HZ)
)


def funasr(endpoint: FakeFunASR) -> FunASRRecognizer:
    values = {"funasr_api_key": KEY, "funasr_url": endpoint.address}
    return FunASRRecognizer(msgspec.convert(values, FunASRSettings))


async def test_w6_all_sentences_are_kept_in_their_order_with_their_times() -> None:
    async with FakeFunASR(sentence_silence_ms=400) as endpoint:
        found = await recognize([funasr(endpoint)], SAID, RATE_HZ, "m1 teacher", 10)
        (task,) = endpoint.tasks
        (heard,) = endpoint.connections
    assert [final.text for final in found.finals] == ["alpha bravo", "charlie"]
    assert [final.start_ms for final in found.finals] == pytest.approx([500, 2400], abs=40)
    assert found.provider == "funasr"
    assert bytes(task.audio) == SAID and not heard.violations
    assert heard.texts == ["run-task", "finish-task"], "one task, and an orderly end"


async def test_audio_goes_at_the_rate_the_recognizer_takes() -> None:
    async with FakeDeepgram() as endpoint:
        settings = DeepgramSettings(
            deepgram_api_key=deepgram_endpoint.KEY, deepgram_url=endpoint.url
        )
        found = await recognize([DeepgramRecognizer(settings)], SAID, RATE_HZ, "m1 teacher", 10)
    assert " ".join(final.text for final in found.finals).split() == ["alpha", "bravo", "charlie"]


async def test_the_next_recognizer_hears_it_when_the_first_cannot() -> None:
    refused = Fault(status=HTTPStatus.UNAUTHORIZED)
    async with FakeFunASR(faults=[refused]) as broken, FakeFunASR() as works:
        found = await recognize([funasr(broken), funasr(works)], SAID, RATE_HZ, "m1 teacher", 10)
        assert len(broken.connections) == 1
    assert found.finals


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=HTTPStatus.UNAUTHORIZED), RecognizerRefused),
        (Fault(after_ms=0), RecognizerClosed),
        (Fault(after_ms=500), RecognizerClosed),
        (Fault(after_ms=500, then="mute"), RecognizerTimeout),
        (Fault(hang=True), RecognizerTimeout),
    ],
)
async def test_w7_a_failure_at_any_moment_is_told_and_leaves_nothing_open(
    fault: Fault, error: type[RecognizerError]
) -> None:
    async with FakeFunASR(faults=[fault]) as endpoint:
        began_s = time.monotonic()
        with pytest.raises(error):
            await recognize([funasr(endpoint)], SAID, RATE_HZ, "m1 teacher", 1.0)
        assert time.monotonic() - began_s < 3
        await until(lambda: endpoint.open_connections == 0)


async def test_without_a_recognizer_it_is_refused() -> None:
    with pytest.raises(RecognizerRefused):
        await recognize([], SAID, RATE_HZ, "m1 teacher", 1.0)
