"""The golden vectors, checked by the implementation in JavaScript."""

from __future__ import annotations

import re
import subprocess

from javascript import NODE
from js_peer import HERE, needs_js

VECTORS = 64  # what the test in JavaScript counts; a file that it does not find would be none


@needs_js
def test_javascript_reads_and_writes_the_golden_vectors() -> None:
    command = [str(NODE), "--test", "--test-reporter=tap", str(HERE / "vectors.test.mjs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert re.search(rf"^# pass {VECTORS}$", done.stdout, flags=re.MULTILINE), done.stdout
