"""The embedded recognizer: Moonshine tiny-en and Silero VAD, run on this machine by onnxruntime.

Comes in: PCM at 16 kHz. Goes out: interims and finals with exact audio times. Each worker ends its
streams' utterances itself (a VAD thread); one inference process per machine, kept alive by a
caretaker, turns them into text. ``edge.asr.registry``, ``edge.settings`` and the launcher may call
it; importing it loads no model library.
"""

from edge.asr.embedded.caretaker import Care, run_caretaker
from edge.asr.embedded.recognizer import EmbeddedRecognizer
from edge.asr.embedded.settings import EmbeddedSettings
from edge.asr.embedded.stream import EmbeddedCounts
from edge.asr.embedded.weights import require_packages

__all__ = [
    "Care",
    "EmbeddedCounts",
    "EmbeddedRecognizer",
    "EmbeddedSettings",
    "require_packages",
    "run_caretaker",
]
