"""Core: what is asked of llama-server for one answer, and what its chunks mean.

A chunk may stand for several tokens (a character can take three) or for none; `timings.predicted_n` is the one exact
count of the tokens so far. It includes the end token, which comes without text, so tokens without text wait until
text or the end follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inference.engine import Delta, Finished, FinishReason, Request, Usage
from inference.errors import ContextOverflow, EngineError
from inference.form import Calls, HeldToJson, ToldLogprobs
from inference.hermes import forced
from inference.records import TokenLogprob
from inference.stopping import StopFilter

_SEEDS = (1 << 32) - 1  # the one above them means "draw a seed"


def completion_body(prompt: Sequence[int], slot: int) -> dict[str, Any]:
    """Work through `prompt` in `slot`, reporting progress, and answer nothing."""
    return {
        "prompt": list(prompt),
        "id_slot": slot,
        "n_predict": 0,
        "cache_prompt": True,
        "stream": True,
        "return_progress": True,
        "timings_per_token": True,
    }


def answer_body(request: Request, prompt: Sequence[int], slot: int) -> dict[str, Any]:
    """Answer `prompt` as `request` says. The server's own filters (top_k, min_p) are switched off.

    A call that is required is had by a schema: the server itself takes such a demand, and does not see to it.
    """
    schema = forced(request)
    return (
        completion_body(prompt, slot)
        | {
            "n_predict": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "seed": request.seed % _SEEDS,
        }
        | ({} if schema is None else {"json_schema": schema})
        | ({} if request.top_logprobs is None else {"logprobs": max(1, request.top_logprobs)})
    )


def check_chunk(chunk: dict[str, Any]) -> None:
    """Raises what an error chunk reports. Its message is dropped: it may quote the prompt."""
    error = chunk.get("error")
    if error is None:
        return
    if error.get("type") == "exceed_context_size_error":
        raise ContextOverflow(error["n_prompt_tokens"], error["n_ctx"])
    raise EngineError(f"llama.cpp refused the request: {error.get('type')}")


class ChunkReader:
    """Turns the chunks of one answer into items. `done` after the last, when the server need not go on."""

    def __init__(self, request: Request, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._filter = StopFilter(request.stop)
        self._held = HeldToJson(request)
        self._calls = Calls(request)
        self._logprobs = ToldLogprobs(request)
        self._seen = 0  # tokens handed to the filter
        self._delivered = 0
        self.done = False

    def feed(self, chunk: dict[str, Any]) -> list[Delta | Finished]:
        """The items that `chunk` completes. Raises `EngineError`."""
        check_chunk(chunk)
        choice, timings = chunk["choices"][0], chunk["timings"]
        reason: FinishReason | None = choice["finish_reason"]
        produced = timings["predicted_n"] - (reason == "stop")
        self._logprobs.heard(_logprobs(choice["logprobs"]))
        self._held.heard(choice["text"], reason)
        deltas: list[Delta | None] = []
        if choice["text"] or (reason and produced > self._seen):
            deltas.append(self._filter.feed(choice["text"], produced - self._seen))
            self._seen = produced
        if self._filter.stopped:
            reason = "stop"
        elif reason:
            deltas.append(self._filter.flush())
        found = self._calls.found(deltas, reason)
        self._delivered += sum(delta.tokens for delta in found)
        items: list[Delta | Finished] = [self._logprobs.behind(delta) for delta in found]
        if reason:
            self.done = True
            items.append(Finished(reason, Usage(self._prompt_tokens, timings["cache_n"], self._delivered)))
        return items


def _logprobs(told: dict[str, Any] | None) -> list[TokenLogprob]:
    """Of the chunk's tokens; what comes without text is the end."""
    content = told["content"] if told else []
    return [
        TokenLogprob(one["token"], one["logprob"], tuple((top["token"], top["logprob"]) for top in one["top_logprobs"]))
        for one in content
        if one["bytes"]
    ]
