"""What the service that tells voices apart does with a recording: the pipeline behind the stub.

Decode, find speech, make a voice print, find its cluster, read names from the text, decide. The
voice print is the shape of the spectrum: enough to tell tones and quite different voices apart.
"""

from __future__ import annotations

import io
import re
import wave
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16000
FRAME = RATE_HZ * 30 // 1000
MIN_SPEECH = 300 // 30
MIN_SILENCE = 250 // 30 + 1
LOW, HIGH = 0.45, 0.70
SURE = 0.93
LOUD = 0.01

Samples = NDArray[np.float32]
Vector = NDArray[np.float64]

_INTRODUCTIONS = (
    (re.compile(r"\bmy name is\s+", re.I), 0.95),
    (re.compile(r"\b(?:i am|i['’]m)\s+", re.I), 0.90),  # noqa: RUF001
    (re.compile(r"\b(?:please )?call me\s+", re.I), 0.88),
)
_STOP_WORDS = (
    "a an and at but from for glad good happy here in is it just nice not of on or ready really so"
    " sorry studying sure the this to very was with working"
)
_STOPS = frozenset(_STOP_WORDS.split())


class BadAudio(Exception):
    """It cannot be decoded."""


class Decision(NamedTuple):
    """What is said of a voice, and the name its cluster has from now on."""

    decision: Literal["auto", "confirm", "unknown"]
    name: str | None
    bound: str | None


def decode(content: bytes, kind: str, rate_hz: int, channels: int) -> Samples:
    """Mono samples at 16 kHz, -1 to 1."""
    try:
        if kind == "pcm_s16le":
            samples, rate = np.frombuffer(content, np.int16), rate_hz
        elif kind == "wav":
            with wave.open(io.BytesIO(content)) as file:
                samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
                rate, channels = file.getframerate(), file.getnchannels()
        else:
            return _decode_other(content)
        mono = samples.reshape(-1, channels).mean(axis=1).astype(np.float32) / 32768
    except (wave.Error, EOFError, ValueError) as error:
        raise BadAudio(str(error)) from error
    step = np.arange(0, len(mono), rate / RATE_HZ)
    return np.interp(step, np.arange(len(mono)), mono).astype(np.float32) if len(mono) else mono


def _decode_other(content: bytes) -> Samples:
    try:
        with av.open(io.BytesIO(content)) as container:
            resampler = av.AudioResampler("flt", "mono", RATE_HZ)
            frames = [
                piece.to_ndarray()[0]
                for frame in container.decode(audio=0)
                for piece in resampler.resample(frame)
            ]
    except (av.FFmpegError, IndexError) as error:
        raise BadAudio(str(error)) from error
    return np.concatenate(frames) if frames else np.zeros(0, np.float32)


def segments(samples: Samples) -> list[Samples]:
    """The stretches of speech."""
    count = len(samples) // FRAME
    frames = samples[: count * FRAME].reshape(count, FRAME)
    loud = np.sqrt((frames**2).mean(axis=1)) > LOUD if count else np.zeros(0, bool)
    found: list[Samples] = []
    start, quiet = None, 0
    for index in range(count + 1):
        if index < count and loud[index]:
            start, quiet = index if start is None else start, 0
            continue
        quiet += 1
        if start is not None and (quiet >= MIN_SILENCE or index == count):
            end = index + 1 - quiet
            if end - start >= MIN_SPEECH:
                found.append(samples[start * FRAME : end * FRAME])
            start = None
    return found


def embed(speech: Sequence[Samples]) -> Vector:
    """The voice print of all stretches, weighted by their length; its norm is 1."""
    total = np.zeros(24)
    for segment in speech:
        power = np.abs(np.fft.rfft(segment * np.hanning(len(segment)))) ** 2
        edges = np.geomspace(80, 7600, 25) / (RATE_HZ / 2) * (len(power) - 1)
        bands = np.array([power[int(low) : int(high) + 1].sum() for low, high in pairwise(edges)])
        shape = np.log(bands + 1e-6 * bands.sum() + 1e-12)
        shape -= shape.mean()
        total += len(segment) * shape / (np.linalg.norm(shape) or 1.0)
    norm = np.linalg.norm(total)
    return total / norm if norm else np.full(24, 24**-0.5)


def assign(
    clusters: list[dict[str, Any]], print_: Vector
) -> tuple[str, float, list[dict[str, Any]]]:
    """The cluster a voice belongs to, how well it fits, and the clusters with it in them."""
    scores = [
        float(np.dot(print_, each["centroid"]) / (np.linalg.norm(each["centroid"]) or 1.0))
        if len(each["centroid"]) == len(print_)
        else -1.0
        for each in clusters
    ]
    best = max(range(len(scores)), key=scores.__getitem__, default=None)
    if best is not None and scores[best] >= LOW:
        old = clusters[best]
        count = old["sample_count"]
        centroid = (np.array(old["centroid"]) * count + print_) / (count + 1)
        new = {**old, "centroid": centroid.tolist(), "sample_count": count + 1}
        return old["cluster_id"], scores[best], [*clusters[:best], new, *clusters[best + 1 :]]
    numbers = [int(each["cluster_id"][1:]) for each in clusters]
    cluster = f"c{max(numbers, default=0) + 1}"
    new = {"cluster_id": cluster, "centroid": print_.tolist(), "sample_count": 1}
    return cluster, 1.0 if best is None else scores[best], [*clusters, new]


def name_in(text: str) -> tuple[str, float] | None:
    """A name that a text introduces, and how sure that is."""
    for introduction, sure in _INTRODUCTIONS:
        for match in introduction.finditer(text):
            words = []
            for word in re.findall(r"[^\s]+", text[match.end() :])[:4]:
                plain = re.match(r"[A-Za-z][A-Za-z'-]*", word)
                if plain is None or plain.group().lower() in _STOPS:
                    break
                words.append(plain.group().title())
                if plain.group() != word:
                    break
            if words:
                return " ".join(words), sure
    return None


def decide(
    score: float,
    candidate: tuple[str, float] | None,
    previous: str | None,
    roster: Sequence[str],
) -> Decision:
    """Whether a voice has a name; ``bound`` is kept for the cluster."""
    name, sure = candidate or (None, 0.0)
    if score < HIGH:
        found: Literal["auto", "confirm", "unknown"] = "confirm" if name or previous else "unknown"
        bound = name if name and previous is None and sure >= SURE else previous
        return Decision(found, name or previous, bound)
    if name:
        is_listed = not roster or name.lower() in {each.lower() for each in roster}
        if is_listed:
            return Decision("auto", name, name)
        return Decision("confirm", name, previous or (name if sure >= SURE else None))
    if previous:
        return Decision("auto", previous, previous)
    return Decision("confirm", None, None)
