"""The golden vectors, checked by the implementation in JavaScript."""

from __future__ import annotations

import re
import subprocess

from javascript import NODE
from js_peer import HERE, needs_js

VECTORS = 68  # at least, or some of their files were not looked at


@needs_js
def test_javascript_reads_and_writes_the_golden_vectors() -> None:
    command = [str(NODE), "--test", "--test-reporter=tap", str(HERE / "vectors.test.mjs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    (passed,) = re.findall(r"^# pass (\d+)$", done.stdout, flags=re.MULTILINE)
    assert int(passed) >= VECTORS
