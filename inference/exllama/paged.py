"""Attention over a paged cache in PyTorch, for machines where flash-attn cannot be had; it has no wheels for most.

ExLlamaV2's batched generator asks flash-attn for one function, `flash_attn_with_kvcache`. This gives the same results
and reads the cache about three times as often: it copies each sequence's pages into a row before it looks at them.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from typing import Any

import torch

_VERSION = "2.8.3"  # of flash-attn, whose signature this follows
_FEW_QUERIES = 16  # beyond, rows of scores for all heads would be large


def flash_attn_with_kvcache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: torch.Tensor | None = None,
    v: torch.Tensor | None = None,
    *,
    cache_seqlens: torch.Tensor,
    block_table: torch.Tensor,
    softmax_scale: float,
    causal: bool = True,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
) -> torch.Tensor:
    """Attend from `q` (batch, queries, heads, width) to the pages (page, 256, kv heads, width) of `block_table`.

    Where `k` and `v` (batch, queries, kv heads, width) are given they are first put into the cache behind the
    `cache_seqlens` tokens that it has; else these include them. The last query is the last token. Returns q's shape.
    """
    assert causal
    lengths = cache_seqlens.long()
    queries = q.shape[1]
    if k is not None:
        assert v is not None
        _store(k_cache, v_cache, k, v, lengths, block_table.long())
        lengths = lengths + queries
    keys, values = (_rows(cache, block_table.long(), lengths) for cache in (k_cache, v_cache))
    last = lengths[:, None] - queries + torch.arange(queries, device=q.device)
    seen = _seen(last, keys.shape[2], window_size[0])
    attend = _few if queries <= _FEW_QUERIES or softcap else _many
    return attend(q.transpose(1, 2), keys, values, seen, softmax_scale, softcap).transpose(1, 2).contiguous()


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    softmax_scale: float,
    causal: bool = True,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
) -> torch.Tensor:
    """The same without a cache: all are (batch, tokens, heads, width), and the last query is the last key."""
    assert causal
    queries, length = q.shape[1], k.shape[1]
    last = torch.arange(length - queries, length, device=q.device)[None]
    seen = _seen(last, length, window_size[0])
    attend = _few if softcap else _many
    keys, values = k.transpose(1, 2), v.transpose(1, 2)
    return attend(q.transpose(1, 2), keys, values, seen, softmax_scale, softcap).transpose(1, 2).contiguous()


def flash_attn_varlen_func(*_: Any, **__: Any) -> torch.Tensor:
    """For pictures, which are not served here."""
    raise NotImplementedError("sequences of several lengths in one row are flash-attn's alone")


def offer() -> None:
    """Stand in for flash-attn, unless it is installed. Before ExLlamaV2 is imported, which looks for both names."""
    if find_spec("flash_attn") is not None:
        return
    module, kernels = (module_from_spec(ModuleSpec(name, None)) for name in ("flash_attn", "flash_attn_2_cuda"))
    module.__dict__["__version__"] = _VERSION
    for function in (flash_attn_with_kvcache, flash_attn_func, flash_attn_varlen_func):
        setattr(module, function.__name__, function)
    sys.modules |= {"flash_attn": module, "flash_attn_2_cuda": kernels}


def _store(
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: torch.Tensor,
    pages: torch.Tensor,
) -> None:
    size = k_cache.shape[1]
    positions = lengths[:, None] + torch.arange(k.shape[1], device=k.device)
    page = pages.gather(1, positions // size)
    k_cache[page, positions % size] = k
    v_cache[page, positions % size] = v


def _rows(cache: torch.Tensor, pages: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Each sequence's pages in a row: (batch, kv heads, tokens, width).

    What is beyond its end is another's or nobody's, and may be no number, which no weight of 0 would hide.
    """
    batch, count = pages.shape
    _, size, heads, width = cache.shape
    rows = cache[pages].reshape(batch, count * size, heads, width)
    beyond = torch.arange(count * size, device=cache.device) >= lengths[:, None]
    return rows.masked_fill_(beyond[..., None, None], 0).transpose(1, 2)


def _seen(last: torch.Tensor, length: int, window: int) -> torch.Tensor:
    """Which tokens each query sees: (batch, 1, queries, tokens). `last` is the last of them, for each query."""
    token = torch.arange(length, device=last.device)
    seen = token <= last[..., None]
    if window >= 0:
        seen = seen & (token >= last[..., None] - window)
    return seen[:, None]


def _few(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor, scale: float, softcap: float
) -> torch.Tensor:
    """Heads that share keys are taken together, so that keys and values are read once."""
    batch, heads, queries, width = q.shape
    shared = heads // k.shape[1]
    grouped = q.reshape(batch, k.shape[1], shared * queries, width)
    scores = ((grouped * scale) @ k.transpose(2, 3)).float()  # scaled first: float16 ends at 65,504
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    hidden = ~seen.expand(batch, shared, queries, -1).reshape(batch, 1, shared * queries, -1)
    chances = torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1).to(q.dtype)
    return (chances @ v).reshape(batch, heads, queries, width)


def _many(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor, scale: float, _softcap: float
) -> torch.Tensor:
    shared = q.shape[1] // k.shape[1]
    keys, values = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    return torch.nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=seen, scale=scale)
