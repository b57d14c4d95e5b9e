"""`make install` on a machine that cannot compile: no compiler to be found, and no GMP headers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INGREDIENTS = ("Makefile", "pyproject.toml", "README.md", "LICENSE", "requirements", "p2p", "inference", "chain", "sim")
TOOLS = ("make", "sh", "sed", "touch")  # all that the Makefile calls beside Python
COMPILERS = ("cc", "gcc", "g++", "c++", "c99", "clang", "clang++", "tcc")
GMP_HEADERS = [*Path("/usr/include").glob("**/gmp.h"), *Path("/usr/local/include").glob("**/gmp.h")]

OUTSIDE_MAKE = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}


def checkout(target: Path) -> None:
    """A copy of what is installed, so that the tree under test stays as it is."""
    target.mkdir()
    for name in INGREDIENTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(ROOT / name, target / name)


def environment_without_compilers(folder: Path) -> dict[str, str]:
    """Ours, but with a PATH of the few tools needed."""
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, f"{tool} is needed to install"
        (folder / tool).symlink_to(found)
    assert not [compiler for compiler in COMPILERS if shutil.which(compiler, path=str(folder))]
    nowhere = str(folder / "nowhere")
    return OUTSIDE_MAKE | {"PATH": str(folder), "CC": nowhere, "CXX": nowhere, "C_INCLUDE_PATH": nowhere}


def with_headers_hidden(command: list[str]) -> list[str]:
    """`command` in a mount namespace where GMP's headers are empty; as it is where we may not make one."""
    unshare, mount = shutil.which("unshare"), shutil.which("mount")
    if not unshare or not mount:
        return command
    hidden = [unshare, "--mount", "sh", "-ec"]
    hide = "".join(f"{mount} --bind /dev/null {header}; " for header in GMP_HEADERS)
    if subprocess.run([*hidden, f"{hide}:"], capture_output=True).returncode:
        return command
    return [*hidden, f'{hide}exec "$@"', "sh", *command]


def no_index_answered(said: str) -> bool:
    """Whether pip failed because it reached no index at all: lost connections, and so not one release on offer."""
    return "connection broken by" in said and "(from versions: none)" in said


@pytest.mark.slow
def test_install_needs_no_compiler(tmp_path: Path) -> None:
    checkout(tmp_path / "tree")
    env = environment_without_compilers(tmp_path / "bin")
    make = with_headers_hidden(["make", "install", f"PYTHON={sys.executable}"])
    first = subprocess.run(make, cwd=tmp_path / "tree", env=env, capture_output=True, text=True)
    if first.returncode and no_index_answered(first.stderr):
        pytest.skip("no package index can be reached from here")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "Installing the dependencies" in first.stdout

    use = "from importlib import metadata; print(metadata.version('bombyx')); import libp2p, pytoniq, tonpy, xllamacpp"
    python = tmp_path / "tree" / ".venv" / "bin" / "python"
    used = subprocess.run([python, "-c", use], cwd=tmp_path, env=env, check=True, capture_output=True, text=True)
    assert used.stdout == "0.1.0\n"

    again = subprocess.run(make, cwd=tmp_path / "tree", env=env, check=True, capture_output=True, text=True)
    assert "Installing" not in again.stdout
    shutil.rmtree(tmp_path / "tree")  # half a gigabyte, which pytest would keep for three more runs


@pytest.mark.slow
def test_only_silence_of_the_index_counts_as_offline(tmp_path: Path) -> None:
    def pip(*arguments: str) -> str:
        command = [
            sys.executable,
            "-m",
            "pip",
            "--isolated",
            "--retries",
            "1",
            "download",
            "-d",
            str(tmp_path),
            *arguments,
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode != 0
        return done.stdout + done.stderr

    assert no_index_answered(pip("--index-url", "http://127.0.0.1:9/", "msgspec"))
    assert not no_index_answered(pip("--no-index", "msgspec"))
    assert not no_index_answered("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.")


@pytest.mark.parametrize(
    ("python", "complaint"),
    [
        ("no-such-python", "No 'no-such-python' here."),
        ("{folder}/old", "is Python 3.9.18."),
        ("{folder}/bare", "apt-get install python3-venv"),
    ],
)
def test_unfit_python_is_named_in_one_line(python: str, complaint: str, tmp_path: Path) -> None:
    scripts = {
        "old": 'case "$1" in --version) echo Python 3.9.18 ;; esac; exit 1',
        "bare": 'case "$2" in *ensurepip*) exit 1 ;; esac',
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "run.txt").touch()
    chosen = f"PYTHON={python.format(folder=tmp_path)}"
    command = ["make", "install", chosen]
    done = subprocess.run(command, cwd=tmp_path, env=OUTSIDE_MAKE, capture_output=True, text=True)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if not line.startswith("make:")]
    assert len(said) == 1
    assert complaint in said[0]
