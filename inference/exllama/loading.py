"""Loads the library and the model, or says in one line what of them is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from inference.errors import BadSettings, EngineError
from inference.exllama.backend import Backend
from inference.exllama.orders import Open
from inference.exllama.settings import PAGE_TOKENS, QUERIES, ExLlama

_LIBRARIES = {2: ("exllamav2", "exllama"), 3: ("exllamav3", "exllama3")}
_MAX_SLOTS = 256
_MAX_DRAFT_TOKENS = QUERIES - 1


def check_machine(settings: ExLlama) -> None:
    """Raises `BadSettings` for what is missing on this machine, or cannot be asked of any."""
    check_installed(settings)
    try:
        import torch
    except (ImportError, OSError) as error:  # one of CUDA's libraries, say
        raise BadSettings(f"PyTorch cannot be loaded: {_first_line(error)}") from error
    if not torch.cuda.is_available():
        raise BadSettings("ExLlama needs an NVIDIA GPU, and PyTorch finds none here; --engine llamacpp needs none")


def check_installed(settings: ExLlama) -> None:
    """The same, as far as it is known without loading anything."""
    _check(settings)
    library, extra = _LIBRARIES[settings.version]
    missing = next(
        (name for name in ("torch", library, "llguidance", "tokenizers", "jinja2") if find_spec(name) is None), None
    )
    if missing:
        raise BadSettings(f"{missing} is not installed: pip install 'bombyx[{extra}]', with the PyTorch of your CUDA")


def load_backend(opening: Open) -> Backend:
    """A loaded model. Blocks for seconds, and for minutes where kernels are compiled first.

    Raises `BadSettings` where the machine lacks something, `EngineError` where the model cannot be loaded.
    """
    settings = opening.settings
    check_machine(settings)
    backend = _backend(settings.version)
    try:
        return backend(settings, opening.stop)
    except Exception as error:
        raise EngineError(_why(error, settings.folder)) from error


def _check(settings: ExLlama) -> None:
    if settings.slots > _MAX_SLOTS:
        raise BadSettings(f"ExLlama runs at most {_MAX_SLOTS} answers side by side: give --slots {_MAX_SLOTS}")
    if settings.chunk_tokens % PAGE_TOKENS or settings.chunk_tokens < 1:
        raise BadSettings(f"a chunk is a multiple of {PAGE_TOKENS} tokens")
    if not 1 <= settings.draft_tokens <= _MAX_DRAFT_TOKENS:
        raise BadSettings(f"1 to {_MAX_DRAFT_TOKENS} tokens can be guessed ahead")


def _backend(version: int) -> Callable[[ExLlama, Sequence[int]], Backend]:
    """The back end's class, imported here alone."""
    try:
        if version == 2:
            from inference.exllama.v2 import V2

            return V2
        from inference.exllama.v3 import V3
    except (ImportError, OSError, RuntimeError) as error:
        # No CUDA_HOME is an OSError; a compiler that is missing or fails is a RuntimeError, of a thousand lines.
        raise BadSettings(
            f"{_LIBRARIES[version][0]} cannot build its kernels with nvcc, g++ and ninja: {_first_line(error)}"
        ) from error
    return V3


def _why(error: Exception, folder: str) -> str:
    if type(error).__name__ == "OutOfMemoryError":
        return f"the GPU has no memory for {folder} and its cache: give fewer --slots or less --context"
    return f"ExLlama cannot load {folder}: {type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
