"""Real processes, started as a user starts them, whose end is certain.

Each process carries a mark in its environment, and so does all that it starts: whatever is left is found by it,
whoever the parent is by then, and processes of other people are never touched.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Any, NamedTuple, Self, TypeVar

ROOT = Path(__file__).parent.parent.parent
LIMIT_S = 120.0  # for whatever a busy machine does not do at once
MARK = "WHOLE_TEST_MARK"

T = TypeVar("T")


class Done(NamedTuple):
    """A process that has ended."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        """What it printed for `--json`: the last line of its standard output."""
        assert self.code == 0, self.err
        return json.loads(self.out.splitlines()[-1])

    @property
    def complaint(self) -> str:
        """The one line with which it failed."""
        (line,) = self.err.splitlines()
        assert "Traceback" not in line
        return line


class Output:
    """What a process says, gathered as it comes."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._data = b""
        self._ended = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._gather, daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """All of it so far."""
        return self._data.decode(errors="replace")

    def whole(self) -> str:
        """All of it, once it has ended."""
        self._thread.join(LIMIT_S)
        return self.text

    def wait(self, look: Callable[[str], T], limit_s: float = LIMIT_S) -> T | None:
        """The first thing that `look` makes of the text so far that counts as true; `None` if that does not come."""
        deadline = time.monotonic() + limit_s
        with self._news:
            while not (found := look(self.text)):
                if self._ended or not self._news.wait(deadline - time.monotonic()):
                    return None
        return found

    def _gather(self) -> None:
        with self._pipe:
            while data := os.read(self._pipe.fileno(), 1 << 16):
                with self._news:
                    self._data += data
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


class Process:
    """One program of ours."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        assert popen.stdout is not None
        assert popen.stderr is not None
        self._popen = popen
        self.pid = popen.pid
        self.out = Output(popen.stdout)
        self.err = Output(popen.stderr)

    def records(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Its JSON lines of that kind, as soon as there are so many."""
        return self.said(lambda text: [one for one in _records(text) if one.get("event") == event][count - 1 :])

    def record(self, event: str, **fields: object) -> dict[str, Any]:
        """Its first JSON line of that kind that has those fields, as soon as there is one."""
        wanted = {"event": event, **fields}
        return self.said(lambda text: next((one for one in _records(text) if wanted.items() <= one.items()), {}))

    def said(self, look: Callable[[str], T], limit_s: float = LIMIT_S) -> T:
        """What `look` makes of its standard output, as soon as that counts as true."""
        found = self.out.wait(look, limit_s)
        assert found, f"not in {self.out.text!r}, nor instead of it {self.err.text!r}"
        return found

    @property
    def code(self) -> int | None:
        """With what it ended, if it has."""
        return self._popen.poll()

    def signal(self, number: signal.Signals) -> None:
        """To this process alone."""
        self._popen.send_signal(number)

    def tell(self, text: str) -> None:
        """Write to its standard input."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(text.encode())
        self._popen.stdin.flush()

    def close_stdin(self) -> None:
        """As when its parent goes."""
        if self._popen.stdin is not None:
            self._popen.stdin.close()

    def wait(self, limit_s: float = LIMIT_S) -> Done:
        """Until it has ended by itself."""
        code = self._popen.wait(limit_s)
        return Done(code, self.out.whole(), self.err.whole())

    def end(self) -> None:
        """By force if it has not ended."""
        self._popen.kill()
        self._popen.wait()
        self.close_stdin()
        self.out.whole()
        self.err.whole()


class Processes:
    """All that one test starts, in a home and a temporary directory of its own. A context manager that ends it all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / "user"
        self.temporary = directory / "temporary"
        self._mark = secrets.token_hex(8)
        self._started: list[Process] = []
        for each in (self.home, self.temporary):
            each.mkdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._started:
            process.end()
        for pid in self.living():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def start(
        self,
        module: str,
        *arguments: str | Path,
        stdin: int = subprocess.DEVNULL,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Process:
        """`python -m module arguments`, in a directory that is not the repository's."""
        return self._start([sys.executable, "-m", module, *map(str, arguments)], stdin, environment)

    def shell(self, line: str) -> Done:
        """What a person types. A pipeline fails with the first of its commands that fails."""
        return self._start(["bash", "-o", "pipefail", "-c", line], subprocess.DEVNULL, {}).wait()

    def _start(self, command: Sequence[str], stdin: int, environment: Mapping[str, str]) -> Process:
        popen = subprocess.Popen(
            command,
            cwd=self.directory,
            env={**self.environment(), **environment},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # the terminal's Ctrl-C is for the tests
        )
        self._started.append(Process(popen))
        return self._started[-1]

    def serve(
        self, module: str, *arguments: str | Path, environment: Mapping[str, str] = MappingProxyType({})
    ) -> Process:
        """A program that runs until it is told to end, or until these tests are no more. Its lines are JSON."""
        flags = ("--json", "--until-stdin-closes")
        return self.start(module, *arguments, *flags, stdin=subprocess.PIPE, environment=environment)

    def run(self, module: str, *arguments: str | Path, environment: Mapping[str, str] = MappingProxyType({})) -> Done:
        """A program that ends by itself."""
        return self.start(module, *arguments, environment=environment).wait()

    def living(self) -> dict[int, str]:
        """What bears our mark and runs: process ids and command lines."""
        mark = f"{MARK}={self._mark}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            # Not ours to read, or gone meanwhile. What has ended and waits for its parent has no environment left.
            with suppress(OSError):
                if entry.name.isdecimal() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def left(self, limit_s: float = LIMIT_S) -> Sequence[str]:
        """What still runs after that time. Returns at once when there is nothing, or nothing any more."""
        deadline = time.monotonic() + limit_s
        while (living := self.living()) and (rest_s := deadline - time.monotonic()) > 0:
            _wait_for_end(next(iter(living)), rest_s)
        return list(living.values())

    def environment(self) -> dict[str, str]:
        """What a process of this test is told: ours, but for places of its own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BOMBYX_")}
        path = os.pathsep.join(filter(None, (str(ROOT), inherited.get("PYTHONPATH"))))
        python = os.pathsep.join((str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)))
        places = {"HOME": str(self.home), "TMPDIR": str(self.temporary), "PYTHONPATH": path, "PATH": python}
        return inherited | places | {MARK: self._mark}


def _records(text: str) -> list[dict[str, Any]]:
    """The JSON objects of all lines that are complete."""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _wait_for_end(pid: int, limit_s: float) -> None:
    """Of any process, child or not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([descriptor], [], [], limit_s)
    finally:
        os.close(descriptor)
