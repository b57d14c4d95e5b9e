"""The forward pass of a Llama in plain PyTorch, over a cache of pages: what stands in for a library's CUDA kernels."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from inference.exllama.settings import PAGE_TOKENS

Linear: TypeAlias = Callable[[Any, str], Any]


class Llama:
    """Of a folder's weights, whose embeddings are its head, too; in float32."""

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file

        config = json.loads((folder / "config.json").read_text())
        self.layers, self.key_heads = config["num_hidden_layers"], config["num_key_value_heads"]
        self.width = config["head_dim"]
        self._epsilon, self._theta = config["rms_norm_eps"], config["rope_theta"]
        self._weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}

    def forward(self, ids: Any, keys: Sequence[Any], values: Sequence[Any], table: Any, lengths: Any) -> Any:
        """What `logits` are made of, for `ids` (batch, tokens), whose keys and values go into the cache.

        A layer's `keys` and `values` are of (pages, 256, heads, width) numbers; `table` has each sequence's pages, and
        `lengths` its tokens in them.
        """
        import torch

        hidden = torch.nn.functional.embedding(ids, self._weights["model.embed_tokens.weight"])
        for layer in range(self.layers):
            hidden = self._layer(layer, hidden, (keys[layer], values[layer]), table, lengths)
        return hidden

    def logits(self, hidden: Any) -> Any:
        """(batch, tokens, vocabulary)."""
        return self._norm(hidden, "model.norm") @ self._weights["model.embed_tokens.weight"].T

    def linear(self, x: Any, name: str) -> Any:
        """`name` is the module's in the folder."""
        return x @ self._weights[f"{name}.weight"].T

    def unload(self) -> None:
        self._weights.clear()

    def _norm(self, x: Any, name: str) -> Any:
        spread = x.pow(2).mean(-1, keepdim=True) + self._epsilon
        return x * spread.rsqrt() * self._weights[f"{name}.weight"]

    def _layer(self, layer: int, hidden: Any, cache: tuple[Any, Any], table: Any, lengths: Any) -> Any:
        import torch

        prefix = f"model.layers.{layer}"

        def linear(x: Any, name: str) -> Any:
            return self.linear(x, f"{prefix}.{name}")

        x = self._norm(hidden, f"{prefix}.input_layernorm")
        hidden = hidden + linear(self._attend(x, linear, cache, table, lengths), "self_attn.o_proj")
        x = self._norm(hidden, f"{prefix}.post_attention_layernorm")
        gate = torch.nn.functional.silu(linear(x, "mlp.gate_proj"))
        return hidden + linear(gate * linear(x, "mlp.up_proj"), "mlp.down_proj")

    def _attend(self, x: Any, linear: Linear, cache: tuple[Any, Any], table: Any, lengths: Any) -> Any:
        import torch

        from inference.exllama.paged import flash_attn_with_kvcache

        batch, queries, _ = x.shape
        places = lengths[:, None] + torch.arange(queries)
        q, k, v = (linear(x, f"self_attn.{part}_proj").view(batch, queries, -1, self.width) for part in "qkv")
        size = (-1, PAGE_TOKENS, self.key_heads, self.width)
        attended = flash_attn_with_kvcache(
            self._turned(q, places),
            cache[0].view(size),
            cache[1].view(size),
            self._turned(k, places),
            v,
            cache_seqlens=lengths,
            block_table=table,
            softmax_scale=1 / math.sqrt(self.width),
        )
        return attended.reshape(batch, queries, -1)

    def _turned(self, x: Any, places: Any) -> Any:
        import torch

        half = self.width // 2
        speeds = self._theta ** (-torch.arange(half) / half)
        angles = (places[..., None] * speeds)[:, :, None]
        low, high = x[..., :half], x[..., half:]
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)
