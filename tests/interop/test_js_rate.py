"""The program with which js-libp2p's rate is measured, at a small count."""

from __future__ import annotations

import subprocess

import pytest
from javascript import NODE
from js_peer import HERE, needs_js

COMMAND = [str(NODE), str(HERE / "rate.mjs")]


@pytest.mark.slow
@needs_js
def test_a_stream_between_two_of_theirs_is_measured() -> None:
    with subprocess.Popen([*COMMAND, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        push = [*COMMAND, "push", address, "65536", "20"]  # more than a window
        seconds = subprocess.run(push, check=True, capture_output=True, text=True, timeout=120).stdout
    assert 0 < float(seconds) < 120
    assert server.returncode == 0
