"""A process's two pipes, for one that another owns and that must not outlive it."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

from inference.errors import EngineError


async def spawn(program: Sequence[str], *, own_session: bool = False, **environment: str) -> trio.Process:
    """A process with pipes to and from it: our own Python and our own package, whatever directory we run in.

    With a session of its own it is out of reach of the terminal's signals. Raises `EngineError`.
    """
    package = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    try:
        return await trio.lowlevel.open_process(
            [sys.executable, "-P", *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path, **environment},
            start_new_session=own_session,
        )
    except OSError as error:
        raise EngineError(f"cannot start the engine's process: {error.strerror}") from error


def own_pipes() -> tuple[int, int]:
    """The pipes from and to our owner, for frames alone: what anything prints goes to stderr.

    An interrupt is our owner's to handle.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold prompts
    stdin, stdout = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return stdin, stdout


@contextmanager
def ended_by_kernel(pipe: int) -> Iterator[None]:
    """While this lasts, any event on `pipe` ends the process at once; the owner sends nothing, so it is the end.

    For while C++ holds the GIL, and nothing here can read.
    """
    flags = fcntl.fcntl(pipe, fcntl.F_GETFL)
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETFL, flags | os.O_ASYNC)
    if select.select([pipe], [], [], 0)[0]:  # it happened before we asked to be told
        os._exit(0)
    try:
        yield
    finally:
        fcntl.fcntl(pipe, fcntl.F_SETFL, flags)


def processes_of(session: int) -> list[int]:
    """Those that live, by Linux's books."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            state, _, _, of = path.read_text().rpartition(") ")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.append(int(path.parent.name))
    return found
