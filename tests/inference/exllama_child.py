"""A worker's process whose generator is `echo_generator.py`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "gpu"), str(HERE.parent.parent)]

from test_exllama import SETTINGS, Spelt, echo  # noqa: E402

from inference import child  # noqa: E402
from inference.exllama import engine  # noqa: E402

if __name__ == "__main__":
    vars(engine)["read_folder"] = lambda _: Spelt()
    vars(child)["_open"] = lambda _: engine.open_exllama(SETTINGS, echo())
    child.main()
