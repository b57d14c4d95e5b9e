"""The generator's process with the real ExLlamaV2 and `on_cpu`'s forward pass: `python generator_on_cpu.py [failing]`.

`failing` has it fail once, in the middle of the first answer.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

import on_cpu  # noqa: E402

from inference.exllama import generator  # noqa: E402
from inference.exllama.backend import Backend  # noqa: E402
from inference.exllama.orders import Open  # noqa: E402


def load(opening: Open) -> Backend:
    on_cpu.compile_sampler(on_cpu.kept())
    import torch

    from inference.exllama import v2

    torch.set_num_threads(1)  # or the tests beside this one would wait
    v2.load = on_cpu.load
    backend = v2.V2(opening.settings, opening.stop)
    if sys.argv[1:] == ["failing"]:
        fail_once()
    return backend


def fail_once() -> None:
    faults = [ValueError("in mid-answer")]
    forward = on_cpu.Model.forward_chunk

    def failing(*given: Any, **rest: Any) -> dict[str, Any]:
        if faults and not rest.get("preprocess_only"):
            raise faults.pop()
        return forward(*given, **rest)

    vars(on_cpu)["Model"].forward_chunk = failing


if __name__ == "__main__":
    generator.main(load)
