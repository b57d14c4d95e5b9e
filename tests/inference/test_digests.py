from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from inference.digests import file_digest


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, kept = tmp_path / "weights", tmp_path / "cache" / "digests.json"
    weights.write_text("one")
    read: list[object] = []
    digest = hashlib.file_digest

    def reads(file: Any, name: str) -> Any:
        read.append(file)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", reads)
    for text in ("one", "other"):
        weights.write_text(text)
        for _ in range(2):
            assert file_digest(weights, kept) == hashlib.sha256(text.encode()).hexdigest()
    assert len(read) == 2


@pytest.mark.parametrize("found", ["", "[]", '{"a": 1}', "\0"])
def test_what_was_kept_may_be_damaged(tmp_path: Path, found: str) -> None:
    weights, kept = tmp_path / "weights", tmp_path / "digests.json"
    weights.write_text("one")
    kept.write_text(found)
    assert file_digest(weights, kept) == hashlib.sha256(b"one").hexdigest()


def test_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "weights").write_text("one")
    kept = tmp_path / "file" / "digests.json"
    assert file_digest(tmp_path / "weights", kept) == hashlib.sha256(b"one").hexdigest()
