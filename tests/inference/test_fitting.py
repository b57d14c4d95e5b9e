from __future__ import annotations

import json
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import fitting
from inference.catalogue import Known, catalogue
from inference.errors import ModelMissing
from inference.fitting import CACHE_BITS, MEBIBYTE, ON_CPU, WEIGHT_BITS, longest_context, needs, total, weights_of
from inference.gguf_header import read_gguf
from inference.local_models import read_model
from inference.memory import available_memory
from inference.models import embedded_model
from inference.safetensors_header import read_config, read_tensors

# Billions of parameters as those who made the models say it.
SAID = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": 0.135,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 1.71,
    "Qwen/Qwen2.5-7B-Instruct": 7.61,
    "Qwen/Qwen3-4B": 4.0,
    "Qwen/Qwen3-8B": 8.2,
    "Qwen/Qwen3-30B-A3B": 30.5,
    "meta-llama/Llama-3.2-1B-Instruct": 1.23,
    "meta-llama/Meta-Llama-3-8B": 8.03,
    "meta-llama/Meta-Llama-3-70B-Instruct": 70.6,
    "mistralai/Mistral-7B-Instruct-v0.3": 7.25,
    "google/gemma-2-9b-it": 9.24,
    "THUDM/glm-4-9b-chat": 9.4,
    "openai/gpt-oss-20b": 20.9,
    "deepseek-ai/DeepSeek-V3": 671,
}
KNOWN = st.sampled_from(catalogue())


def test_the_figures_of_the_catalogue_give_the_sizes_that_the_models_are_known_by() -> None:
    assert {known.id for known in catalogue()} == SAID.keys()
    for known in catalogue():
        assert known.architecture.parameters / 1e9 == pytest.approx(SAID[known.id], rel=0.01), known.id
        assert known.source


@given(
    known=KNOWN,
    weights=st.sampled_from([*WEIGHT_BITS]),
    cache=st.sampled_from([*CACHE_BITS]),
    slots=st.integers(1, 64),
    budget=st.integers(1, 1 << 41),
)
def test_the_longest_context_fits_and_the_next_does_not(
    known: Known, weights: str, cache: str, slots: int, budget: int
) -> None:
    model = known.architecture
    term = weights_of(model, weights)

    def taken(context: int) -> int:
        return total(needs(model, term, ON_CPU, context=context, slots=slots, cache=cache))

    longest = longest_context(model, term, ON_CPU, slots=slots, cache=cache, budget=budget)
    assert 0 <= longest <= model.context
    if longest:
        assert taken(longest) <= budget + 1
    if longest < model.context:
        assert taken(longest + fitting.CONTEXT_STEP) > budget - 1


def test_a_compressed_cache_counts_once_for_all_heads() -> None:
    deepseek = next(known.architecture for known in catalogue() if known.family == "deepseek")
    assert deepseek.cached_per_token == 61 * (512 + 64)


def test_the_header_of_the_embedded_model_says_what_the_catalogue_says() -> None:
    path = Path(embedded_model().path)
    found = read_model(path)
    assert found.architecture == catalogue()[0].architecture
    assert 0 < path.stat().st_size - found.weights.bytes < 2 * MEBIBYTE  # what is left is the header


def text(value: str | bytes) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(value)) + value


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def gguf(*, tensors: int = 1, shape: tuple[int, ...] = (64, 2), heads: int = 4) -> bytes:
    figures = {"block_count": 2, "attention.head_count": heads, "embedding_length": 64, "context_length": 512}
    pairs = [pair("general.architecture", 8, text("tiny"))]
    pairs += [pair(f"tiny.{name}", 4, struct.pack("<I", value)) for name, value in figures.items()]
    pairs.append(pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + text("a") + text("b")))
    head = b"GGUF" + struct.pack("<IQQ", 3, tensors, len(pairs)) + b"".join(pairs)
    tensor = text("token_embd.weight") + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
    return head + tensor + struct.pack("<IQ", 0, 0)


def test_a_small_gguf_file_is_read() -> None:
    header = gguf()
    model, size = read_gguf(memoryview(header), len(header) + 512)
    assert (model.layers, model.head_dim, model.kv_heads, model.vocab, model.tied, size) == (2, 16, 4, 2, True, 512)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"", "cut off"),
        (b"PK\x03\x04 a pickle", "not a GGUF"),
        (b"GGUF" + struct.pack("<I", 1), "version"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60), "cut off"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair("a", 9, struct.pack("<IQ", 4, 1 << 62)), "cut off"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair("a", 9, struct.pack("<IQ", 9, 1 << 62)), "unknown kind"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 50), "too long"),
        (gguf(heads=0), "no heads"),
        (gguf(tensors=2), "cut off"),
        (gguf(shape=(1 << 40, 1 << 40)), "larger than can be"),
        (gguf(shape=(64, 64)), "not whole"),
        (gguf(shape=(1, 1, 1, 1, 1)), "four dimensions"),
    ],
)
def test_a_header_that_lies_is_refused(header: bytes, why: str) -> None:
    with pytest.raises(ModelMissing, match=why):
        read_gguf(memoryview(header), len(header) + 512)


@given(at=st.integers(0, len(gguf()) - 1), bits=st.integers(1, 255), cut=st.integers(0, 40))
def test_a_mutated_gguf_header_is_read_or_refused(at: int, bits: int, cut: int) -> None:
    header = bytearray(gguf())
    header[at] ^= bits
    with suppress(ModelMissing):
        read_gguf(memoryview(header)[: len(header) - cut], 1024)


CONFIG = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 64,
    "vocab_size": 100,
    "max_position_embeddings": 512,
}


def folder(path: Path, tensors: object, data: int, config: object = CONFIG) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    header = json.dumps(tensors).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(data))
    return path


def tensor(begin: int, end: int) -> object:
    return {"a": {"dtype": "F16", "shape": [4, 8], "data_offsets": [begin, end]}, "__metadata__": {"format": "pt"}}


def test_a_folder_of_safetensors_is_read(tmp_path: Path) -> None:
    found = read_model(folder(tmp_path / "own", tensor(0, 64), 64))
    assert (found.name, found.weights.bytes, found.architecture.head_dim) == ("own", 64, 16)


def test_a_folder_that_lies_or_has_only_pickles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="not whole"):
        read_model(folder(tmp_path / "short", tensor(0, 64), 63))
    long = folder(tmp_path / "long", {}, 0)
    (long / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62))
    with pytest.raises(ModelMissing, match="lies about its length"):
        read_model(long)
    pickles = folder(tmp_path / "pickles", {}, 0)
    (pickles / "model.safetensors").rename(pickles / "pytorch_model.bin")
    (pickles / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../short/model.safetensors"}}')
    with pytest.raises(ModelMissing, match=r"no \.safetensors"):
        read_model(pickles)
    with pytest.raises(ModelMissing, match=r"config\.json"):
        read_model(folder(tmp_path / "odd", tensor(0, 64), 64, {"num_hidden_layers": "../../etc"}))
    with pytest.raises(ModelMissing, match="cannot be"):
        read_model(folder(tmp_path / "wrong", tensor(0, 64), 64, {**CONFIG, "num_attention_heads": -4}))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (read_config, lambda data: read_tensors(data, 500), lambda data: read_gguf(memoryview(data), 500)):
        with pytest.raises(ModelMissing):
            read(data)


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, content in ({"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n"} | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "room", "by"),
    [
        ({}, 8000 * 1024, "what is free"),
        (
            {
                "proc/self/cgroup": "0::/user/me\n",
                "sys/fs/cgroup/user/me/memory.max": "max\n",
                "sys/fs/cgroup/user/me/memory.current": "5\n",
                "sys/fs/cgroup/user/memory.max": "5000\n",
                "sys/fs/cgroup/user/memory.current": "2000\n",
            },
            3000,
            "a control group",
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,memory:/box\n0::/\n",
                "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "7000\n",
                "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "1000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{(1 << 63) - 4096}\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "9000\n",
            },
            6000,
            "a control group",
        ),
    ],
    ids=["none", "version 2, a limit above", "version 1"],
)
def test_the_memory_of_a_control_group_counts(tmp_path: Path, files: dict[str, str], room: int, by: str) -> None:
    assert available_memory(20, machine(tmp_path, files)) == (room, by)


def test_of_a_limit_on_addresses_what_threads_reserve_is_taken_off(tmp_path: Path) -> None:
    """In a process of its own: such a limit cannot be taken back."""
    code = """
import resource, sys, pathlib
from inference.memory import available_memory
resource.setrlimit(resource.RLIMIT_STACK, (1 << 23, -1))
resource.setrlimit(resource.RLIMIT_DATA, (600 << 20, -1))
print(*available_memory(20, pathlib.Path(sys.argv[1])))
"""
    (machine(tmp_path, {}) / "proc/meminfo").write_text("MemAvailable: 9000000 kB\n")
    command = [sys.executable, "-c", code, str(tmp_path)]
    said = subprocess.run(command, cwd=Path(fitting.__file__).parent.parent, capture_output=True, text=True, check=True)
    assert said.stdout == f"{440 << 20} `ulimit -d`, less 160 MiB that 20 threads reserve\n"


def test_a_system_that_does_not_say_how_much_memory_there_is(tmp_path: Path) -> None:
    assert available_memory(20, tmp_path) is None
