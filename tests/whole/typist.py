"""Somebody at a terminal: a program that has one of its own, and answers typed when it asks."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from processes import LIMIT_S

# A terminal becomes one's own only from inside a session that has none.
ATTACH = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"
POLL_S = 0.05


class Typed(NamedTuple):
    """What came of it."""

    code: int
    said: str  # all that stood on the screen
    echoes: bool  # whether the terminal shows again what is typed


def typed(
    *arguments: str | Path, answers: Sequence[tuple[str, str]], environment: Mapping[str, str], folder: Path
) -> Typed:
    """Run `python arguments`, and type each answer once its question stands there."""
    terminal, inside = os.openpty()
    command = [sys.executable, "-c", ATTACH, sys.executable, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=inside, stdout=inside, stderr=inside, start_new_session=True, cwd=folder, env=environment
    ) as process:
        try:
            said, read = "", 0
            for question, answer in answers:
                while question not in said[read:]:
                    assert process.poll() is None, f"it ended without asking {question!r}: {said!r}"
                    said += _more(terminal)
                read = said.index(question, read) + len(question)
                os.write(terminal, answer.encode())
            deadline = time.monotonic() + LIMIT_S
            while process.poll() is None and time.monotonic() < deadline:
                said += _more(terminal)
            while more := _more(terminal):
                said += more
            echoes = bool(termios.tcgetattr(inside)[3] & termios.ECHO)
        finally:
            process.kill()
            os.close(terminal)
            os.close(inside)
    return Typed(process.returncode, said.replace("\r\n", "\n"), echoes)


def _more(terminal: int) -> str:
    ready, _, _ = select.select([terminal], [], [], POLL_S)
    return os.read(terminal, 1 << 16).decode() if ready else ""
