"""What both models share: how a session is made and how PCM becomes numbers.

Only code that runs a model imports this module; it imports numpy and onnxruntime.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

# Newer releases report usage to their maker unless told not to before they load. Nothing leaves
# this machine without its operator's word.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

Float32 = npt.NDArray[np.float32]


def load_session(path: Path) -> onnxruntime.InferenceSession:
    """A session that computes in the calling thread only; several threads may call it at once."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def to_floats(pcm: bytes) -> Float32:
    """Samples of s16le PCM, full scale 1."""
    samples: Float32 = np.frombuffer(pcm, dtype="<i2").astype(np.float32)
    samples /= 32768
    return samples
