"""What our tests run on Node, which `make test` installs, with the packages of each folder that has JavaScript."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

NODE = Path(sys.executable).with_name("node")


def unavailable(folder: Path) -> str:
    """Why a program that needs the packages of `folder` cannot run here; empty where it can."""
    if not NODE.exists():
        return "no Node here: `make test` installs it"
    if not (folder / "node_modules" / ".package-lock.json").exists():  # npm writes it last
        return f"no packages in {folder.name}: `make test` installs them where npm's registry can be reached"
    return ""


def needs_packages(folder: Path) -> pytest.MarkDecorator:
    """Skips a test, and says why, where it cannot run."""
    reason = unavailable(folder)
    return pytest.mark.skipif(bool(reason), reason=reason)
