"""Core: how long a provider that is alive may give nothing before its client turns to another.

What a quote promises is an expectation of an idle machine; a stall is far beyond it. The floors are for what no promise
covers: a look at the chain before the work begins, a machine that others use as well.
"""

from __future__ import annotations

SLACK = 8  # so many times as long as promised is far longer
FIRST_FLOOR_S = 30.0
FLOOR_S = 10.0
MOST_S = 120.0  # whatever is promised: a quote may name any number
PIECE_TOKENS = 16  # tokens may come in pieces of so many


def patience_s(*, ttft_ms: int, tokens_per_s: int, prompt_tokens: int | None) -> float:
    """For the next sign of work, in seconds; `prompt_tokens` of the prompt are still to be worked through.

    `None` is for an answer of which something has come. A prompt is taken to be no slower to read than an answer to
    write, since a quote's time to the first token may be that of a short one.
    """
    token_s = 1 / max(1, tokens_per_s)
    if prompt_tokens is None:
        wait_s = max(FLOOR_S, SLACK * PIECE_TOKENS * token_s)
    else:
        wait_s = max(FIRST_FLOOR_S, SLACK * ttft_ms / 1000 + prompt_tokens * token_s)
    return min(MOST_S, wait_s)
