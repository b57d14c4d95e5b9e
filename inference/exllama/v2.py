"""ExLlamaV2 0.3.2's dynamic generator. Importing this module compiles its kernels where nobody has before: minutes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from inference.exllama import paged, results
from inference.exllama.backend import Rule, Sampling, Step
from inference.exllama.logits import allowed
from inference.exllama.results import gives
from inference.exllama.settings import QUERIES, ExLlama

paged.offer()  # the library looks for flash-attn when it is imported
from exllamav2 import (  # noqa: E402
    ExLlamaV2,
    ExLlamaV2Cache,
    ExLlamaV2Cache_Q4,
    ExLlamaV2Cache_Q6,
    ExLlamaV2Cache_Q8,
    ExLlamaV2Config,
    ExLlamaV2Lora,
    ExLlamaV2Tokenizer,
)
from exllamav2.generator import ExLlamaV2DynamicGenerator, ExLlamaV2DynamicJob, ExLlamaV2Sampler  # noqa: E402
from exllamav2.generator.filters import ExLlamaV2Filter  # noqa: E402

_CACHES = {"fp16": ExLlamaV2Cache, "q8": ExLlamaV2Cache_Q8, "q6": ExLlamaV2Cache_Q6, "q4": ExLlamaV2Cache_Q4}


def configured(folder: str, settings: ExLlama) -> Any:
    """What the library reads of a model's folder, and what is asked of it.

    Whatever is worked on at once must not be more than a sequence may have: loading takes it for one.
    """
    config = ExLlamaV2Config(folder)
    config.max_input_len = max(settings.chunk, QUERIES * settings.slots)
    config.max_attention_size = config.max_input_len**2
    config.max_seq_len = max(settings.sequence_tokens, config.max_input_len)
    return config


def load(folder: str, settings: ExLlama) -> tuple[Any, Any]:
    """A model on the GPUs, and its cache."""
    model = ExLlamaV2(configured(folder, settings))
    make_cache = _CACHES[settings.cache]
    if settings.gpu_split_gib:
        model.load(list(settings.gpu_split_gib))
        return model, make_cache(model, max_seq_len=settings.total_tokens)
    cache = make_cache(model, max_seq_len=settings.total_tokens, lazy=True)
    model.load_autosplit(cache)
    return model, cache


def make_generator(model: Any, cache: Any, tokenizer: Any, settings: ExLlama, **drafting: Any) -> Any:
    return ExLlamaV2DynamicGenerator(
        model=model,
        cache=cache,
        tokenizer=tokenizer,
        max_seq_len=settings.sequence_tokens,
        max_batch_size=settings.slots,  # without it, logits for 256 sequences are kept
        max_chunk_size=settings.chunk,
        max_q_size=QUERIES,
        **drafting,
    )


class V2:
    """See `Backend`."""

    def __init__(self, settings: ExLlama, stop: Sequence[int]) -> None:
        """Loads the model; `stop` are the ids that end an answer."""
        self._settings = settings
        self._stop = list(stop)
        self._model, self._cache = load(settings.folder, settings)
        self._tokenizer = ExLlamaV2Tokenizer(self._model.config)
        self._drafting: dict[str, Any] = {}
        if settings.draft == "ngram":
            self._drafting = {"use_ngram_draft": True, "num_draft_tokens": settings.draft_tokens}
        elif settings.draft:
            model, cache = load(settings.draft, settings)
            self._drafting = {"draft_model": model, "draft_cache": cache, "num_draft_tokens": settings.draft_tokens}
        self._loras = [ExLlamaV2Lora.from_directory(self._model, folder) for folder in settings.lora_folders]
        self._jobs: dict[int, Any] = {}
        self._generator = self._make()
        self._generator.warmup()

    def start(self, job: int, prompt: Sequence[int], sampling: Sampling, rule: Rule | None) -> None:
        started = ExLlamaV2DynamicJob(
            input_ids=torch.tensor([prompt], dtype=torch.long),
            # The generator ends as many tokens earlier as it may guess ahead (0.3.2: `receive_sample`).
            max_new_tokens=sampling.max_tokens + self._settings.speculation_tokens,
            gen_settings=sampler(sampling),
            seed=sampling.seed,
            stop_conditions=self._stop,
            return_logits=sampling.top_logprobs is not None,
            banned_strings=(list(self._settings.banned) or None) if rule is None else None,  # it takes but one of both
            filters=[] if rule is None else [_Held(self._model, self._tokenizer, rule)],
            identifier=job,
        )
        self._generator.enqueue(started)
        started.top_logprobs = sampling.top_logprobs
        self._jobs[job] = started

    def cancel(self, job: int) -> None:
        if started := self._jobs.pop(job, None):
            self._generator.cancel(started)

    def turn(self) -> list[Step]:
        steps = [step(result) for result in self._generator.iterate() if result["stage"] == "streaming"]
        for one in steps:
            if one.end:
                del self._jobs[one.job]
        return [one for one in steps if one.tokens or one.end]

    def rebuild(self) -> None:
        self._jobs.clear()
        self._retire()
        self._generator = self._make()

    def _make(self) -> Any:
        generator = make_generator(self._model, self._cache, self._tokenizer, self._settings, **self._drafting)
        if self._loras:
            generator.set_loras(self._loras)
        return generator

    def _retire(self) -> None:
        """Its threads would outlive it."""
        for pool in (self._generator.sampling_pool, self._generator.filter_pool):
            pool.shutdown(wait=False)


class _Held(ExLlamaV2Filter):
    """A rule, as the sampler asks for it. The mask is made by another thread, while the GPU works."""

    def __init__(self, model: Any, tokenizer: Any, rule: Rule) -> None:
        super().__init__(model, tokenizer)
        self._rule = rule

    def begin(self, prefix_str: str) -> None:
        """The answer's first token is next, as it is for the rule."""

    def feed(self, token: Any) -> None:
        self._rule.take(int(token))

    def use_background_worker(self) -> bool:
        return True

    def can_mask_logits(self) -> bool:
        return True

    def prepare_logit_mask(self) -> bool:
        self._allowed = allowed(self._rule)
        return True

    def mask_logits(self, logits: Any) -> Any:
        """New ones: these may be told as logprobs."""
        held = torch.full_like(logits, float("-inf"))
        there = self._allowed[: len(logits)].nonzero()
        held[there] = logits[there]
        return held


def sampler(sampling: Sampling) -> Any:
    """The library's own defaults are a creative writer's (penalty 1.025, top-k 50, top-p 0.8): all are set."""
    greedy = sampling.temperature == 0
    return ExLlamaV2Sampler.Settings(
        temperature=1.0 if greedy else sampling.temperature,
        top_k=1 if greedy else 0,
        top_p=0.0 if greedy or sampling.top_p == 1 else sampling.top_p,  # 0 is off
        min_p=0.0,
        top_a=0.0,
        tfs=0.0,
        typical=0.0,
        skew=0.0,
        smoothing_factor=0.0,
        min_temp=0.0,
        max_temp=0.0,
        mirostat=False,
        token_repetition_penalty=1.0,
        token_frequency_penalty=0.0,
        token_presence_penalty=0.0,
        dry_multiplier=0.0,
        xtc_probability=0.0,
    )


def step(result: dict[str, Any]) -> Step:
    """What one of the generator's results says of its job."""
    ids, logits = gives(result)
    if taken_back := len(results.ids(result.get("suppressed_tokens"))):
        ids = ids[:-taken_back]  # of a banned string; 0.3.2 hands them out with what came before
    return results.step(result, (ids, logits))
