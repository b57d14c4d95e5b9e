"""vLLM's own server as a program, where there is one on the PATH: the embedded model's weights, on a CPU if need be."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import trio
from folders import embedded_folder
from ports import free_port

from inference.models import EMBEDDED_ID, embedded_model
from inference.nursery import open_background
from inference.upstream import ServedModel, Upstream
from inference.worker import Worker, open_worker

NAME = "smollm"
KEY = "sesame"
BLOCK_TOKENS = 32  # it keeps whole blocks of prompts; this is its smallest on a CPU
LOADS_S = 300.0
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}


def unavailable() -> str:
    """Why it cannot be run here; empty if it can. The other modules are what the weights are written with."""
    if shutil.which("vllm") is None:
        return "there is no vllm on the PATH"
    missing = [name for name in ("numpy", "safetensors") if find_spec(name) is None]
    return f"{', '.join(missing)} is not installed" if missing else ""


@asynccontextmanager
async def open_vllm_in_a_worker(folder: Path) -> AsyncIterator[Worker]:
    """It in one process, and in another the engine that asks it."""
    model, key_file = embedded_folder(Path(embedded_model().path), folder / "model"), folder / "key"
    key_file.write_text(f"{KEY}\n")
    key_file.chmod(0o600)
    async with _serving(model, folder / "vllm.log") as url:
        served = ServedModel(name=NAME, id=EMBEDDED_ID, family="smollm")
        settings = Upstream(url=url, models=(served,), key_file=str(key_file), slots=2, context=512)
        async with open_worker(settings) as engine:
            yield engine


@asynccontextmanager
async def _serving(model: Path, log: Path) -> AsyncIterator[str]:
    port = free_port()
    command = [
        *("vllm", "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--served-model-name", NAME),
        *("--api-key", KEY, "--max-model-len", "512", "--max-num-seqs", "2", "--generation-config", "vllm"),
        *("--dtype", "float32", "--enforce-eager", "--block-size", str(BLOCK_TOKENS), "--enable-prompt-tokens-details"),
    ]
    with log.open("wb") as said:
        run = partial(trio.run_process, command, stdout=said, stderr=said, env=os.environ | ENVIRONMENT, check=False)
        async with open_background() as background:
            process: trio.Process = await background.start(run)
            try:
                with trio.fail_after(LOADS_S):
                    while not await _answers(port):
                        assert process.returncode is None, f"it has ended, see {log}"
                        await trio.sleep(0.5)
                yield f"http://127.0.0.1:{port}/v1"
            finally:
                process.terminate()
                with trio.CancelScope(shield=True):
                    await process.wait()


async def _answers(port: int) -> bool:
    """It listens once the model is loaded."""
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True
