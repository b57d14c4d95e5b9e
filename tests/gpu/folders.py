"""Model folders for ExLlama: the embedded model with its weights made whole, and random weights of any size.

How fast a model is does not depend on its weights, so that random ones serve to measure, and nothing large is carried.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf import Gguf

if TYPE_CHECKING:
    from gguf import Array

# Hidden and feed-forward width, layers, heads, and heads of keys: Llama 3.2 1B and Llama 3.1 8B.
SHAPES = {"1B": (2048, 8192, 16, 32, 8), "8B": (4096, 14336, 32, 32, 8)}

_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_SPECIAL = {3, 4}  # kinds of token: control, and the user's own


def embedded_folder(gguf: Path, folder: Path) -> Path:
    """The embedded model as float16 (270 MB). `gguf` is its file."""
    import numpy as np
    from safetensors.numpy import save_file

    read = Gguf(gguf)
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(read)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors = {}
    for name in read.names():
        part = name.removesuffix(".weight").rpartition(".")[2]
        values = read.tensor(name)
        if part in heads:
            values = _rotated_by_halves(values, heads[part])
        tensors[_name(name)] = np.ascontiguousarray(values.astype(np.float16))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write(folder / "config.json", config)
    (folder / "tokenizer.json").write_text(tokenizer_json(read.facts), encoding="utf-8")
    _write(folder / "tokenizer_config.json", _tokenizer_config(read.facts))
    return folder


def random_folder(size: str, like: Path, folder: Path, device: str = "cuda") -> Path:
    """Random float16 weights of a size in `SHAPES`, made on a device, with the tokenizer of another folder."""
    import torch
    from safetensors.torch import save_file as save_torch

    hidden, wide, layers, heads, key_heads = SHAPES[size]
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((like / "config.json").read_text())
    width, vocabulary = hidden // heads, config["vocab_size"]
    config |= {
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": width,
        "tie_word_embeddings": False,
    }
    _write(folder / "config.json", config)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(like / name, folder / name)
    chance = torch.Generator(device).manual_seed(1)

    def drawn(rows: int, columns: int) -> Any:
        return torch.randn(rows, columns, generator=chance, device=device, dtype=torch.float16).mul_(0.02).cpu()

    ones = torch.ones(hidden, dtype=torch.float16)
    shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (key_heads * width, hidden),
        "self_attn.v_proj": (key_heads * width, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (wide, hidden),
        "mlp.up_proj": (wide, hidden),
        "mlp.down_proj": (hidden, wide),
    }
    for layer in range(layers):  # a file for each: an 8B model takes 16 GB, and none of it need be in memory twice
        tensors = {f"model.layers.{layer}.{name}.weight": drawn(*shape) for name, shape in shapes.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{norm}.weight"] = ones.clone()
        save_torch(tensors, folder / f"layer-{layer:02}.safetensors", metadata={"format": "pt"})
    ends = {name: drawn(vocabulary, hidden) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    save_torch({**ends, "model.norm.weight": ones}, folder / "ends.safetensors", metadata={"format": "pt"})
    return folder


def _name(gguf: str) -> str:
    """A tensor's name in a folder."""
    parts = gguf.removesuffix(".weight").split(".")
    name = _TOP[parts[0]] if len(parts) == 1 else f"model.layers.{parts[1]}.{_LAYER[parts[2]]}"
    return f"{name}.weight"


def _rotated_by_halves(weights: Array, heads: int) -> Array:
    """GGUF has the numbers that are rotated together side by side, folders half a head apart."""
    rows, columns = weights.shape
    return weights.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _config(read: Gguf) -> dict[str, Any]:
    facts = read.facts

    def fact(name: str) -> Any:
        return facts[f"llama.{name}"]

    heads = fact("attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": fact("embedding_length"),
        "intermediate_size": fact("feed_forward_length"),
        "num_hidden_layers": fact("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": fact("attention.head_count_kv"),
        "head_dim": fact("embedding_length") // heads,
        "max_position_embeddings": fact("context_length"),
        "rms_norm_eps": fact("attention.layer_norm_rms_epsilon"),
        "rope_theta": fact("rope.freq_base"),
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": "output.weight" not in read.names(),
        "hidden_act": "silu",
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "torch_dtype": "float16",
    }


def tokenizer_json(facts: dict[str, Any]) -> str:
    """A `tokenizer.json`."""
    return json.dumps(_tokenizer(facts), ensure_ascii=False)


def _tokenizer(facts: dict[str, Any]) -> dict[str, Any]:
    tokens, kinds = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": i, "content": tokens[i], **flags} for i, kind in enumerate(kinds) if kind in _SPECIAL]
    by_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, by_bytes]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": facts["tokenizer.ggml.merges"],
        },
    }


def _tokenizer_config(facts: dict[str, Any]) -> dict[str, Any]:
    tokens = facts["tokenizer.ggml.tokens"]
    return {
        "bos_token": tokens[facts["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[facts["tokenizer.ggml.eos_token_id"]],
        "chat_template": facts["tokenizer.chat_template"],
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
