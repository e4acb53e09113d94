"""Accuracy, latency and cost of the embedded recognizer with several speakers at once.

    python -m bench.embedded_latency [--speakers 4] [--seconds 90] [--text]

Each speaker plays the demo's two recordings in turn (and the English ones of EDGESCRIBE_SPEECH_DIR,
where it is set), each starting elsewhere, at real-time pace in 100 ms batches straight into one
``EmbeddedRecognizer`` with its real inference process. Latency is from the last VAD speech frame of
the source to the final's arrival.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import msgspec
import numpy as np

from edge.asr.embedded import EmbeddedRecognizer, EmbeddedSettings, run_caretaker
from edge.asr.embedded.segmenter import RATE_HZ
from edge.asr.interface import Final, StreamEvent, StreamRequest
from edge.demo.latency import percentile, spoken_stretches, utterance_end_ms
from edge.demo.speech import Speech, demo_recordings, read_wav, resample
from edge.demo.wer import WordErrors, compare, total

BATCH_MS = 100
PAUSE_S = 1.2


class Line(msgspec.Struct):
    """What one speaker plays."""

    pcm: bytes
    text: str


def recordings() -> list[Line]:
    """The demo's recordings, and further ones where the machine has them, at 16 kHz."""
    found = [Line(_at_16_khz(read_wav(each.path)), each.text) for each in demo_recordings()]
    folder = os.environ.get("EDGESCRIBE_SPEECH_DIR")
    if folder:
        items = json.loads(Path(folder, "manifest.json").read_text())["items"]
        found += [
            Line(_at_16_khz(read_wav(Path(folder, item["file"]))), item["text"])
            for item in items
            if item["language"] == "en"
        ]
    return found


def playlist(lines: list[Line], first: int, seconds: float) -> Line:
    """Recordings from number ``first`` on, whole ones, until ``seconds`` are full."""
    pause = bytes(int(PAUSE_S * RATE_HZ) * 2)
    pcm, texts = bytearray(), []
    for line in islice(cycle(lines), first, None):
        if texts and len(pcm) + len(line.pcm) > seconds * RATE_HZ * 2:
            break
        pcm += line.pcm + pause
        texts.append(line.text)
    return Line(bytes(pcm), " ".join(texts))


async def play(
    recognizer: EmbeddedRecognizer, name: str, line: Line
) -> tuple[float, list[tuple[float, Final]]]:
    """Play ``line`` at real-time pace: when it began, and (arrival, final) of each utterance."""
    finals: list[tuple[float, Final]] = []

    def emit(event: StreamEvent) -> None:
        if isinstance(event, Final):
            finals.append((time.monotonic(), event))

    stream = await recognizer.open(StreamRequest(track=name), emit)
    began_s = time.monotonic()
    size = RATE_HZ * 2 * BATCH_MS // 1000
    for number, start in enumerate(range(0, len(line.pcm), size), 1):
        await asyncio.sleep(began_s + number * BATCH_MS / 1000 - time.monotonic())
        stream.send(line.pcm[start : start + size])
    await stream.drain()
    await stream.close()
    return began_s, finals


async def measure(options: argparse.Namespace, settings: EmbeddedSettings, socket: str) -> None:
    lines = recordings()
    stride = max(1, len(lines) // options.speakers)
    plays = [
        playlist(lines, number * stride, options.seconds) for number in range(options.speakers)
    ]
    spoken = await spoken_stretches([Speech(each.pcm, RATE_HZ) for each in plays])
    recognizer = EmbeddedRecognizer(settings, socket)
    await recognizer.start()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    results = await asyncio.gather(
        *(play(recognizer, f"speaker{number}", each) for number, each in enumerate(plays))
    )
    used = resource.getrusage(resource.RUSAGE_SELF)
    await recognizer.stop()
    latencies: list[float] = []
    errors: list[WordErrors] = []
    for each, stretches, (began_s, finals) in zip(plays, spoken, results, strict=True):
        heard = " ".join(final.text for _, final in finals)
        errors.append(compare(each.text, heard))
        for arrived_s, final in finals:
            end_ms = utterance_end_ms(stretches, final.end_ms)
            latency_ms = None if end_ms is None else (arrived_s - began_s) * 1000 - end_ms
            if latency_ms is not None:
                latencies.append(latency_ms)
            if options.text:
                print(f"{final.start_ms:8.0f} {final.end_ms:8.0f} {latency_ms} {final.text}")
    audio_s = sum(len(each.pcm) for each in plays) / 2 / RATE_HZ
    worker_s = used.ru_utime + used.ru_stime - usage.ru_utime - usage.ru_stime
    counts = recognizer.counts
    print(f"speakers {options.speakers}, audio {audio_s:.0f} s, threads {settings.threads}")
    print(f"word error rate {total(errors).rate:.2%} of {total(errors).reference_words} words")
    print(
        f"final after end of utterance: p50 {percentile(latencies, 0.5):.0f} ms, "
        f"p95 {percentile(latencies, 0.95):.0f} ms, worst {max(latencies):.0f} ms "
        f"({len(latencies)} utterances)"
    )
    print(
        f"finals {counts.finals}, interims {counts.interims}, "
        f"interims skipped {counts.interims_skipped}, unlikely texts {counts.unlikely}"
    )
    print(f"worker CPU {worker_s / audio_s * 1000:.1f} ms per second of audio (VAD, sockets)")
    options.audio_s = audio_s


def _at_16_khz(speech: Speech) -> bytes:
    samples = np.frombuffer(speech.pcm, "<i2")
    return resample(samples, speech.rate_hz, RATE_HZ).tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description="measure the embedded recognizer")
    parser.add_argument("--speakers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--interim-ms", type=int, default=1000)
    parser.add_argument("--end-silence-ms", type=int, default=400)
    parser.add_argument("--text", action="store_true", help="print every final")
    options = parser.parse_args()
    settings = EmbeddedSettings(
        embedded_threads=options.threads,
        embedded_interim_ms=options.interim_ms,
        embedded_end_silence_ms=options.end_silence_ms,
    )
    with tempfile.TemporaryDirectory() as folder:
        socket = str(Path(folder, "inference.sock"))
        caretaker = multiprocessing.get_context("spawn").Process(
            target=run_caretaker, args=(settings, socket, "error", "text")
        )
        caretaker.start()
        try:
            asyncio.run(measure(options, settings, socket))
        finally:
            caretaker.terminate()
            caretaker.join()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    inference_s = children.ru_utime + children.ru_stime
    print(
        f"inference CPU {inference_s / options.audio_s * 1000:.1f} ms per second of audio "
        "(start included)"
    )


if __name__ == "__main__":
    main()
