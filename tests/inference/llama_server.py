"""llama.cpp's own server as a program. It reads its key from standard input, and ends with that.

It is the HTTP side of xllamacpp, which is llama-server without its `main`, and serves the embedded model on loopback.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from inference.models import EMBEDDED_ID, embedded_model
from inference.nursery import open_background
from inference.upstream import ServedModel, Upstream
from inference.worker import Worker, open_worker

NAME = "smollm"
ROOT = Path(__file__).parent.parent.parent


@asynccontextmanager
async def open_llama_server(key: str) -> AsyncIterator[str]:
    """A server in a process of its own; its address."""
    run = partial(trio.run_process, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PYTHONPATH": str(ROOT)})
    async with open_background() as nursery:
        process: trio.Process = await nursery.start(run, [sys.executable, __file__])
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.send_all(f"{key}\n".encode())
        said = b""
        while not said.endswith(b"\n"):
            said += await process.stdout.receive_some() or b"it ended\n"
        yield said.decode().strip()
        await process.stdin.aclose()
        await process.wait()


@asynccontextmanager
async def open_upstream_in_a_worker(folder: Path) -> AsyncIterator[Worker]:
    """A server in one process, and in another the engine that asks it."""
    key_file = folder / "key"
    key_file.write_text("sesame\n")
    key_file.chmod(0o600)
    async with open_llama_server("sesame") as url:
        served = ServedModel(name=NAME, id=EMBEDDED_ID, family="smollm")
        settings = Upstream(url=f"{url}/v1", models=(served,), key_file=str(key_file), slots=2, context=512)
        async with open_worker(settings) as engine:
            yield engine


def _params(xllamacpp: Any, key: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = embedded_model().path
    params.model_alias = {NAME}
    params.api_keys = [key]
    params.n_parallel, params.n_ctx = 2, 1024
    params.n_batch = params.n_ubatch = 64  # the longest text that it embeds
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_ram_mib = params.verbosity = 0
    params.ui = False
    return params


def main() -> None:
    """Print the address once the model is loaded, and serve until standard input ends."""
    import xllamacpp

    server = xllamacpp.Server(_params(xllamacpp, sys.stdin.readline().strip()))
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
