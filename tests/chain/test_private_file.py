"""Small secret files: private, whole or absent, whatever happens while they are written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from chain import private_file

# Writes, and is killed by itself as it calls `sys.argv[2]` of the module `os` or of a `Path`.
CRASHES = """
import os, pathlib, sys
from chain import private_file
path, action, place = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def die(*args, **kwargs):
    os.kill(os.getpid(), 9)
setattr(pathlib.Path if place in ("hardlink_to", "replace") else os, place, die)
getattr(private_file, action)(path, b"new" * 1000)
"""


def test_what_was_written_is_read_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    private_file.write_new(path, b"old")
    private_file.replace(path, b"new")
    assert private_file.read(path, 3) == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    private_file.write_new(path, b"old")
    with pytest.raises(FileExistsError):
        private_file.write_new(path, b"new")
    assert private_file.read(path, 3) == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
def test_a_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    private_file.write_new(path, b"old")
    path.chmod(mode)
    with pytest.raises(PermissionError, match="chmod 600"):
        private_file.read(path, 3)


def test_what_is_no_small_file_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    private_file.write_new(path, b"four")
    with pytest.raises(OSError, match="larger than 3 bytes"):
        private_file.read(path, 3)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(OSError, match="not a file"):
        private_file.read(tmp_path / "pipe", 3)


@pytest.mark.parametrize("place", ["fsync", "hardlink_to", "unlink"])
def test_a_crash_while_a_file_is_made_leaves_it_whole_or_absent(tmp_path: Path, place: str) -> None:
    path = tmp_path / "secret"
    killed = subprocess.run([sys.executable, "-c", CRASHES, path, "write_new", place], check=False)
    assert killed.returncode == -9
    assert path.exists() == (place == "unlink")
    if path.exists():
        assert private_file.read(path, 5000) == b"new" * 1000
    assert {stat.S_IMODE(left.stat().st_mode) for left in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_a_crash_while_a_file_is_replaced_leaves_the_old_one(tmp_path: Path, place: str) -> None:
    path = tmp_path / "secret"
    private_file.write_new(path, b"old")
    killed = subprocess.run([sys.executable, "-c", CRASHES, path, "replace", place], check=False)
    assert killed.returncode == -9
    assert private_file.read(path, 5000) == b"old"
