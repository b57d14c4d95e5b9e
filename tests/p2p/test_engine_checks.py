"""What `doctor` says of an engine before it serves, and of its owner's wishes: with servers that really answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from recorded_server import KEY, NAME, Recorded

from inference.errors import BadSettings, ModelMissing
from inference.fitting import MEBIBYTE, ON_CPU
from inference.gpu import Gpu
from inference.local_models import read_model
from inference.memory import Room
from inference.models import EMBEDDED_ID, embedded_model
from p2p.config import ProvideConfig
from p2p.engine_checks import Engines, engine, fitting, wishes
from p2p.errors import LocalError
from p2p.findings import Finding, Verdict
from p2p.owner import Owner
from p2p.trace import silent
from p2p.wiring import open_server, require_cuda

ENGINES = Engines(open_server, require_cuda)
GOOD, NOTE, BAD = Verdict.GOOD, Verdict.NOTE, Verdict.BAD


def verdicts(findings: Sequence[Finding]) -> list[tuple[str, Verdict]]:
    return [(finding.check, finding.verdict) for finding in findings]


async def test_the_model_that_comes_along_would_be_served() -> None:
    (found,) = await engine(ProvideConfig(), ENGINES)
    assert (found.check, found.verdict) == ("model", GOOD)
    assert EMBEDDED_ID in found.what
    assert "with 2 slots of 2,048 tokens" in found.what


@pytest.mark.parametrize(
    ("changed", "room", "verdict", "advice"),
    [
        ({}, Room(400 * MEBIBYTE, "what is free"), GOOD, ""),
        ({}, Room(200 * MEBIBYTE, "what is free"), BAD, "fewer --slots"),
        ({"slots": 64}, Room(400 * MEBIBYTE, "what is free"), BAD, "`models fit` shows each term"),
        ({"context": 16_384}, Room(1 << 40, "what is free"), BAD, "--context 8192"),
        ({}, None, NOTE, ""),
    ],
)
def test_memory_is_reckoned_as_models_fit_does(
    changed: dict[str, Any], room: Room | None, verdict: Verdict, advice: str
) -> None:
    model = read_model(Path(embedded_model().path))
    found = fitting("it", model, ON_CPU, room, replace(ProvideConfig(), **changed), "f16")
    assert found.verdict is verdict, found
    assert advice in found.advice


async def test_a_model_of_ones_own_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"cannot read the model file .*none\.gguf"):
        await engine(ProvideConfig(model=str(tmp_path / "none.gguf")), ENGINES)


async def test_exllama_wants_its_folder_and_a_gpu(tmp_path: Path) -> None:
    def none_here(config: ProvideConfig) -> None:
        raise BadSettings(f"no GPU for {Path(config.model).name}")

    with pytest.raises(LocalError, match="which model"):
        await engine(ProvideConfig(engine="exllama"), ENGINES)
    with pytest.raises(ModelMissing, match=r"no \.safetensors in the folder"):
        await engine(ProvideConfig(engine="exllama", model=str(tmp_path)), ENGINES)
    own = ProvideConfig(engine="exllama", model=embedded_model().path)  # headers alone are read
    there, cuda = await engine(own, Engines(open_server, none_here))
    assert verdicts([there, cuda]) == [("model", GOOD), ("CUDA", BAD)]
    assert cuda.what == f"no GPU for {Path(own.model).name}"
    memory = (await engine(own, Engines(open_server, lambda _: None)))[1]
    assert "MiB with 2 slots" in memory.what


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o600)
    return file


def serving(url: str, key_file: Path | str) -> ProvideConfig:
    served: dict[str, Any] = {"upstream_url": url, "upstream_models": (NAME,), "upstream_key_file": str(key_file)}
    return ProvideConfig(engine="upstream", context=256, **served)


@pytest.mark.parametrize(
    ("recorded", "found"),
    [
        (Recorded(), [("server", GOOD)]),
        (Recorded(counts="never"), [("server", GOOD), ("usage", NOTE)]),
        (Recorded(status=500), [("server", BAD)]),
        (Recorded(instead=(b"no stream at all",)), [("server", BAD)]),
    ],
    ids=["well", "no usage", "fails", "streams nothing"],
)
async def test_a_server_is_tried_out(recorded: Recorded, found: list[tuple[str, Verdict]], key_file: Path) -> None:
    async with recorded.serve() as url:
        findings = await engine(serving(url, key_file), ENGINES)
    assert verdicts(findings) == found
    assert NAME in findings[0].what or "stream" in findings[0].advice
    assert all(finding.advice for finding in findings if finding.verdict is not GOOD)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"upstream_key_file": ""}, "wants a key, or another one: name its file with --upstream-key-file"),
        ({"upstream_models": ("other",)}, f"no model other .*but {NAME}"),
        ({"context": 8192}, "takes 4096 tokens for counter: give --context 4096"),
        ({"upstream_url": ""}, "where is the server"),
    ],
)
async def test_what_its_owner_has_to_mend_is_said(changed: dict[str, Any], says: str, key_file: Path) -> None:
    async with Recorded().serve() as url:
        with pytest.raises(LocalError, match=says):
            await engine(replace(serving(url, key_file), **changed), ENGINES)


async def test_a_server_that_is_not_there(key_file: Path) -> None:
    async with Recorded().serve() as url:
        pass
    (found,) = await engine(serving(url, key_file), ENGINES)
    assert found.verdict is BAD
    assert f"no server answers at {url.removesuffix('/v1')}: start it, or mend --upstream-url" in found.what


def owner_of(config: ProvideConfig, root: Path, hour: int, pids: frozenset[int] = frozenset()) -> Owner:
    local_time = time.struct_time((2027, 1, 31, hour, 0, 0, 6, 31, 0))
    cards = (Gpu("card", 10, 5, None, 0, pids),)
    return Owner(config.manners, silent, root=root, local_time=lambda: local_time, look_at_gpus=lambda: cards)


@pytest.mark.parametrize(
    ("config", "hour", "pids", "verdict", "says"),
    [
        (ProvideConfig(), 12, [], GOOD, "serves at all hours; rests never besides: would serve now"),
        (ProvideConfig(serve_hours=("22:00-07:00",)), 23, [], GOOD, "serves at 22:00-07:00; "),
        (
            ProvideConfig(serve_hours=("22:00-07:00",), pause_on_battery=True),
            18,
            [],
            NOTE,
            "rests on battery: would be paused now, because the provider serves at other hours, for 4 h 0 min more",
        ),
        (ProvideConfig(pause_for_gpu=True), 12, [1 << 30], NOTE, "because the provider's owner uses the GPU"),
    ],
)
async def test_what_the_owners_wishes_mean_now(
    config: ProvideConfig, hour: int, pids: list[int], verdict: Verdict, says: str, tmp_path: Path
) -> None:
    found = await wishes(config, owner_of(config, tmp_path, hour, frozenset(pids)))
    assert found[0].verdict is verdict
    assert says in found[0].what


async def test_a_wish_that_is_not_understood_is_said_to_be_none() -> None:
    with pytest.raises(LocalError, match="write it as 22:00-07:00"):
        await wishes(ProvideConfig(serve_hours=("ten to seven",)))
