"""The committed code is what the committed source compiles to."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from javascript import NODE, needs_packages

import chain.contract
from chain.contract import cells

CONTRACT = Path(chain.contract.__file__).parent
SANDBOX = Path(__file__).parent / "sandbox"
INTEROP = Path(__file__).parent.parent / "interop"


@needs_packages(CONTRACT)
def test_recompiling_gives_the_same_bytes(tmp_path: Path) -> None:
    command = [str(NODE), str(CONTRACT / "compile.mjs"), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    for name in ("channel.boc", "channel.hash"):
        assert (tmp_path / name).read_bytes() == (CONTRACT / name).read_bytes()


@pytest.mark.parametrize("folder", [CONTRACT, SANDBOX, INTEROP], ids=["compiler", "sandbox", "interop"])
def test_what_node_runs_is_pinned_exactly_and_names_no_registry(folder: Path) -> None:
    lock = json.loads((folder / "package-lock.json").read_text())["packages"]
    manifest = json.loads((folder / "package.json").read_text())
    for name, wanted in {**manifest.get("dependencies", {}), **manifest.get("devDependencies", {})}.items():
        assert lock[f"node_modules/{name}"]["version"] == wanted
    for place, package in lock.items():
        assert "resolved" not in package
        assert not place or package["integrity"].startswith("sha512-")


def test_the_smallest_deposit_is_the_contracts() -> None:
    source = (CONTRACT / "channel.tolk").read_text()
    assert f'const MIN_DEPOSIT = ton("{cells.MIN_DEPOSIT_NANO / 10**9}")' in source
