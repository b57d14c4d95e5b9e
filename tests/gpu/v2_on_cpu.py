"""The real ExLlamaV2 without a GPU: its dynamic generator, page table, tokenizer and C++ sampler run as they are.

What is ours here is what needs CUDA: the forward pass (`llama`), over a cache of the same pages. The sampler is
compiled from the library's own sources, in a minute.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import compiled
from llama import Llama

from inference.exllama.backend import Backend
from inference.exllama.orders import Open

_NEEDED = ("torch", "exllamav2", "tokenizers", "llguidance", "safetensors", "numpy")
_CUDA_HEADERS = ("c10/cuda/CUDAGuard.h", "ATen/cuda/CUDAContext.h", "cuda_runtime.h", "cuda_fp16.h")
_BINDING = """
#include <torch/extension.h>
#include "ext_sampling.h"
int count_match(torch::Tensor a, torch::Tensor b, int most) {
    auto pa = a.data_ptr<int64_t>(), pb = b.data_ptr<int64_t>();
    int length = std::min<int>(most, b.size(1)), same = 0;
    while (same < length && pa[same] == pb[same]) same++;
    return same;
}
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
    m.def("apply_rep_penalty", &apply_rep_penalty);
    m.def("sample_basic", &sample_basic);
    m.def("logit_filter_exclusive", &logit_filter_exclusive);
    m.def("fast_fill_cpu_ones_bool", &fast_fill_cpu_ones_bool);
    m.def("fast_fadd_cpu", &fast_fadd_cpu);
    m.def("partial_strings_match", &partial_strings_match);
    m.def("count_match", &count_match);
}
"""
_SOURCES = (
    "ext_sampling.cpp",
    *(f"cpp/{name}.cpp" for name in ("generator", "sampling", "sampling_avx2", "profiling")),
)


def unavailable() -> str:
    """Why this cannot be run here; empty if it can."""
    return compiled.unavailable(*_NEEDED)


def offer_sampler() -> None:
    """Have the library find it in place of its whole extension."""
    if "exllamav2_ext" not in sys.modules:
        sampler = compiled.compiled("exllamav2", _SOURCES, _BINDING, _CUDA_HEADERS)
        sampler.cache_rotate = rotate_pages
        sys.modules["exllamav2_ext"] = sampler


def rotate_pages(cache: Any, order: Any, _: Any) -> None:
    """Of pages in a row, the contents of each to the place before it, and of the first to the last's."""
    cache[order] = cache[order.roll(-1)]


class Cache:
    """Pages for keys and values, as ExLlamaV2Cache has them, in float32."""

    batch_size = 1

    def __init__(self, config: Any, tokens: int) -> None:
        import torch

        self.max_seq_len = tokens
        shape = (1, tokens, config.num_key_value_heads, config.head_dim)
        self.key_states, self.value_states = (
            [torch.zeros(shape) for _ in range(config.num_hidden_layers)] for _ in range(2)
        )

    def all_tensors(self) -> list[Any]:
        return [*self.key_states, *self.value_states]

    def copy_states(self, target: Cache, from_at: int, from_size: int, to_at: int, to_size: int, *_: int) -> None:
        for source, into in zip(self.all_tensors(), target.all_tensors(), strict=True):
            into[:, to_at : to_at + to_size] = source[:, from_at : from_at + from_size]


class Model:
    """A Llama, where the generator expects one."""

    def __init__(self, config: Any, folder: Path) -> None:
        self.config = config
        self._llama = Llama(folder)

    def unload(self) -> None:
        self._llama.unload()

    def forward_chunk(
        self, input_ids: Any, attn_params: Any, cache: Cache, preprocess_only: bool = False, **_: Any
    ) -> dict[str, Any]:
        pages, lengths = attn_params.block_index, attn_params.cache_seqlens
        hidden = self._llama.forward(input_ids, cache.key_states, cache.value_states, pages, lengths)
        return {} if preprocess_only else {"logits": self._llama.logits(hidden)}


def open_backend(opening: Open) -> Backend:
    offer_sampler()
    from inference.exllama import v2

    v2.load = load
    return v2.V2(opening.settings, opening.stop)


def load(folder: str, settings: Any) -> tuple[Model, Cache]:
    """In place of `inference.exllama.v2.load`."""
    from inference.exllama import v2

    config = v2.configured(folder, settings)
    config.max_input_len = min(config.max_input_len, config.max_seq_len)  # as the library does when it loads
    config.arch = SimpleNamespace(lm=SimpleNamespace(mrope=False))
    return Model(config, Path(folder)), Cache(config, settings.total_tokens)
