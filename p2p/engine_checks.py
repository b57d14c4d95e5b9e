"""What `doctor` looks at before somebody sells: whether the engine would load, and what the owner's wishes mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from msgspec.structs import replace
from trio.to_thread import run_sync

from inference.engine import ESTIMATES, Engine
from inference.fitting import MEBIBYTE, ON_CPU, ON_GPU, Overhead, needs, total
from inference.gpu import gpus
from inference.local_models import LocalModel, read_model
from inference.memory import Room, available_memory
from inference.models import embedded_model, gguf_model
from p2p.config import ProvideConfig
from p2p.errors import EngineError, LocalError
from p2p.findings import Finding, Verdict
from p2p.foreign import translated
from p2p.owner import Owner
from p2p.story import for_so_long
from p2p.trace import silent

SMALLER = "take fewer --slots, less --context, or a model with fewer bits per weight; `models fit` shows each term"
TO_STREAM = "it has to stream what is asked of /v1/chat/completions; its own log may say more"
TO_TELL_USAGE = "clients are told that tokens are estimated; a server that tells usage with a stream sells better"
# A cache that `models fit` has no figure for counts as the next larger.
CACHES = {"fp16": "f16", "q8": "q8_0", "q6": "q8_0", "q4": "q4_0"}


@dataclass(frozen=True)
class Engines:
    """What stands behind the seams, given by `p2p.node`."""

    open_server: Callable[[ProvideConfig], AbstractAsyncContextManager[Engine]]  # the user's, tried out
    require_cuda: Callable[[ProvideConfig], None]  # raises `inference.errors.BadSettings`


async def engine(config: ProvideConfig, engines: Engines) -> Sequence[Finding]:
    """Whether answers would come from it. Raises `LocalError` or `inference.errors.EngineError`."""
    match config.engine:
        case "llamacpp":
            return [await run_sync(_llamacpp, config)]
        case "exllama":
            return await run_sync(_exllama, config, engines.require_cuda)
        case "upstream":
            return await _upstream(config, engines)
    return [Finding("model", Verdict.NOTE, f"the engine {config.engine} has no weights to look at")]


def _llamacpp(config: ProvideConfig) -> Finding:
    if find_spec("xllamacpp") is None:
        return Finding("model", Verdict.BAD, "the engine is not installed", "make install")
    own = Path(config.model).expanduser()
    weights = gguf_model(own, own.stem, "") if config.model else embedded_model()
    room = available_memory(ON_CPU.threads_for(config.slots))
    return fitting(weights.id, read_model(Path(weights.path)), ON_CPU, room, config, "f16")


def _exllama(config: ProvideConfig, require_cuda: Callable[[ProvideConfig], None]) -> Sequence[Finding]:
    if not config.model:
        raise LocalError("which model? Say it with --model DIR, a folder with config.json and .safetensors")
    model = read_model(Path(config.model).expanduser())
    found = [Finding("model", Verdict.GOOD, f"{model.name} is there")]
    try:
        with translated():
            require_cuda(config)
    except LocalError as error:
        return [*found, Finding("CUDA", Verdict.BAD, str(error))]
    cards = gpus()
    room = Room(sum(card.free for card in cards), f"free on {len(cards)} GPUs") if cards else None
    shared = replace(config, context=config.exllama_cache_tokens // config.slots or config.context)
    return [*found, fitting(model.name, model, ON_GPU, room, shared, CACHES[config.exllama_cache])]


def fitting(
    name: str, model: LocalModel, overhead: Overhead, room: Room | None, config: ProvideConfig, cache: str
) -> Finding:
    """By the arithmetic of `models fit`."""
    context, slots = config.context, config.slots
    taken = total(needs(model.architecture, model.weights, overhead, context=context, slots=slots, cache=cache))
    what = f"{name}: takes {taken // MEBIBYTE:,} MiB with {slots} slots of {context:,} tokens"
    if context > model.architecture.context:
        longest = model.architecture.context
        return Finding("model", Verdict.BAD, f"{what}, but was made for {longest:,}", f"give --context {longest}")
    if room is None:
        return Finding("model", Verdict.NOTE, f"{what}; nothing says how much memory there is")
    what += f", of {room.bytes // MEBIBYTE:,} MiB ({room.by})"
    return Finding("model", Verdict.BAD, what, SMALLER) if taken > room.bytes else Finding("model", Verdict.GOOD, what)


async def _upstream(config: ProvideConfig, engines: Engines) -> Sequence[Finding]:
    """By asking it as `provide` does before it sells."""
    found = []
    try:
        with translated():
            async with engines.open_server(config) as server:
                for model in server.models():
                    can = ", ".join(sorted({*model.features} - {ESTIMATES})) or "plain answers alone"
                    found.append(Finding("server", Verdict.GOOD, f"{model.id} answers in a stream; offered: {can}"))
                    if ESTIMATES in model.features:
                        found.append(Finding("usage", Verdict.NOTE, "the server does not count tokens", TO_TELL_USAGE))
    except EngineError as error:
        return [*found, Finding("server", Verdict.BAD, str(error), TO_STREAM)]
    return found


async def wishes(config: ProvideConfig, owner: Owner | None = None) -> Sequence[Finding]:
    """What the owner's settings say, and what they would mean now. Raises `LocalError` for what is not understood."""
    look = (owner or Owner(config.manners, silent)).look
    pause = await run_sync(look)
    rests = ["on battery"] * config.pause_on_battery + ["while others compute on the GPU"] * config.pause_for_gpu
    hours = f"serves at {', '.join(config.serve_hours)}" if config.serve_hours else "serves at all hours"
    what = f"{hours}; rests {' and '.join(rests) or 'never besides'}"
    if pause is None:
        found = [Finding("owner", Verdict.GOOD, f"{what}: would serve now")]
    else:
        why = f"{pause.why}{for_so_long(pause.for_s)}"
        found = [Finding("owner", Verdict.NOTE, f"{what}: would be paused now, because {why}")]
    if config.pause_for_gpu and not await run_sync(gpus):
        no_gpu = "no NVIDIA GPU can be looked at, so pause_for_gpu does nothing"
        found.append(Finding("owner", Verdict.NOTE, no_gpu, "pip install 'bombyx[gpu]', and NVIDIA's driver"))
    return found
