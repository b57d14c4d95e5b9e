"""The generator's process with a real ExLlama and a forward pass of ours: `python generator_on_cpu.py [FAULT]`.

`failing` has it fail once, in the middle of the first answer; `dead` has its GPU fail at the first prompt.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

import v2_on_cpu  # noqa: E402
import v3_on_cpu  # noqa: E402
from llama import Llama  # noqa: E402

from inference.exllama import generator  # noqa: E402
from inference.exllama.backend import Backend  # noqa: E402
from inference.exllama.orders import Open  # noqa: E402

LIBRARIES = {2: v2_on_cpu, 3: v3_on_cpu}


def load(opening: Open) -> Backend:
    import torch

    torch.set_num_threads(1)  # or the tests beside this one would wait
    backend: Backend = LIBRARIES[opening.settings.version].open_backend(opening)
    match sys.argv[1:]:
        case ["failing"]:
            fail_once("logits", ValueError("in mid-answer"))
        case ["dead"]:
            fail_once("forward", RuntimeError("CUDA error: pretended"))
    return backend


def fail_once(step: str, error: Exception) -> None:
    faults, whole = [error], getattr(Llama, step)

    def failing(*given: Any) -> Any:
        if faults:
            raise faults.pop()
        return whole(*given)

    setattr(Llama, step, failing)


if __name__ == "__main__":
    generator.main(load)
