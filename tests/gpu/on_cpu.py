"""The real ExLlamaV2 without a GPU: its dynamic generator, page table, tokenizer and C++ sampler run as they are.

What is ours here is what needs CUDA: the forward pass of a Llama, in plain PyTorch over a cache of the same pages, with
the attention of `inference.exllama.paged`. The sampler is compiled from the library's own sources, in a minute.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from folders import embedded_folder

from inference.engine import Engine
from inference.exllama.engine import open_exllama
from inference.exllama.process import open_generator
from inference.exllama.settings import ExLlama
from inference.models import embedded_model

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


def unavailable() -> str:
    """Why this cannot be run here; empty if it can."""
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        return f"{', '.join(missing)} is not installed"
    return "" if shutil.which("g++") and shutil.which("ninja") else "there is no g++ or ninja for the sampler"


def compile_sampler(folder: Path) -> None:
    """Compile it, and have the library find it in place of its whole extension."""
    if "exllamav2_ext" in sys.modules:
        return
    from torch.utils.cpp_extension import load

    sources = Path(str(importlib.metadata.distribution("exllamav2").locate_file("exllamav2/exllamav2_ext")))
    written = {f"no_cuda/{header}": "" for header in _CUDA_HEADERS}  # which the sampler names and does not use
    for file, text in {**written, "binding.cpp": _BINDING}.items():
        if not (folder / file).exists():  # or all would be compiled anew
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
    files = (
        "ext_sampling.cpp",
        *(f"cpp/{name}.cpp" for name in ("generator", "sampling", "sampling_avx2", "profiling")),
    )
    sampler = load(
        "exllamav2_ext",
        [str(folder / "binding.cpp"), *(str(sources / name) for name in files)],
        extra_include_paths=[str(folder / "no_cuda"), str(sources)],
        extra_cflags=["-O2"],
        build_directory=str(folder),
        with_cuda=False,
    )
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
    """A Llama's forward pass, where the generator expects one."""

    def __init__(self, config: Any, folder: Path) -> None:
        from safetensors.torch import load_file

        self.config = config
        self._weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}

    def unload(self) -> None:
        self._weights.clear()

    def forward_chunk(
        self, input_ids: Any, attn_params: Any, cache: Cache, preprocess_only: bool = False, **_: Any
    ) -> dict[str, Any]:
        import torch

        hidden = torch.nn.functional.embedding(input_ids, self._weights["model.embed_tokens.weight"])
        for layer in range(self.config.num_hidden_layers):
            hidden = self._layer(layer, hidden, attn_params, cache)
        if preprocess_only:
            return {}
        return {"logits": self._norm(hidden, "model.norm") @ self._weights["model.embed_tokens.weight"].T}

    def _norm(self, x: Any, name: str) -> Any:
        spread = x.pow(2).mean(-1, keepdim=True) + self.config.norm_eps
        return x * spread.rsqrt() * self._weights[f"{name}.weight"]

    def _layer(self, layer: int, hidden: Any, attn_params: Any, cache: Cache) -> Any:
        import torch

        prefix = f"model.layers.{layer}"

        def linear(x: Any, name: str) -> Any:
            return x @ self._weights[f"{prefix}.{name}.weight"].T

        x = self._norm(hidden, f"{prefix}.input_layernorm")
        hidden = hidden + linear(self._attend(layer, x, linear, attn_params, cache), "self_attn.o_proj")
        x = self._norm(hidden, f"{prefix}.post_attention_layernorm")
        gate = torch.nn.functional.silu(linear(x, "mlp.gate_proj"))
        return hidden + linear(gate * linear(x, "mlp.up_proj"), "mlp.down_proj")

    def _attend(self, layer: int, x: Any, linear: Any, attn_params: Any, cache: Cache) -> Any:
        import torch

        from inference.exllama.paged import flash_attn_with_kvcache

        config, (batch, queries, _) = self.config, x.shape
        lengths = attn_params.cache_seqlens
        places = lengths[:, None] + torch.arange(queries)
        turned = {
            part: _rotate(linear(x, f"self_attn.{part}_proj").view(batch, queries, -1, config.head_dim), places, config)
            for part in ("q", "k")
        }
        v = linear(x, "self_attn.v_proj").view(batch, queries, -1, config.head_dim)
        size = (-1, attn_params.page_size, *v.shape[2:])
        attended = flash_attn_with_kvcache(
            turned["q"],
            cache.key_states[layer].view(size),
            cache.value_states[layer].view(size),
            turned["k"],
            v,
            cache_seqlens=lengths,
            block_table=attn_params.block_index,
            softmax_scale=1 / math.sqrt(config.head_dim),
        )
        return attended.reshape(batch, queries, -1)


def _rotate(x: Any, places: Any, config: Any) -> Any:
    import torch

    half = config.head_dim // 2
    speeds = config.rotary_embedding_base ** (-torch.arange(half) / half)
    angles = (places[..., None] * speeds)[:, :, None]
    low, high = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)


def kept() -> Path:
    """The folder of the compiled sampler."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bombyx" / "sampler"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@asynccontextmanager
async def open_on_cpu(folder: Path, *words: str, **settings: Any) -> AsyncIterator[Engine]:
    """The engine as it is, with the embedded model; `folder` is its folder, or becomes it.

    `words` are for `generator_on_cpu.py`.
    """
    if not (folder / "config.json").exists():
        embedded_folder(Path(embedded_model().path), folder)
    given = {"folder": str(folder), "id": "embedded", "family": "smollm", "slots": 2, "context": 512, **settings}
    program = [str(Path(__file__).parent / "generator_on_cpu.py"), *words]
    async with open_exllama(ExLlama(**given), partial(open_generator, program=program)) as engine:
        yield engine


def load(folder: str, settings: Any, context: int) -> tuple[Model, Cache]:
    """In place of `inference.exllama.v2.load`."""
    from exllamav2 import ExLlamaV2Config

    config = ExLlamaV2Config(folder)
    config.max_seq_len = context
    config.max_input_len = settings.chunk_tokens
    config.arch = SimpleNamespace(lm=SimpleNamespace(mrope=False))
    return Model(config, Path(folder)), Cache(config, settings.total_tokens)
