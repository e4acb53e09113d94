"""Moonshine tiny-en: the speech of one segment to text, run directly by onnxruntime.

Comes in: mono float32 at 16 kHz, 0.1 to about 20 s. Goes out: text and how sure the model was.
Only the inference process imports this module. Source of the model's inputs and outputs: the
graphs in the wheel ``moonshine-voice==0.1.0`` (MIT), read with onnxruntime.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from edge.asr.embedded.messages import LEAST_MEAN_LOG_P
from edge.asr.embedded.runtime import Float32, load_session
from edge.asr.embedded.weights import DECODER, ENCODER, TOKENIZER

RATE_HZ: Final = 16000
TOKENS_PER_SECOND: Final = 6.5
"""The model's own bound; past it the text repeats itself."""
SHORTEST_SAMPLES: Final = RATE_HZ // 4
"""The encoder needs some frames; shorter speech is padded with silence."""
BEGIN: Final = 1
END: Final = 2
HEADS: Final = 8
HEAD_SIZE: Final = 36

_CONTROL: Final = re.compile(rb"</?s>|<unk>|<<ST_\d+>>")


class Decoded(msgspec.Struct, frozen=True):
    """What the model made of one segment."""

    text: str
    tokens: tuple[int, ...]
    mean_log_p: float
    """Mean natural logarithm of the chosen tokens' probabilities; 0.0 for an empty text."""


class Moonshine:
    """Loaded weights, shared by all threads: ``transcribe`` may run in several at once."""

    def __init__(self) -> None:
        """Load and verify (about 0.7 s); raises ``MissingDependency`` or ``DamagedDependency``."""
        self._tokens = read_tokens(TOKENIZER.verify())
        self._encoder = load_session(ENCODER.verify())
        self._decoder = load_session(DECODER.verify())
        self._past = [
            spec.name for spec in self._decoder.get_inputs() if spec.name.startswith("past_")
        ]
        self._outputs = [spec.name for spec in self._decoder.get_outputs()]

    def transcribe(
        self,
        samples: Float32,
        context: int = 0,
        prefix: Sequence[int] = (),
        unwanted: Callable[[], bool] = lambda: False,
    ) -> Decoded | None:
        """Text of ``samples``, or None once ``unwanted`` answers True (asked between tokens).

        With ``context``, that many samples at the beginning belong to the utterance before, whose
        tokens are ``prefix``: the model hears them and writes on. It halves the errors of short
        utterances. Where it finds nothing to add, or is unsure, they are decoded on their own.
        """
        if context:
            decoded = self._decode(samples, context, prefix, unwanted)
            if decoded is None or (decoded.text and decoded.mean_log_p >= LEAST_MEAN_LOG_P):
                return decoded
        return self._decode(samples[context:], 0, (), unwanted)

    def _decode(
        self,
        samples: Float32,
        context: int,
        prefix: Sequence[int],
        unwanted: Callable[[], bool],
    ) -> Decoded | None:
        limit = max(4, math.ceil((len(samples) - context) / RATE_HZ * TOKENS_PER_SECOND))
        if len(samples) < SHORTEST_SAMPLES:
            samples = np.pad(samples, (0, SHORTEST_SAMPLES - len(samples)))
        audio = samples[np.newaxis, :]
        mask = np.ones(audio.shape, dtype=np.int64)
        (hidden,) = self._encoder.run(None, {"input_values": audio, "attention_mask": mask})
        empty = np.zeros((1, HEADS, 0, HEAD_SIZE), dtype=np.float32)
        feed: dict[str, Any] = {
            "encoder_attention_mask": mask,
            "input_ids": np.array([[BEGIN, *prefix]], dtype=np.int64),
            "encoder_hidden_states": hidden,
            "use_cache_branch": np.array([False]),
            **dict.fromkeys(self._past, empty),
        }
        chosen: list[int] = []
        log_p: list[float] = []
        wanted = self._outputs
        while len(chosen) < limit:
            if unwanted():
                return None
            answers = dict(zip(wanted, self._decoder.run(wanted, feed), strict=True))
            token, log_probability = _best(answers.pop("logits")[0, -1])
            log_p.append(log_probability)
            if token == END:
                break
            chosen.append(token)
            for name, value in answers.items():
                feed[name.replace("present", "past_key_values")] = value
            if len(chosen) == 1:
                # The encoder's keys stay those of the first step; only the decoder's grow.
                wanted = [name for name in wanted if ".encoder." not in name]
                feed["use_cache_branch"] = np.array([True])
            feed["input_ids"] = np.array([[token]], dtype=np.int64)
        text = join_tokens(self._tokens, chosen)
        return Decoded(text, tuple(chosen), sum(log_p) / len(log_p) if text else 0.0)


def read_tokens(path: Path) -> list[bytes]:
    """The vocabulary: byte strings, each after its length (one byte, or two from 128 on)."""
    data = path.read_bytes()
    tokens: list[bytes] = []
    at = 0
    while at < len(data):
        length = data[at]
        at += 1
        if length >= 128:
            length += data[at] * 128 - 128
            at += 1
        tokens.append(data[at : at + length])
        at += length
    return tokens


def join_tokens(vocabulary: list[bytes], chosen: list[int]) -> str:
    """Text of token numbers; control tokens (``<s>``, ``<unk>``, ``<<ST_n>>``) have none."""
    pieces = [vocabulary[token] for token in chosen if token < len(vocabulary)]
    text = b"".join(piece for piece in pieces if not _CONTROL.fullmatch(piece))
    # The vocabulary has both "," and a word with its comma, and the model likes to use both.
    return text.decode("utf-8", "ignore").replace("\u2581", " ").replace(",,", ",").strip()


def _best(logits: Float32) -> tuple[int, float]:
    token = int(logits.argmax())
    return token, -math.log(float(np.exp(logits - logits[token]).sum()))
