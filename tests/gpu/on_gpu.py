"""Whether there is a GPU for ExLlama here."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

_NEEDED = ("torch", "exllamav2", "tokenizers", "llguidance", "safetensors", "numpy", "jinja2")


def unavailable() -> str:
    """Why ExLlama cannot be run here; empty if it can."""
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        return f"{', '.join(missing)} is not installed"
    with warnings.catch_warnings():  # of libraries beside it, which are none of ours
        warnings.simplefilter("ignore")
        import torch

    return "" if torch.cuda.is_available() else "there is no CUDA GPU here"
