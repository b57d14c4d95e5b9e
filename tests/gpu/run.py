"""All that needs a GPU, by one command: `make gpu`, or

    PYTHONPATH=. python tests/gpu/run.py [--models embedded,1B,8B] [--rounds N] [--seconds S] [--no-tests]

The embedded model is converted, and random weights of 1B and 8B shape are made on the GPU; tests/gpu and the contract
run, and tokens per second of our worker are measured beside the bare generator's. What came of it is a section of
docs/BENCHMARKS.md. It takes 18 GB of disk and some minutes for each model, and more to compile the kernels first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PAGE = ROOT / "docs" / "BENCHMARKS.md"
sys.path[:0] = [str(ROOT), str(HERE)]

import on_gpu  # noqa: E402
import trio  # noqa: E402
from bare import settings  # noqa: E402
from folders import SHAPES, embedded_folder, random_folder  # noqa: E402

from inference.bench import Report, bench  # noqa: E402
from inference.load import Load, Times  # noqa: E402
from inference.models import embedded_model  # noqa: E402

TITLE = "## ExLlama on a GPU"
STREAMS = (1, 8, 32, 64)
TOKENS = 128
RATIO_MIN = 0.97
PACKAGES = ("torch", "exllamav2", "flash-attn", "tokenizers", "safetensors")


class Round(NamedTuple):
    """One turn of each: the bare generator's rates by streams, and our worker's report."""

    bare: dict[int, float]
    ours: Report


def measure(folder: Path, rounds: int, seconds: float) -> list[Round]:
    """Each in a process of its own, one after the other: two models might not fit. Neither is always the first."""
    return [_round(folder, seconds, bare_first=number % 2 == 0) for number in range(rounds)]


def _round(folder: Path, seconds: float, *, bare_first: bool) -> Round:
    bare = _bare(folder, seconds) if bare_first else None
    ours = _ours(folder, seconds)
    return Round(bare or _bare(folder, seconds), ours)


def _bare(folder: Path, seconds: float) -> dict[int, float]:
    counts = ",".join(map(str, STREAMS))
    command = [sys.executable, str(HERE / "bare.py"), str(folder), counts, str(seconds), str(TOKENS)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=_environment())
    said = json.loads(done.stdout.splitlines()[-1])  # the library prints, too
    return {int(count): rate for count, rate in said.items()}


def _ours(folder: Path, seconds: float) -> Report:
    loads = [Load(streams=streams, tokens=TOKENS, seconds=seconds) for streams in STREAMS]
    return trio.run(bench, settings(str(folder), max(STREAMS)), loads, lambda _at, _share: None)


def table(name: str, found: Sequence[Round]) -> tuple[list[str], float]:
    """For one model, and the least ratio in it. Medians over the rounds; the ratio is that of the rounds' ratios."""
    lines = [
        f"**{name}**",
        "",
        "| streams | bare generator, tokens/s | our worker | ratio | first token p50, p99 ms | next p50, p99 ms |",
        "|---|---|---|---|---|---|",
    ]
    ratios = []
    for at, streams in enumerate(STREAMS):
        taken = [one.ours.loads[at] for one in found]
        ratios.append(statistics.median(one.ours.loads[at].tokens_per_s / one.bare[streams] for one in found))
        bare = statistics.median(one.bare[streams] for one in found)
        ours = statistics.median(one.tokens_per_s for one in taken)
        first, following = _middle([one.first for one in taken]), _middle([one.between for one in taken])
        lines.append(f"| {streams} | {bare:,.0f} | {ours:,.0f} | {ratios[-1]:.3f} | {first} | {following} |")
    gpu = max(one.ours.gpu_mib or 0 for one in found)
    had = f"{gpu:,} MiB of the GPU" if gpu else "what nvidia-smi does not say of the GPU"
    memory = max(one.ours.memory_mib for one in found)
    return [*lines, "", f"The worker had {had}, and {memory:,} MiB of the machine's memory at most."], min(ratios)


def _middle(times: Sequence[Times]) -> str:
    p50_ms, p99_ms = (statistics.median(side) for side in zip(*times, strict=True))
    return f"{p50_ms:.1f}, {p99_ms:.1f}"


def compile_kernels() -> None:
    """Before anything waits for it, and where what the compiler says is seen. Raises `CalledProcessError`."""
    if kept := os.environ.get("TORCH_EXTENSIONS_DIR"):
        for lock in Path(kept).glob("**/lock"):  # of a run that was ended: PyTorch would wait for it for ever
            lock.unlink()
    subprocess.run([sys.executable, "-c", "import inference.exllama.v2"], check=True, env=_environment())


def run_tests() -> tuple[bool, str]:
    """tests/gpu and the contract, and pytest's closing line."""
    files = [str(HERE), str(ROOT / "tests" / "inference" / "test_contract.py"), "-k", "gpu or exllama"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *files], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=_environment()
    )
    sys.stderr.write(done.stdout)
    return done.returncode == 0, (done.stdout.strip().splitlines() or ["pytest said nothing"])[-1]


def folder_of(model: str, within: Path, like: Path | None) -> Path:
    """Made anew; for random weights the tokenizer is the embedded model's, or that of the folder `like`."""
    if model == "embedded" or like is None:
        like = within / "embedded"
        if not like.exists():
            embedded_folder(Path(embedded_model().path), like)
    return like if model == "embedded" else random_folder(model, like, within / model)


def section(options: argparse.Namespace) -> Iterator[tuple[list[str], bool]]:
    """The page's lines as they come, and whether all held."""
    holds, lines = True, [f"{_gpu()}; {_versions()}.", ""]
    _tell("Compiling the kernels, which may take minutes")
    compile_kernels()
    if not options.no_tests:
        _tell("Running the tests")
        holds, closing = run_tests()
        lines += [f"Tests: {closing}.", ""]
    if find_spec("flash_attn") is None:
        lines += ["Attention is ours in PyTorch, for both: flash-attn is not installed.", ""]
    yield lines, holds
    lines += [
        f"Answers of up to {TOKENS} tokens by our worker and by the bare dynamic generator, in turn: {options.rounds}",
        f"times {options.seconds:g} s of the same load. Weights of 1B and 8B shape are random: no faster for that.",
        "",
    ]
    with tempfile.TemporaryDirectory(prefix="bombyx-gpu-") as directory:
        for model in options.models:
            _tell(f"Measuring {model}")
            folder = folder_of(model, Path(directory), options.like)
            told, least = table(_name(model), measure(folder, options.rounds, options.seconds))
            lines += [*told, ""]
            holds = holds and least >= RATIO_MIN
            yield lines, holds
            if model != "embedded":
                shutil.rmtree(folder)


def _name(model: str) -> str:
    return "SmolLM2-135M, float16" if model == "embedded" else f"random weights of {model} shape, float16"


def _gpu() -> str:
    import torch

    found = torch.cuda.get_device_properties(0)
    return f"{found.name} ({found.total_memory >> 30} GiB), CUDA {torch.version.cuda}, {os.cpu_count()} cores"


def _versions() -> str:
    said = []
    for package in PACKAGES:
        try:
            said.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            said.append(f"no {package}")
    return f"Python {platform.python_version()}, {', '.join(said)}"


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])}


def _tell(what: str) -> None:
    sys.stderr.write(f"{what} …\n")


def written(page: str, lines: Sequence[str]) -> str:
    """The page with this section in place of the last one, or at its end."""
    before, found, rest = page.partition(f"{TITLE}\n")
    _, following, after = rest.partition("\n## ") if found else ("", "", "")
    return "\n".join([before.rstrip("\n"), "", TITLE, "", *lines, ""]) + (f"{following}{after}" if following else "")


def _read(page: Path) -> str:
    return page.read_text(encoding="utf-8") if page.exists() else "# Benchmarks\n"


def main() -> int:
    parser = argparse.ArgumentParser("tests/gpu/run.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default="embedded,1B,8B", help="embedded, 1B and 8B, with commas between")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each number of streams")
    parser.add_argument("--no-tests", action="store_true", help="only measure")
    parser.add_argument("--like", type=Path, metavar="DIR", help="where random weights get their tokenizer from")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page to write to")
    options = parser.parse_args()
    options.models = options.models.split(",")
    if not set(options.models) <= {"embedded", *SHAPES} or options.rounds < 1 or options.seconds <= 0:
        parser.error(f"--models are of embedded, {', '.join(SHAPES)}; rounds and seconds are above 0")
    if reason := on_gpu.unavailable():
        said = f"Not run: {reason}. It takes an NVIDIA GPU, nvcc, PyTorch for its CUDA, and bombyx[exllama]."
        sys.stderr.write(f"{said}\n")
        if TITLE not in _read(options.out):  # nothing that was measured elsewhere is lost
            options.out.write_text(written(_read(options.out), [f"{said} Then `make gpu` writes this section."]))
        return 1
    began, holds, lines = time.monotonic(), False, list[str]()
    for lines, holds in section(options):  # what is there is kept, whatever ends the rest
        verdict = [] if holds else ["**Does not hold.**", ""]
        options.out.write_text(written(_read(options.out), [*verdict, *lines, _took(began)]), encoding="utf-8")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if holds else 1


def _took(began: float) -> str:
    head = ["git", "rev-parse", "--short=12", "HEAD"]
    commit = subprocess.run(head, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return (
        f"*{time.monotonic() - began:.0f} s at commit {commit or 'unknown'}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.*"
    )


if __name__ == "__main__":
    sys.exit(main())
