"""ExLlamaV3 1.6's generator, for newer models. It has paged attention of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from exllamav3 import Cache, CacheLayer_fp16, CacheLayer_quant, Config, Generator, Job, Model, Tokenizer
from exllamav3.generator.filter import Filter
from exllamav3.generator.sampler import ComboSampler
from exllamav3.model.lora import LoRA

from inference.exllama import results
from inference.exllama.backend import Rule, Sampling, Step, is_cuda_error
from inference.exllama.logits import allowed
from inference.exllama.settings import ExLlama

_BITS = {"q8": 8, "q6": 6, "q4": 4}
_NGRAM_MIN = 3  # tokens that must have come before in the same order, for what followed them to be a guess


def load(folder: str, settings: ExLlama) -> tuple[Any, Any, Any]:
    """A model on the GPUs, its cache and its config."""
    config = Config.from_directory(folder)
    model = Model.from_config(config)
    quantised: dict[str, Any] = {"layer_type": CacheLayer_fp16}
    if bits := _BITS.get(settings.cache):
        quantised = {"layer_type": CacheLayer_quant, "k_bits": bits, "v_bits": bits}
    cache = Cache(
        model,
        max_num_tokens=settings.total_tokens,
        max_batch_size=settings.slots,
        max_history=settings.speculation_tokens,
        **quantised,
    )
    split = {"use_per_device": list(settings.gpu_split_gib)} if settings.gpu_split_gib else {}
    model.load(max_chunk_size=settings.chunk, max_batch_size=settings.slots, **split)
    return model, cache, config


class V3:
    """See `Backend`."""

    def __init__(self, settings: ExLlama, stop: Sequence[int]) -> None:
        """Loads the model; `stop` are the ids that end an answer."""
        self._settings = settings
        self._stop = list(stop)
        self._model, self._cache, config = load(settings.folder, settings)
        self._tokenizer = Tokenizer.from_config(config)
        self._drafting: dict[str, Any] = {}
        if settings.draft == "ngram":
            self._drafting = {"ngram_match_min": _NGRAM_MIN, "num_draft_tokens": settings.draft_tokens}
        elif settings.draft:
            model, cache, _ = load(settings.draft, settings)
            self._drafting = {"draft_model": model, "draft_cache": cache, "num_draft_tokens": settings.draft_tokens}
        for folder in settings.lora_folders:
            LoRA.from_directory(self._model, folder)
        self._jobs: dict[int, Any] = {}
        self._generator = self._make()

    def start(self, job: int, prompt: Sequence[int], sampling: Sampling, rule: Rule | None) -> None:
        started = Job(
            input_ids=torch.tensor([prompt], dtype=torch.long),
            max_new_tokens=sampling.max_tokens,
            sampler=sampler(sampling),
            seed=sampling.seed,
            stop_conditions=self._stop,
            return_logits=sampling.top_logprobs is not None,
            # What is banned and is all that is allowed would leave nothing.
            banned_strings=(list(self._settings.banned) or None) if rule is None else None,
            filters=[] if rule is None else [_Held(self._tokenizer, rule)],
            identifier=job,
        )
        self._generator.enqueue(started)
        started.top_logprobs = sampling.top_logprobs
        self._jobs[job] = started

    def cancel(self, job: int) -> None:
        if started := self._jobs.pop(job, None):
            self._generator.cancel(started)

    def turn(self) -> list[Step]:
        given = self._generator.iterate()
        for result in given:  # a prompt's errors are told as its own, whatever they are
            if result["stage"] == "error" and is_cuda_error(result["error"]):
                raise result["error"]
        steps = [step(result) for result in given if result["stage"] in ("streaming", "error")]
        for one in steps:
            if one.end:
                del self._jobs[one.job]
        return [one for one in steps if one.tokens or one.end]

    def rebuild(self) -> None:
        self._jobs.clear()
        self._generator.close()
        self._generator = self._make()

    def _make(self) -> Any:
        return Generator(
            model=self._model,
            cache=self._cache,
            tokenizer=self._tokenizer,
            max_batch_size=self._settings.slots,
            max_chunk_size=self._settings.chunk,
            **self._drafting,
        )


class _Held(Filter):
    """A rule, as the generator asks for it. The mask is made by another thread, while the GPU works."""

    def __init__(self, tokenizer: Any, rule: Rule) -> None:
        super().__init__(tokenizer, trigger_token=None, prefix_str=None, eos_after_completed=False)
        self._rule = rule

    def reset(self) -> None:
        """The answer's first token is next, as it is for the rule: without banned strings, nothing is taken back."""

    def accept_token(self, token: int) -> None:
        self._rule.take(token)

    def is_completed(self) -> bool:
        """A rule ends with a token that stops the answer, and the generator ends it then."""
        return False

    def get_next_logit_mask(self) -> Any:
        """What is added to the logits, which come in as many as the padded vocabulary has."""
        there = allowed(self._rule)[: self.vocab_size]
        mask = torch.full((1, self.vocab_size), float("-inf"), dtype=torch.half)
        mask[0, : len(there)][there] = 0
        return mask


def sampler(sampling: Sampling) -> Any:
    """What is not named here is off by the library's own defaults."""
    return ComboSampler(temperature=sampling.temperature, top_p=sampling.top_p, top_k=0, min_p=0.0)


def step(result: dict[str, Any]) -> Step:
    """What one of the generator's results says of its job. A job that failed by itself leaves the others be."""
    if result["stage"] == "error":
        return Step(result["job"].identifier, (), "failed")
    return results.step(result, results.gives(result))
