"""Which engine a provider's settings mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.exllama.settings import ExLlama
from p2p.arguments import overrides, parse
from p2p.config import load
from p2p.errors import LocalError
from p2p.wiring import provided_spec


def spec(*flags: str, environment: dict[str, str] | None = None) -> object:
    options = parse(["provide", "--engine", "exllama", *flags])
    return provided_spec(load(None, environment or {}, overrides(options)).provide)


def test_exllama_by_its_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "Qwen2.5-7B-exl2"
    assert spec("--model", str(folder)) == ExLlama(
        folder=str(folder), id="Qwen2.5-7B-exl2", family="qwen", slots=2, context=2048
    )


def test_exllama_by_flags_and_environment(tmp_path: Path) -> None:
    flags = [
        "--exllama-sold-as",
        "a/b=c",
        "--exllama-cache",
        "q6",
        "--exllama-draft",
        "ngram",
        "--exllama-version",
        "3",
    ]
    lists = ["--exllama-lora", "/l", "--exllama-banned", "x", "--exllama-banned", "y"]
    environment = {"BOMBYX_PROVIDE_EXLLAMA_GPU_SPLIT_GIB": "10,12.5"}
    assert spec("--model", str(tmp_path), *flags, *lists, environment=environment) == ExLlama(
        folder=str(tmp_path),
        id="a/b",
        family="c",
        version=3,
        slots=2,
        context=2048,
        cache="q6",
        draft="ngram",
        lora_folders=("/l",),
        banned=("x", "y"),
        gpu_split_gib=(10, 12.5),
    )


def test_exllama_without_a_model() -> None:
    with pytest.raises(LocalError, match="which model"):
        spec()
