"""The committed code is what the committed source compiles to."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import chain.contract
from chain.contract import cells

CONTRACT = Path(chain.contract.__file__).parent
NODE = shutil.which("node")
COMPILER = CONTRACT / "node_modules" / "@ton" / "tolk-js" / "package.json"


@pytest.mark.skipif(NODE is None, reason="no node: the contract cannot be recompiled here")
@pytest.mark.skipif(not COMPILER.exists(), reason="no compiler: run `npm ci` in chain/contract to recompile here")
def test_recompiling_gives_the_same_bytes(tmp_path: Path) -> None:
    command = [str(NODE), str(CONTRACT / "compile.mjs"), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    for name in ("channel.boc", "channel.hash"):
        assert (tmp_path / name).read_bytes() == (CONTRACT / name).read_bytes()


def test_the_compiler_is_pinned_exactly_and_names_no_registry() -> None:
    lock = json.loads((CONTRACT / "package-lock.json").read_text())
    wanted = json.loads((CONTRACT / "package.json").read_text())["devDependencies"]["@ton/tolk-js"]
    installed = lock["packages"]["node_modules/@ton/tolk-js"]
    assert installed["version"] == wanted
    assert installed["integrity"].startswith("sha512-")
    assert not any("resolved" in package for package in lock["packages"].values())


def test_the_smallest_deposit_is_the_contracts() -> None:
    source = (CONTRACT / "channel.tolk").read_text()
    assert f'const MIN_DEPOSIT = ton("{cells.MIN_DEPOSIT_NANO / 10**9}")' in source
