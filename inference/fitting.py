"""Core: how much memory a model takes to serve, term by term, and what of it fits where.

Sizes are bytes, contexts tokens for each slot. A cache is counted as if every layer looked at the whole context: where
some look at a window only (Gemma, gpt-oss), an engine may take less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

MEBIBYTE = 1 << 20
CONTEXT_STEP = 256  # the least that engines round a context to

# Bits for each weight, scales counted, by the block layouts of ggml. A file mixes them; its header is exact.
WEIGHT_BITS = {"F16": 16.0, "Q8_0": 8.5, "Q6_K": 6.5625, "Q5_K": 5.5, "Q4_K": 4.5}
# For each element of the cache, by the same layouts.
CACHE_BITS = {"f16": 16.0, "q8_0": 8.5, "q4_0": 4.5}


class Latent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Attention that caches one compressed vector for all heads (DeepSeek's MLA): the dimensions of its parts."""

    query: int  # rank of the compressed queries
    cached: int  # rank of what is cached
    rope: int  # cached beside it, for positions
    plain: int  # of a head's key, without positions
    value: int  # of a head's value


class Architecture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the size of weights and cache follows from. `feed_forward` is of the layers that have no experts."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    feed_forward: int
    vocab: int
    context: int  # the longest that it was made for
    tied: bool = False  # one matrix for input and output tokens
    experts: int = 0  # in each layer but the first `dense_layers`
    experts_used: int = 0  # of them, for one token
    experts_shared: int = 0  # besides, for every token
    expert_feed_forward: int = 0
    dense_layers: int = 0
    latent: Latent | None = None

    @property
    def parameters(self) -> int:
        """All weights but norms and biases, which are a thousandth."""
        routed = self.layers - self.dense_layers if self.experts else 0
        experts = self.experts + self.experts_shared
        routed_layer = self.hidden * (3 * self.expert_feed_forward * experts + self.experts)
        plain_layer = 3 * self.hidden * self.feed_forward
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        return (
            embeddings + self.layers * self._attention() + routed * routed_layer + (self.layers - routed) * plain_layer
        )

    @property
    def cached_per_token(self) -> int:
        """Elements, over all layers: keys and values of every key-value head, or one compressed vector."""
        if self.latent:
            return self.layers * (self.latent.cached + self.latent.rope)
        return self.layers * 2 * self.kv_heads * self.head_dim

    def _attention(self) -> int:
        if part := self.latent:
            queries = self.hidden * part.query + part.query * self.heads * (part.plain + part.rope)
            cached = self.hidden * (part.cached + part.rope) + part.cached * self.heads * (part.plain + part.value)
            return queries + cached + self.heads * part.value * self.hidden
        return 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)


@dataclass(frozen=True)
class Term:
    """A part of the memory, how it was reckoned, and where that comes from."""

    name: str
    bytes: int
    how: str
    source: str


@dataclass(frozen=True)
class Overhead:
    """What an engine takes besides weights and cache: at all, for each slot, and for a batch of so many tokens.

    Each thread reserves a stack besides, which is hardly used: it counts where a limit is on addresses, not on memory.
    """

    process: int
    per_slot: int
    batch_tokens: int
    source: str
    threads: int = 0
    threads_per_slot: int = 0

    def threads_for(self, slots: int) -> int:
        return self.threads + slots * self.threads_per_slot

    def terms(self, model: Architecture, slots: int) -> tuple[Term, ...]:
        width = model.vocab + 4 * model.hidden + 2 * max(model.feed_forward, model.expert_feed_forward)
        return (
            Term("process", self.process + slots * self.per_slot, f"fixed, and {slots} slots", self.source),
            Term(
                "batch", 4 * self.batch_tokens * width, f"{self.batch_tokens} tokens x {width:,} x 4 bytes", self.source
            ),
        )


ON_CPU = Overhead(
    64 * MEBIBYTE, 3 * MEBIBYTE // 2, 64, "measured: make proof, part memory", threads=20, threads_per_slot=2
)
"""Of llama.cpp in a worker of ours."""
ON_GPU = Overhead(1024 * MEBIBYTE, 16 * MEBIBYTE, 512, "an allowance, not measured")
"""Of any engine on a GPU: its context and libraries, and the workspace of a batch."""


def weights_of(model: Architecture, quantisation: str) -> Term:
    """Of a model that is not at hand. Raises `KeyError` for a quantisation that is not in `WEIGHT_BITS`."""
    bits = WEIGHT_BITS[quantisation]
    how = f"{model.parameters / 1e9:.2f} billion x {bits:g} bits"
    return Term("weights", round(model.parameters * bits / 8), how, "the architecture, and ggml's block sizes")


def cache_of(model: Architecture, context: int, slots: int, kind: str) -> Term:
    """Raises `KeyError` for a kind that is not in `CACHE_BITS`."""
    elements, bits = model.cached_per_token, CACHE_BITS[kind]
    size = round(slots * context * elements * bits / 8)
    how = f"{slots} slots x {context:,} tokens x {elements:,} x {bits:g} bits"
    return Term("cache", size, how, "the architecture: layers x key-value heads x head size x 2")


def needs(
    model: Architecture, weights: Term, overhead: Overhead, *, context: int, slots: int, cache: str
) -> tuple[Term, ...]:
    """What serving takes, in all its terms."""
    return (weights, cache_of(model, context, slots, cache), *overhead.terms(model, slots))


def total(terms: Sequence[Term]) -> int:
    return sum(term.bytes for term in terms)


def longest_context(
    model: Architecture, weights: Term, overhead: Overhead, *, slots: int, cache: str, budget: int
) -> int:
    """Tokens for each slot that fit into `budget` bytes, no more than the model was made for; 0 where nothing does."""
    fixed = total(needs(model, weights, overhead, context=0, slots=slots, cache=cache))
    per_token = slots * model.cached_per_token * CACHE_BITS[cache] / 8
    if fixed > budget:
        return 0
    fitting = int((budget - fixed) / per_token)
    return model.context if fitting >= model.context else fitting // CONTEXT_STEP * CONTEXT_STEP
