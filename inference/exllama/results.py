"""What a result of the generators says of its job; those of both versions are alike."""

from __future__ import annotations

from typing import Any

from inference.exllama.backend import End, Step
from inference.exllama.logits import likely
from inference.exllama.settings import PAGE_TOKENS


def step(result: dict[str, Any], given: tuple[list[int], Any]) -> Step:
    """Of a streaming result; `given` is what it `gives` that will not be taken back."""
    job, stopped = result["job"], result.get("eos_reason") == "stop_token"
    parts = [given]
    if stopped:  # is held back, with what may have ended inside a character
        parts.append(gives(result.get("held", {})))
    tokens = [one for ids, _ in parts for one in ids]
    told = [one for ids, logits in parts if logits is not None for one in likely(logits, ids, job.top_logprobs)]
    end: End = "length" if result.get("eos_reason") == "max_new_tokens" else "stop" if result["eos"] else ""
    cached_tokens = job.cached_pages * PAGE_TOKENS + job.cached_tokens
    return Step(job.identifier, tuple(tokens[:-1] if stopped else tokens), end, cached_tokens, tuple(told))


def gives(part: dict[str, Any]) -> tuple[list[int], Any]:
    """Ids and, where they were asked for, logits."""
    return ids(part.get("token_ids")), part.get("logits")


def ids(tensor: Any) -> list[int]:
    """Of one sequence; none of None."""
    return [] if tensor is None else [int(one) for one in tensor[0].tolist()]
