"""How fast an engine is: `python -m inference.bench --help`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from inference import link
from inference.errors import BadSettings, EngineError, ModelMissing
from inference.load import Load, Taken, put_on, warming
from inference.pipes import processes_of
from inference.worker import Worker, open_worker

EXAMPLES = """\
The engine's settings are those of its module (inference/scripted.py, llamacpp.py, exllama/settings.py, upstream.py), as
NAME=VALUE, where a value may be JSON. As many slots are loaded as there are streams, if `slots` says nothing else.

examples:
  python -m inference.bench llamacpp                              the embedded model, in a minute
  python -m inference.bench llamacpp threads=2 --streams 1,4 --seconds 30
  python -m inference.bench llamacpp model='{"path": "m.gguf", "id": "m", "family": "m"}' --json
  python -m inference.bench exllama folder=/models/m id=m family=m cache=q8 --tokens 256
  python -m inference.bench upstream url=http://127.0.0.1:8000/v1 models='[{"name": "m", "id": "m", "family": "m"}]'
  python -m inference.bench scripted tokens_per_s=100
"""
_CONTEXT = 1024
_ENGINES = ("scripted", "llamacpp", "exllama", "upstream")


class _Wrong(Exception):
    """What the user said cannot be."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Wrong(f"{message}; see python -m inference.bench --help")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`memory_mib` is the most that the engine had, in all its processes; `gpu_mib` what it has on GPUs, if known."""

    model: str
    loads: tuple[Taken, ...]
    memory_mib: int
    gpu_mib: int | None


def spec_of(engine: str, settings: Sequence[str], streams: int) -> link.Spec:
    """An engine's settings from words such as `slots=4`. Raises `_Wrong`."""
    said: dict[str, Any] = {"type": engine}
    if engine != "scripted":
        said |= {"slots": streams, "context": _CONTEXT}
    else:
        said |= {"slots": streams}
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator:
            raise _Wrong(f"{setting}: write NAME=VALUE")
        said[name] = _value(value)
    try:
        spec: link.Spec = msgspec.convert(said, link.Spec, strict=False)
    except msgspec.ValidationError as error:
        raise _Wrong(f"{engine}: {error}") from None
    if unknown := said.keys() - {*spec.__struct_fields__, "type"}:
        raise _Wrong(f"{engine} has no setting {min(unknown)}, but {', '.join(spec.__struct_fields__)}")
    return spec


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return str(Path(text).expanduser()) if text.startswith("~") else text


async def bench(spec: link.Spec, loads: Sequence[Load], heard: Callable[[int, float], None]) -> Report:
    """Put the loads on one engine, one after the other, once it has seen each for a moment.

    `heard` is told which, and how much of it is over.
    """
    before_mib = await trio.to_thread.run_sync(_taken_mib)
    async with open_worker(spec) as engine:
        for load in loads:
            await put_on(engine, warming(load))
        taken = [await put_on(engine, load, partial(heard, at)) for at, load in enumerate(loads)]
        return Report(
            model=engine.models()[0].id,
            loads=tuple(taken),
            memory_mib=_memory_mib(engine),
            gpu_mib=_gpu_mib(engine, before_mib),
        )


def _memory_mib(engine: Worker) -> int:
    """By Linux's books."""
    found = 0
    for pid in processes_of(engine.pid or 0):
        with suppress(OSError):  # it ended meanwhile
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            found += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return found >> 10


def _gpu_mib(engine: Worker, before_mib: int) -> int | None:
    """By NVIDIA's, if they are at hand; in a container they may have other numbers for processes, and what has been
    taken since `before_mib` counts.
    """
    ours = {str(pid) for pid in processes_of(engine.pid or 0)}
    rows = _ask_nvidia("compute-apps=pid,used_memory")
    found = [int(row[1]) for row in rows if row[0] in ours and row[1].isdigit()]
    return sum(found) or max(0, _taken_mib() - before_mib) or None


def _taken_mib() -> int:
    """Of all GPUs, by whomever."""
    return sum(int(row[0]) for row in _ask_nvidia("gpu=memory.used") if row[0].isdigit())


def _ask_nvidia(what: str) -> list[list[str]]:
    """Rows of words; none where there is nobody to ask."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", f"--query-{what}", "--format=csv,noheader,nounits"]
    said = subprocess.run(query, capture_output=True, text=True, check=False).stdout  # noqa: S603 - fixed words
    return [line.split(", ") for line in said.splitlines()]


def table(report: Report) -> Table:
    """For a terminal; in a pipe it is plain text."""
    shown = Table(title=report.model, box=None, title_justify="left")
    for name in ("streams", "tokens/s", "answers", "first p50", "p99 ms", "between p50", "p99 ms"):
        shown.add_column(name, justify="right")
    for one in report.loads:
        times = (f"{time:.1f}" for time in (*one.first, *one.between))
        shown.add_row(f"{one.streams}", f"{one.tokens_per_s:.1f}", f"{one.answers}", *times)
    gpu = "" if report.gpu_mib is None else f", {report.gpu_mib:,} MiB on GPUs"
    shown.caption = f"{report.memory_mib:,} MiB of memory at most{gpu}"
    return shown


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        "python -m inference.bench",
        description="Measure an engine: times to the first token and between tokens, rate and memory, by streams.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("engine", choices=_ENGINES)
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="the engine's settings")
    parser.add_argument("--streams", default="1,8,32,64", metavar="N,N…", help="how many answers at a time (1,8,32,64)")
    parser.add_argument("--seconds", type=float, default=15, metavar="S", help="for each of these (15)")
    parser.add_argument("--tokens", type=int, default=128, metavar="N", help="of an answer, at most (128)")
    parser.add_argument("--prompt-words", type=int, default=64, metavar="N", help="(64)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_intermixed_args(arguments)
    if min(options.seconds, options.tokens, options.prompt_words) <= 0:
        parser.error("seconds, tokens and words are above 0")
    return options


def _loads(options: argparse.Namespace) -> list[Load]:
    counts = options.streams.split(",")
    if not all(count.isdigit() and 0 < int(count) <= 1000 for count in counts):
        raise _Wrong(f"--streams {options.streams}: write numbers up to 1000 with commas between them, such as 1,8")
    size = {"tokens": options.tokens, "prompt_words": options.prompt_words, "seconds": options.seconds}
    return [Load(streams=int(count), **size) for count in counts]


def _run(arguments: Sequence[str]) -> None:
    options = _parse(arguments)
    loads = _loads(options)
    spec = spec_of(options.engine, options.settings, max(load.streams for load in loads))
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Loading the model", total=len(loads))

        def heard(at: int, share: float) -> None:
            progress.update(task, completed=at + share, description=f"{loads[at].streams} at a time")

        report = trio.run(bench, spec, loads, heard)
    if options.json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        Console().print(table(report))


def main() -> int:
    try:
        _run(sys.argv[1:])
    except (_Wrong, BadSettings, ModelMissing) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
