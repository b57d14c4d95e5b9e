"""Logprobs of tokens, from a generator's logits, and what a rule leaves of these.

What the generator calls probabilities is what its sampler left of them.
"""

from __future__ import annotations

from typing import Any

import torch

from inference.exllama.backend import Likely, Rule


def likely(logits: Any, ids: list[int], top: int) -> tuple[Likely, ...]:
    """Of each of `ids`; `logits` is (1, at least as many, vocabulary), the model's own, before anything is sampled."""
    logprobs = torch.log_softmax(logits[0, : len(ids)].float(), dim=-1)
    best = logprobs.topk(top) if top else None
    told = []
    for at, token in enumerate(ids):
        pairs = zip(best.indices[at].tolist(), best.values[at].tolist(), strict=True) if best else ()
        told.append(Likely(float(logprobs[at, token]), tuple(pairs)))
    return tuple(told)


def allowed(rule: Rule) -> Any:
    """Whether each id may come next, as a tensor on the CPU."""
    return torch.frombuffer(bytearray(rule.allowed()), dtype=torch.uint8).bool()
