"""Core: the headers of a folder of safetensors: what `config.json` says of the model, and how large its tensors are.

The layout is that of safetensors' README: eight bytes of length, a JSON object, the tensors. Never a pickle.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from inference.errors import ModelMissing
from inference.fitting import Architecture, Latent

MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
MAX_CONFIG_BYTES = 1 << 20
_METADATA = "__metadata__"


class _Tensor(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class _Config(msgspec.Struct, frozen=True):
    """Of a `config.json`, by the names that transformers gives its figures."""

    num_hidden_layers: int
    num_attention_heads: int
    hidden_size: int
    vocab_size: int
    max_position_embeddings: int
    intermediate_size: int = 0
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    tie_word_embeddings: bool = False
    num_experts: int = 0
    num_local_experts: int = 0
    n_routed_experts: int = 0
    num_experts_per_tok: int = 0
    n_shared_experts: int = 0
    moe_intermediate_size: int = 0
    first_k_dense_replace: int = 0
    kv_lora_rank: int | None = None
    q_lora_rank: int | None = None
    qk_rope_head_dim: int = 0
    qk_nope_head_dim: int = 0
    v_head_dim: int = 0


def read_config(text: bytes) -> Architecture:
    """Raises `ModelMissing` for what is no `config.json` of a language model."""
    try:
        said = msgspec.json.decode(text, type=_Config)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ModelMissing("config.json is not that of a language model with safetensors") from None
    figures = [value for value in msgspec.structs.astuple(said) if isinstance(value, int)]
    if min(figures) < 0 or max(figures) > 1 << 32 or not said.num_attention_heads:
        raise ModelMissing("config.json has figures that cannot be")
    latent = None
    if said.kv_lora_rank:
        latent = Latent(
            query=said.q_lora_rank or 0,
            cached=said.kv_lora_rank,
            rope=said.qk_rope_head_dim,
            plain=said.qk_nope_head_dim,
            value=said.v_head_dim,
        )
    return Architecture(
        layers=said.num_hidden_layers,
        heads=said.num_attention_heads,
        kv_heads=said.num_key_value_heads or said.num_attention_heads,
        head_dim=said.head_dim or said.hidden_size // said.num_attention_heads,
        hidden=said.hidden_size,
        feed_forward=said.intermediate_size,
        vocab=said.vocab_size,
        context=said.max_position_embeddings,
        tied=said.tie_word_embeddings,
        experts=said.num_experts or said.num_local_experts or said.n_routed_experts,
        experts_used=said.num_experts_per_tok,
        experts_shared=said.n_shared_experts,
        expert_feed_forward=said.moe_intermediate_size or said.intermediate_size,
        dense_layers=said.first_k_dense_replace,
        latent=latent,
    )


def read_tensors(header: bytes, file_bytes: int) -> int:
    """The tensors' bytes of one file, of which `header` is the JSON. Raises `ModelMissing` where that cannot be."""
    try:
        said: dict[str, Any] = msgspec.json.decode(header, type=dict[str, Any])
        tensors = [msgspec.convert(entry, _Tensor) for name, entry in said.items() if name != _METADATA]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ModelMissing("its header is not that of safetensors") from None
    room = file_bytes - len(header) - 8
    for tensor in tensors:
        begin, end = tensor.data_offsets
        if not 0 <= begin <= end <= room or min(tensor.shape, default=0) < 0 or math.prod(tensor.shape) > 8 * room + 8:
            raise ModelMissing("the file is shorter than its tensors: it is not whole")
    return sum(tensor.data_offsets[1] - tensor.data_offsets[0] for tensor in tensors)
