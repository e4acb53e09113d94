"""Speech to replay: WAV files as mono PCM at a rate Opus takes, and the demo's recordings."""

from __future__ import annotations

import importlib.util
import wave
from math import gcd
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from edge.errors import EdgescribeError, MissingDependency

OPUS_RATES_HZ = (8000, 12000, 16000, 24000, 48000)
"""Input rates of an Opus encoder (RFC 6716 section 2.1.3)."""
_LONGEST_S = 2 * 3600

Samples = npt.NDArray[np.int16]


class BadRecording(EdgescribeError):
    """A file is not speech that can be replayed; the message names the file and the way out."""


class Speech(msgspec.Struct, frozen=True):
    """Mono PCM of one speaker."""

    pcm: bytes
    """Signed 16-bit little-endian samples."""
    rate_hz: int
    """One of ``OPUS_RATES_HZ``."""

    @property
    def duration_s(self) -> float:
        return len(self.pcm) / 2 / self.rate_hz

    def repeated(self, times: int, pause_s: float) -> Speech:
        """The same speech ``times`` times over, each time followed by ``pause_s`` of silence."""
        silence = bytes(2 * round(pause_s * self.rate_hz))
        return Speech((self.pcm + silence) * times, self.rate_hz)


class Recording(msgspec.Struct, frozen=True):
    """A recording of which the words are known."""

    name: str
    path: Path
    text: str


TWO_CITIES = (
    "It was the best of times it was the worst of times it was the age of wisdom it was the age of"
    " foolishness it was the epoch of belief it was the epoch of incredulity it was the season of"
    " light it was the season of darkness it was the spring of hope it was the winter of despair we"
    " had everything before us we had nothing before us we were all going direct to heaven we were"
    " all going direct the other way in short the period was so far like the present period that"
    " some of its noisiest authorities insisted on its being received for good or for evil in the"
    " superlative degree of comparison only"
)
BECKETT = "Ever tried ever failed no matter try again fail again fail better"


def demo_recordings() -> tuple[Recording, Recording]:
    """The two recordings inside the installed recognizer package (which is not imported).

    Raises ``MissingDependency`` when the package is absent.
    """
    spec = importlib.util.find_spec("moonshine_voice")
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        assets = Path(folder, "assets")
        both = (
            Recording("two_cities", assets / "two_cities.wav", TWO_CITIES),
            Recording("beckett", assets / "beckett.wav", BECKETT),
        )
        if all(recording.path.is_file() for recording in both):
            return both
    raise MissingDependency("moonshine-voice==0.1.0", "embedded")


def read_wav(path: Path | str) -> Speech:
    """Read a WAV file; channels are averaged, rates Opus does not take are resampled.

    Raises ``BadRecording`` for a file that can't be read, is no WAV, isn't 16-bit PCM or is empty.
    """
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate_hz = file.getnchannels(), file.getsampwidth(), file.getframerate()
            if width != 2:
                raise BadRecording(
                    f"{path} has {8 * width}-bit samples; 16-bit PCM is needed:"
                    f" ffmpeg -i {path} -c:a pcm_s16le out.wav"
                )
            if not 4000 <= rate_hz <= 192_000:
                raise BadRecording(f"{path} is at {rate_hz} Hz; 4,000 to 192,000 Hz can be read")
            if file.getnframes() > _LONGEST_S * rate_hz:
                raise BadRecording(f"{path} is longer than {_LONGEST_S // 3600} hours; split it")
            frames = file.readframes(file.getnframes())
    except OSError as error:
        raise BadRecording(f"{path} cannot be read: {error.strerror or error}") from None
    except (wave.Error, EOFError, RuntimeError) as error:
        # RuntimeError is what the wave module raises for a chunk that says it is longer than it is.
        raise BadRecording(
            f"{path} is not a PCM WAV file ({str(error) or 'it ends too early'}):"
            f" ffmpeg -i {path} -ac 1 -ar 16000 -c:a pcm_s16le out.wav"
        ) from None
    whole = len(frames) // (2 * channels) * channels
    samples = np.frombuffer(frames, "<i2", whole).reshape(-1, channels)
    if not len(samples):
        raise BadRecording(f"{path} holds no audio")
    mono = samples[:, 0] if channels == 1 else samples.mean(axis=1).round().astype("<i2")
    if rate_hz not in OPUS_RATES_HZ:
        target_hz = next((rate for rate in OPUS_RATES_HZ if rate >= rate_hz), OPUS_RATES_HZ[-1])
        mono, rate_hz = resample(mono, rate_hz, target_hz), target_hz
    return Speech(mono.tobytes(), rate_hz)


def resample(samples: Samples, from_hz: int, to_hz: int) -> Samples:
    """Resample a whole recording with a Hann-windowed sinc of 16 zero crossings a side.

    Not for live audio: it looks ahead, and its length is rounded down once, at the end.
    """
    common = gcd(from_hz, to_hz)
    up, down = to_hz // common, from_hz // common
    reach = -(-16 * max(up, down) // up)
    cutoff = 0.95 * min(1.0, up / down)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(samples, reach), 2 * reach)
    resampled = np.empty(len(samples) * up // down)
    for phase in range(min(up, len(resampled))):
        # Outputs ``phase``, ``phase + up``, … lie at the same fraction between two inputs.
        whole, fraction = divmod(phase * down, up)
        x = np.arange(1 - reach, 1 + reach) - fraction / up
        taps = cutoff * np.sinc(cutoff * x) * (0.5 + 0.5 * np.cos(np.pi * x / reach))
        lane = resampled[phase::up]
        lane[:] = windows[whole + 1 :: down][: len(lane)] @ taps
    return resampled.round().clip(-32768, 32767).astype("<i2")
