"""What a user says of a model that ExLlama is to serve."""

from __future__ import annotations

from typing import Literal

import msgspec

QUERIES = 8  # tokens of one answer that the generators look at in a turn, at most
PAGE_TOKENS = 256  # the generators' caches come in pages of so many, in version 2 and 3


class ExLlama(msgspec.Struct, frozen=True, kw_only=True, tag="exllama"):
    """What to load and how.

    `folder` holds `config.json`, `tokenizer.json`, the weights as safetensors and, for chats, a Jinja template.
    `context` is in tokens for each slot; `cache_tokens` are for all of them, and 0 is enough for all at their longest:
    with fewer, long answers wait for each other. `draft` is "", "ngram" or the folder of a small model with the same
    tokenizer. `gpu_split_gib` is how much goes on each GPU; empty: as it fits. Nothing in `banned` is ever said,
    whatever its case.
    """

    folder: str
    id: str
    family: str
    version: Literal[2, 3] = 2
    slots: int = 4
    context: int = 4096
    cache: Literal["fp16", "q8", "q6", "q4"] = "fp16"
    cache_tokens: int = 0
    chunk_tokens: int = 2048  # of a prompt that are worked on at once: the longest wait for the others' next token
    draft: str = ""
    draft_tokens: int = 4  # guessed ahead at a time
    lora_folders: tuple[str, ...] = ()
    gpu_split_gib: tuple[float, ...] = ()
    banned: tuple[str, ...] = ()

    @property
    def speculation_tokens(self) -> int:
        """How many tokens beyond an answer's end may be worked on."""
        return self.draft_tokens if self.draft else 0

    @property
    def total_tokens(self) -> int:
        """The cache's size: whole pages."""
        spare = 1 if self.version == 3 else 0  # it keeps one token free in each answer's pages, and one in all
        slot = _pages(self.sequence_tokens + spare)
        wanted = _pages(self.cache_tokens) if self.cache_tokens else self.slots * slot
        return max(slot, wanted, _pages(QUERIES * self.slots))

    @property
    def sequence_tokens(self) -> int:
        """How many a prompt and its answer may have, with what is guessed ahead."""
        return self.context + self.speculation_tokens

    @property
    def chunk(self) -> int:
        """How many of a prompt's tokens are worked on at once: of a small cache no more than it has."""
        return min(self.chunk_tokens, self.total_tokens)


def _pages(tokens: int) -> int:
    return -(-tokens // PAGE_TOKENS) * PAGE_TOKENS
