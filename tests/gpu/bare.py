"""The bare dynamic generator under the load of `inference.load`: what our worker is measured by. Prints JSON.

    python tests/gpu/bare.py FOLDER STREAMS,STREAMS… SECONDS TOKENS

There is nothing around it: no worker, no pipe, no text of the answers. All else is as our back end has it, and the
prompts are the same.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT)]

import msgspec  # noqa: E402

from inference.exllama.backend import Sampling  # noqa: E402
from inference.exllama.folder import Folder, read_folder  # noqa: E402
from inference.exllama.settings import ExLlama  # noqa: E402
from inference.load import Load, question, warming  # noqa: E402
from inference.template_process import environment  # noqa: E402

CONTEXT = 1024


def settings(folder: str, slots: int) -> ExLlama:
    """The same for both."""
    return ExLlama(folder=folder, id="measured", family="measured", slots=slots, context=CONTEXT)


def rate(generator: Any, folder: Folder, load: Load) -> float:
    """Tokens per second of the load's streams, each of which begins anew as soon as it ends."""
    import torch
    from exllamav2.generator import ExLlamaV2DynamicJob

    from inference.exllama.v2 import sampler

    numbers, template = itertools.count(1), environment().from_string(folder.template)

    def begin() -> None:
        asked = question(folder.model.id, load, next(numbers))
        messages = msgspec.to_builtins(asked.messages)
        prompt = template.render(messages=messages, add_generation_prompt=True, **folder.marks)
        job = ExLlamaV2DynamicJob(
            input_ids=torch.tensor([folder.encode(prompt)]),
            max_new_tokens=asked.max_tokens,
            gen_settings=sampler(Sampling(asked.max_tokens, asked.temperature, asked.top_p, asked.seed)),
            seed=asked.seed,
            stop_conditions=[*folder.stop],
        )
        generator.enqueue(job)

    for _ in range(load.streams):
        begin()
    received, began = 0, time.perf_counter()
    while time.perf_counter() - began < load.seconds:
        for result in generator.iterate():
            if result["stage"] != "streaming":
                continue
            received += result["token_ids"].shape[-1] if "token_ids" in result else 0
            if result["eos"]:
                begin()
    found = received / (time.perf_counter() - began)
    for job in [*generator.pending_jobs, *generator.active_jobs]:
        generator.cancel(job)
    return found


def main(path: str, counts: str, seconds: str, tokens: str) -> None:
    from exllamav2 import ExLlamaV2Tokenizer

    from inference.exllama import v2

    loads = [Load(streams=int(count), seconds=float(seconds), tokens=int(tokens)) for count in counts.split(",")]
    asked = settings(path, max(load.streams for load in loads))
    folder = read_folder(asked)
    model, cache = v2.load(path, asked)
    generator = v2.make_generator(model, cache, ExLlamaV2Tokenizer(model.config), asked)
    generator.warmup()
    for load in loads:
        rate(generator, folder, warming(load))
    found = {load.streams: rate(generator, folder, load) for load in loads}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
