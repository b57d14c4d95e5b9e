"""The command line in this process: what a command does, without the second that its imports take in a new one.

For commands that end by themselves. Each group of them has tests with a process of its own, too.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from types import MappingProxyType
from unittest.mock import patch

import pytest
from processes import Done, Processes

from p2p import node


def here(processes: Processes, *arguments: str | Path, environment: Mapping[str, str] = MappingProxyType({})) -> Done:
    """What `processes.run("p2p.node", ...)` gives."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, {**processes.environment(), **environment}, clear=True),
        patch.object(sys, "stdin", io.StringIO()),
        chdir(processes.directory),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        node.main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return Done(ended.value.code, out.getvalue(), err.getvalue())
