"""Style and layers, read from the sources: who may import whom, how long things may be, which words stay out.

Each rule is a function from one module to its complaints, run over every module of the tree and, so that a rule
which has gone blind is noticed, over a small module that breaks it.
"""

from __future__ import annotations

import ast
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("p2p", "inference", "chain", "sim")

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
VAGUE_NAMES = {"base", "common", "helper", "helpers", "manager", "util", "utils"}

# What computes without the world: no clock, no chance, no files, sockets, threads, logs or event loops.
PURE_STDLIB = {
    "__future__",
    "abc",
    "base64",
    "bisect",
    "collections",
    "collections.abc",
    "dataclasses",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "struct",
    "types",
    "typing",
}
IMPURE_BUILTINS = {"__import__", "breakpoint", "eval", "exec", "input", "open", "print"}
PURE = PURE_STDLIB | {"msgspec", "msgpack"}

# Each core, and which of our own modules it may build on.
CORES = {
    "p2p.protocol": {
        "p2p.protocol",
        "p2p.errors",
        "chain.channel",
        "chain.voucher",
        "chain.settling",
        "chain.errors",
        "chain.ledger.ChannelState",  # of the seam only its structs
        "inference.engine",  # its structs
        "inference.errors",
    },
    "p2p.gateway.tool_calls": {"inference.errors", "inference.records"},
    "p2p.gateway.bodies": {"inference.engine", "p2p.gateway.failures"},
    "p2p.gateway.calls": {"inference.engine", "inference.records", "p2p.gateway.failures", "p2p.gateway.tool_calls"},
    "p2p.gateway.chat": {
        "inference.engine",
        "inference.records",
        "p2p.gateway.bodies",
        "p2p.gateway.calls",
        "p2p.gateway.failures",
        "p2p.gateway.tool_calls",
    },
    "p2p.gateway.completions": {
        "inference.engine",
        "p2p.gateway.bodies",
        "p2p.gateway.calls",
        "p2p.gateway.chat",
        "p2p.gateway.failures",
    },
    "p2p.gateway.embeddings": {"inference.engine", "p2p.gateway.bodies", "p2p.gateway.calls", "p2p.gateway.failures"},
    "p2p.gateway.wishes": {"p2p.budget", "p2p.gateway.bodies", "p2p.gateway.failures", "p2p.protocol"},
    "p2p.gateway.responses": {
        "inference.engine",
        "p2p.gateway.bodies",
        "p2p.gateway.calls",
        "p2p.gateway.chat",
        "p2p.gateway.failures",
        "p2p.gateway.tool_calls",
    },
    "p2p.gateway.failures": {"p2p.errors", "p2p.funding.TooManyChannels"},
    "p2p.gateway.origins": {"p2p.gateway.failures"},
    "p2p.net.address_group": set(),
    "p2p.net.arrivals": {"p2p.net.address_group", "p2p.net.limits", "p2p.net.turns"},
    "p2p.net.conduct": {"p2p.protocol.rates"},
    "p2p.net.limits": set(),
    "p2p.net.tally": set(),
    "p2p.net.turns": {"p2p.protocol.rates"},
    "p2p.net.yamux": {"p2p.net.yamux_stream"},
    "p2p.net.yamux_stream": set(),
    "chain.channel": {"chain.voucher", "chain.errors", "chain.ledger"},  # of the seam only its structs
    "chain.settling": set(),
    "chain.voucher": {"chain.errors"},
    "inference.completions": {
        "inference.engine",
        "inference.errors",
        "inference.form",
        "inference.hermes",
        "inference.records",
        "inference.schemas",
        "inference.stopping",
    },
    "inference.eventstream": {"inference.errors"},
    "inference.exllama.reading": {
        "inference.engine",
        "inference.exllama.backend",
        "inference.form",
        "inference.records",
        "inference.scoring",
        "inference.stopping",
    },
    "inference.form": {"inference.engine", "inference.errors", "inference.hermes", "inference.records"},
    "inference.hermes": {"inference.engine", "inference.records", "inference.schemas"},
    "inference.instance": set(),
    "inference.records": {"inference.errors"},
    "p2p.manners": {"p2p.errors", "p2p.protocol.allowance"},
    "p2p.takings": {"p2p.protocol.allowance"},
    "inference.fitting": set(),
    "inference.gguf_header": {"inference.errors", "inference.fitting"},
    "inference.safetensors_header": {"inference.errors", "inference.fitting"},
    "inference.schemas": {"inference.errors"},
    "inference.scoring": {"inference.engine"},
    "inference.seal": {"inference.errors"},
    "inference.stopping": {"inference.engine"},
}

# Each foreign library, and the seam that it must not be seen outside of.
SEAMS = {
    "libp2p": {"p2p.net"},
    "Crypto": {"p2p.net.private_network"},
    "prometheus_client": {"p2p.metrics"},
    "zeroconf": {"p2p.net.mdns"},
    "miniupnpc": {"p2p.net.upnp"},
    "pytoniq": {"chain.ton", "chain.w5"},
    "pytoniq_core": {"chain"},
    "tonpy": {"chain.devnet.vm"},
    "xllamacpp": {"inference.llamaserver"},
    "exllamav2": {"inference.exllama"},
    "exllamav3": {"inference.exllama"},
    "torch": {"inference.exllama"},
    "tokenizers": {"inference.exllama"},
    "llguidance": {"inference.exllama.rules"},
    "jinja2": {"inference.template_process"},
    "pynvml": {"inference.gpu"},
    "httpx": {"inference.upstream_http"},
    "anyio": {"p2p.embed_portal"},
    "starlette": {"p2p.gateway"},
    "hypercorn": {"p2p.gateway"},
}

# Behind the seams. In `p2p` only `node` knows them; the rest takes a Host, a Ledger and an Engine as given.
CONCRETE = {
    "p2p.net",
    "chain.devnet",
    "chain.memory",
    "chain.ton",
    "chain.tonledger",
    "chain.w5",
    "inference.exllama",
    "inference.llamacpp",
    "inference.scripted",
    "inference.upstream",
    "inference.worker",
}
WIRING = {"p2p.node", "p2p.wiring", "p2p.net"}

# Written so that this file does not find itself.
FORBIDDEN_TEXT = {
    "unfinished work": re.compile("TO[D]O|FIX[M]E"),
    "a machine's path": re.compile(r"(?<![\w./])/(?:work|root|tmp|home|Users)/"),
    "a registry's host": re.compile(r"\b(?:(?:pypi|pythonhosted|npmjs|deb\.debian)\.org|(?:npmjs|yarnpkg)\.com)\b"),
}


class Module(NamedTuple):
    """One Python file: its dotted path from the root (a package's ends in `.__init__`), and its text."""

    name: str
    source: str


class Import(NamedTuple):
    """One imported thing. `from a import b` may mean the module `a.b` or a name in `a`, so `names` holds both."""

    names: tuple[str, ...]
    line: int
    runs: bool  # False under `if TYPE_CHECKING`


Rule = Callable[[Module], Iterator[str]]


def python_files(*folders: str) -> Iterator[Module]:
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        if "node_modules" not in path.parts:
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield Module(".".join(parts), path.read_text(encoding="utf-8"))


def within(name: str, packages: set[str]) -> bool:
    """Whether `name` is one of `packages` or lies below one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def absolute(module: Module, node: ast.ImportFrom) -> str:
    """What `from … import` names, its leading dots resolved."""
    if not node.level:
        return node.module or ""
    parents = module.name.split(".")[: -node.level]
    return ".".join([*parents, node.module] if node.module else parents)


def imports(module: Module) -> Iterator[Import]:
    """Every import statement wherever it stands, also inside functions and `if TYPE_CHECKING`."""
    tree = ast.parse(module.source)
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    typing_only = {statement for guard in guards for statement in guard.body}
    for node in ast.walk(tree):
        runs = node not in typing_only
        if isinstance(node, ast.Import):
            yield from (Import((alias.name,), node.lineno, runs) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = absolute(module, node)
            yield from (Import((origin, f"{origin}.{alias.name}"), node.lineno, runs) for alias in node.names)


def cores_are_pure(module: Module) -> Iterator[str]:
    """A core imports from the allow-list and from lower cores, and prints nothing."""
    ours = next((allowed for core, allowed in CORES.items() if within(module.name, {core})), None)
    if ours is None:
        return
    for imported in imports(module):
        if not any(name in PURE or within(name, ours | {"msgspec"}) for name in imported.names):
            yield f"line {imported.line}: a core may not import {imported.names[-1]}"
    for node in ast.walk(ast.parse(module.source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_BUILTINS:
            yield f"line {node.lineno}: a core may not call {node.func.id}"


def layers_point_down(module: Module) -> Iterator[str]:
    """`chain` and `inference` stand alone; nothing that ships knows the simulator."""
    package = module.name.split(".")[0]
    above = {"chain": {"p2p", "inference"}, "inference": {"p2p", "chain"}}.get(package, set())
    above = above if package == "sim" else above | {"sim"}
    for imported in imports(module):
        if within(imported.names[0], above):
            yield f"line {imported.line}: {package} may not import {imported.names[-1]}"


def libraries_stay_behind_seams(module: Module) -> Iterator[str]:
    for imported in imports(module):
        for library, homes in SEAMS.items():
            if within(imported.names[0], {library}) and not within(module.name, homes):
                yield f"line {imported.line}: {library} belongs in {' or '.join(sorted(homes))}"


def only_node_wires(module: Module) -> Iterator[str]:
    """In `p2p`, only `node` and `wiring` import what stands behind a seam."""
    if not within(module.name, {"p2p"}) or within(module.name, WIRING):
        return
    for imported in imports(module):
        if any(within(name, CONCRETE) for name in imported.names):
            yield f"line {imported.line}: {imported.names[-1]} is for p2p.wiring"


def sizes_are_small(module: Module) -> Iterator[str]:
    lines = module.source.count("\n")
    if lines > MAX_FILE_LINES:
        yield f"{lines} lines in one file"
    for node in ast.walk(ast.parse(module.source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"line {node.lineno}: {length} lines in {node.name}"


def names_say_something(module: Module) -> Iterator[str]:
    yield from (f"{part} says nothing" for part in module.name.split(".") if part in VAGUE_NAMES)


def text_is_ours(module: Module) -> Iterator[str]:
    """Takes any text file, its path as the name."""
    for number, line in enumerate(module.source.splitlines(), 1):
        yield from (f"line {number}: {what}" for what, pattern in FORBIDDEN_TEXT.items() if pattern.search(line))


def cycle(modules: Iterable[Module]) -> list[str]:
    """The modules of one cycle of imports that run; empty where there is none."""
    graph = {
        module.name: {name for imported in imports(module) if imported.runs for name in imported.names}
        for module in modules
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def text_files() -> Iterator[Module]:
    folders = (*PACKAGES, "tests", "docs", "examples", "requirements", ".ci")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    paths += [*ROOT.glob("*.md"), *(ROOT / name for name in ("Makefile", "pyproject.toml", ".gitignore"))]
    for path in sorted(paths):
        if not {"node_modules", "__pycache__"} & set(path.parts):
            try:
                yield Module(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
            except UnicodeDecodeError:
                continue  # a picture or a model, not prose


RULES: dict[Rule, tuple[str, ...]] = {
    cores_are_pure: PACKAGES,
    layers_point_down: PACKAGES,
    libraries_stay_behind_seams: PACKAGES,
    only_node_wires: PACKAGES,
    sizes_are_small: (*PACKAGES, "tests", "examples"),
    names_say_something: (*PACKAGES, "tests", "examples"),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_holds_everywhere(rule: Rule) -> None:
    modules = list(python_files(*RULES[rule]))
    assert {"p2p.errors", "chain.errors", "inference.errors"} <= {module.name for module in modules}
    assert [f"{module.name}, {complaint}" for module in modules for complaint in rule(module)] == []


def test_text_is_ours_everywhere() -> None:
    files = list(text_files())
    assert {"Makefile", "p2p/errors.py", ".ci/run"} <= {file.name for file in files}
    assert [f"{file.name}, {complaint}" for file in files for complaint in text_is_ours(file)] == []


def test_imports_go_one_way() -> None:
    assert cycle(python_files(*PACKAGES)) == []


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (cores_are_pure, "p2p.protocol.session", "import trio"),
        (cores_are_pure, "p2p.protocol.session", "import time"),
        (cores_are_pure, "p2p.protocol.session", "def now():\n    from time import monotonic\n    return monotonic()"),
        (cores_are_pure, "p2p.protocol.session", "import os.path"),
        (cores_are_pure, "p2p.protocol.session", "from p2p import host"),
        (cores_are_pure, "p2p.protocol.session", "from ..host import Host"),
        (cores_are_pure, "p2p.protocol.session", "from chain.ledger import Ledger"),
        (cores_are_pure, "p2p.protocol.session", "print('paid')"),
        (cores_are_pure, "p2p.net.yamux", "from libp2p.abc import IMuxedConn"),
        (cores_are_pure, "chain.channel", "import random"),
        (cores_are_pure, "chain.voucher", "from chain.channel import Payer"),
        (cores_are_pure, "inference.seal", "import logging"),
        (layers_point_down, "chain.ton", "from p2p.errors import Error"),
        (layers_point_down, "inference.worker", "import p2p"),
        (layers_point_down, "p2p.node", "import sim.kernel"),
        (libraries_stay_behind_seams, "p2p.peer", "import libp2p"),
        (libraries_stay_behind_seams, "p2p.keys", "def peer():\n    from libp2p.peer.id import ID"),
        (libraries_stay_behind_seams, "chain.ledger", "from pytoniq import LiteBalancer"),
        (libraries_stay_behind_seams, "p2p.node", "from pytoniq_core import Cell"),
        (libraries_stay_behind_seams, "chain.devnet.chain", "from tonpy.tvm.tvm import TVM"),
        (libraries_stay_behind_seams, "inference.worker", "import xllamacpp"),
        (libraries_stay_behind_seams, "p2p.node", "from starlette.routing import Route"),
        (only_node_wires, "p2p.provider", "from p2p.net.host import open_host"),
        (only_node_wires, "p2p.peer", "from chain import ton"),
        (only_node_wires, "p2p.gateway.http", "from inference.worker import Worker"),
        (sizes_are_small, "p2p.peer", "pass\n" * (MAX_FILE_LINES + 1)),
        (sizes_are_small, "p2p.peer", "async def ask():\n" + "    pass\n" * MAX_FUNCTION_LINES),
        (names_say_something, "p2p.utils", ""),
        (names_say_something, "chain.helpers.money", ""),
        (text_is_ours, "p2p/peer.py", "# \x54ODO: pay"),
        (text_is_ours, "docs/USE.md", "see \x2fhome/someone/notes"),
        (text_is_ours, "requirements/run.txt", "--index-url https://pypi\x2eorg/simple"),
    ],
)
def test_rule_can_fail(rule: Rule, name: str, source: str) -> None:
    assert len(list(rule(Module(name, source)))) == 1


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (cores_are_pure, "p2p.protocol.session", "import hashlib\nfrom p2p import errors\nfrom . import wire"),
        (cores_are_pure, "p2p.peer", "import time, trio"),
        (layers_point_down, "p2p.protocol.session", "from chain.errors import ChainError"),
        (libraries_stay_behind_seams, "p2p.net.host", "import libp2p"),
        (only_node_wires, "p2p.node", "from chain import ton\nfrom p2p.net import host"),
        (sizes_are_small, "p2p.peer", "def ask():\n" + "    pass\n" * (MAX_FUNCTION_LINES - 1)),
        (names_say_something, "chain.book", ""),
        (text_is_ours, "docs/USE.md", "a path such as model/tmp/x or example.com/home/page"),
    ],
)
def test_rule_can_pass(rule: Rule, name: str, source: str) -> None:
    assert list(rule(Module(name, source))) == []


def test_cycle_is_seen() -> None:
    a = Module("chain.a", "from chain.b import B")
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from chain.a import A"
    assert set(cycle([a, Module("chain.b", "def later():\n    from chain import a")])) == {"chain.a", "chain.b"}
    assert cycle([a, Module("chain.b", "import trio")]) == []
    assert cycle([a, Module("chain.b", typed)]) == []


def imported_in_a_fresh_interpreter(*names: str) -> tuple[float, set[str]]:
    """Seconds that importing `names` takes, the interpreter's start not counted, and what is loaded afterwards."""
    child = (
        f"import sys, time; start = time.perf_counter(); import {', '.join(names)}; stop = time.perf_counter()\n"
        "import json; json.dump([stop - start, [*{name.split('.')[0] for name in sys.modules}]], sys.stdout)"
    )
    done = subprocess.run([sys.executable, "-c", child], cwd=ROOT, check=True, capture_output=True, text=True)
    seconds, loaded = json.loads(done.stdout)
    return seconds, set(loaded)


def test_import_p2p_is_light() -> None:
    runs = [imported_in_a_fresh_interpreter("p2p") for _ in range(3)]
    assert statistics.median(seconds for seconds, _ in runs) < 0.3
    assert not runs[0][1] & SEAMS.keys()


def test_cores_and_seams_load_no_foreign_library() -> None:
    cores = [module.name for module in python_files(*PACKAGES) if within(module.name, set(CORES))]
    cores = [core.removesuffix(".__init__") for core in cores]
    _, loaded = imported_in_a_fresh_interpreter(*cores, "p2p.host", "chain.ledger", "inference.engine")
    assert {"msgspec", "p2p"} <= loaded
    assert not loaded & SEAMS.keys()
