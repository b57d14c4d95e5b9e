"""ExLlama's engine as it is, without a GPU: its generator's process is `generator_on_cpu.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import v2_on_cpu
import v3_on_cpu
from folders import embedded_folder

from inference.engine import Engine
from inference.exllama.engine import open_exllama
from inference.exllama.process import open_generator
from inference.exllama.settings import ExLlama
from inference.models import embedded_model

UNAVAILABLE = {2: v2_on_cpu.unavailable(), 3: v3_on_cpu.unavailable()}
"""For each version, why it cannot be run here; empty if it can."""


@asynccontextmanager
async def open_on_cpu(folder: Path, *words: str, **settings: Any) -> AsyncIterator[Engine]:
    """With the embedded model; `folder` is its folder, or becomes it. `words` are for `generator_on_cpu.py`."""
    if not (folder / "config.json").exists():
        embedded_folder(Path(embedded_model().path), folder)
    given = {"folder": str(folder), "id": "embedded", "family": "smollm", "slots": 2, "context": 512, **settings}
    program = [str(Path(__file__).parent / "generator_on_cpu.py"), *words]
    async with open_exllama(ExLlama(**given), partial(open_generator, program=program)) as engine:
        yield engine
