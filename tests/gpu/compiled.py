"""Parts of an ExLlama's extension that need no CUDA, compiled from the library's own sources; once for each user."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def unavailable(*needed: str) -> str:
    """Why this cannot be run here; empty if it can."""
    if missing := [name for name in needed if find_spec(name) is None]:
        return f"{', '.join(missing)} is not installed"
    return "" if shutil.which("g++") and shutil.which("ninja") else "there is no g++ or ninja for the sampler"


def compiled(library: str, sources: Sequence[str], binding: str, headers: Sequence[str] = ()) -> Any:
    """The module `{library}_ext` with what `binding` names. The sources name `headers` and do not use them."""
    from torch.utils.cpp_extension import load

    name = f"{library}_ext"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bombyx" / name
    theirs = Path(str(importlib.metadata.distribution(library).locate_file(f"{library}/{name}")))
    written = {f"no_cuda/{header}": "" for header in headers}
    for file, text in {**written, "binding.cpp": binding}.items():
        if not (folder / file).exists():  # or all would be compiled anew
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
    return load(
        name,
        [str(folder / "binding.cpp"), *(str(theirs / source) for source in sources)],
        extra_include_paths=[str(folder / "no_cuda"), str(theirs)],
        extra_cflags=["-O2"],
        build_directory=str(folder),
        with_cuda=False,
    )
