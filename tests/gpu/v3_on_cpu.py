"""The real ExLlamaV3 without a GPU: all of it that is written in Python runs as it is, from its config to its sampler.

So do its C++ functions that need no CUDA, compiled from the library's own sources: what finds a string, a prefix and a
repetition, and what puts a batch together. What is ours here is what needs CUDA: the forward pass (`llama`) over the
library's own cache, in float32, and with it what would load the modules; the last step of the sampler, which is one
kernel; and what moves pages when it tidies up. Pinned memory is plain memory, and Triton's kernels are never run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import compiled
from llama import Llama

from inference.exllama.backend import Backend
from inference.exllama.orders import Open

_NEEDED = ("torch", "exllamav3", "tokenizers", "llguidance", "safetensors", "numpy", "rich", "pydantic")
_SOURCES = ("generator/strings.cpp", "generator/staging.cpp", "sam.cpp")
_BINDING = """
#include <torch/extension.h>
#include "generator/strings.h"
#include "generator/staging.h"
#include "sam.h"
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
    #include "sam_bc.h"
    m.def("partial_strings_match", &partial_strings_match);
    m.def("count_match_tensor", &count_match_tensor);
    m.def("generator_stage_decode", &generator_stage_decode);
}
"""
_NAMED_ALONE = ("silu_mul", "gelu_mul", "silu_oai_mul", "relu2_mul", "relu_mul")  # kernels in a table, never run here
_GREEDY, _FILTERED, _TOP_P = 0, 3, 2  # of the fused sampler's modes and filters


def unavailable() -> str:
    """Why this cannot be run here; empty if it can."""
    return compiled.unavailable(*_NEEDED)


def offer_extension() -> None:
    """Have the library find what it needs of its extension, and import it."""
    if "exllamav3_ext" in sys.modules:
        return
    extension = compiled.compiled("exllamav3", _SOURCES, _BINDING)
    extension.cache_rotate = rotate_pages
    extension.fused_sampler = draw
    extension.FUSED_SAMPLER_MAX_BLOCKS = extension.FUSED_SAMPLER_HIST_STRIDE = 1
    extension.exl3_moe_cpu_set_memops = lambda _: None
    for name in _NAMED_ALONE:
        setattr(extension, name, None)
    sys.modules["exllamav3_ext"] = extension
    with _without_triton():
        import_module("exllamav3.architecture.architectures")  # else with the first model
        from exllamav3.generator import generator, job
        from exllamav3.model.model import Model
    generator.torch = job.torch = _Unpinned("torch")
    Model._load_autosplit = load_modules
    Model.forward_ls, Model.prefill_ls = forward, prefill


@contextmanager
def _without_triton() -> Iterator[None]:
    """Its decorators are met while the library is imported; PyTorch for the CPU does not bring it."""
    missing = [] if find_spec("triton") else ["triton", "triton.language"]
    sys.modules.update({name: MagicMock() for name in missing})
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


class _Unpinned(ModuleType):
    """PyTorch, as the generator uses it, where there is no GPU to pin memory for, or to wait for."""

    cuda = MagicMock()

    def __getattr__(self, name: str) -> Any:
        import torch

        return getattr(torch, name)

    def empty(self, *shape: Any, pin_memory: bool = False, **rest: Any) -> Any:
        import torch

        return torch.empty(*shape, **rest)

    def zeros(self, *shape: Any, pin_memory: bool = False, **rest: Any) -> Any:
        import torch

        return torch.zeros(*shape, **rest)


def load_modules(model: Any, *_: Any) -> Iterator[None]:
    """In place of `Model._load_autosplit`: the caches' layers as they are, the weights for our forward pass."""
    import torch

    cpu = torch.device("cpu")
    for module in model:
        module.device = cpu
    for attention in model.get_cache_layers():
        for layer in attention.cache_layers:
            layer.alloc(cpu)
            layer.k, layer.v = layer.k.float(), layer.v.float()
    model.llama = Llama(Path(model.config.directory))
    yield


def prefill(model: Any, ids: Any, params: dict[str, Any]) -> Any:
    """In place of `Model.prefill_ls`."""
    layers = [params["cache"].layers[attention.layer_idx, 0] for attention in model.get_cache_layers()]
    keys, values = [layer.k for layer in layers], [layer.v for layer in layers]
    return model.llama.forward(ids, keys, values, params["block_table"], params["cache_seqlens"])


def forward(model: Any, ids: Any, params: dict[str, Any]) -> Any:
    """In place of `Model.forward_ls`."""
    return model.llama.logits(prefill(model, ids, params))


def draw(
    logits: Any,
    mask: Any,
    bits: Any,
    out: Any,
    _workspace: Any,
    size: int,
    inv_temp: float,
    _minp_log: float,
    random: int,
    mode: int,
    filters: int,
    _top_k: int,
    top_p: float,
    inv_temp_filter: float,
    _histogram: Any,
) -> None:
    """In place of the kernel `fused_sampler`, without its top-k and min-p. `out` (batch, 1) becomes the ids."""
    import torch

    scores = logits[:, :size].float()
    if mask is not None:
        scores = scores + mask[:, :size]
    if bits is not None:
        hidden = (bits[..., None] >> torch.arange(32) & 1).flatten(1)[:, :size] == 0
        scores = scores.masked_fill(hidden, float("-inf"))
    if mode != _GREEDY:
        assert mode != _FILTERED or filters == _TOP_P
        if mode == _FILTERED:
            chances, order = (scores * inv_temp_filter).softmax(-1).sort(descending=True)
            beyond = chances.cumsum(-1) - chances >= top_p
            scores = scores.masked_fill(beyond.gather(-1, order.argsort(-1)), float("-inf"))
        uniform = torch.rand(scores.shape, generator=torch.Generator().manual_seed(random))
        scores = scores * inv_temp - (-uniform.log()).log()
    out.copy_(scores.argmax(-1, keepdim=True))


def rotate_pages(cache: Any, order: Any, spare: Any) -> None:
    """In place of the kernel `cache_rotate`: `order` has pairs, each of which a page is copied to and from."""
    for to, source in order.view(-1, 2).tolist():
        (cache[to] if to >= 0 else spare).copy_(cache[source] if source >= 0 else spare)


def open_backend(opening: Open) -> Backend:
    offer_extension()
    from inference.exllama import v3

    return v3.V3(opening.settings, opening.stop)
