"""The gateway with the embedded model: a real answer, paid on a devnet to the last nano."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_crowd import run_crowd
from gateways import Gateway, get, start_gateway
from local import Local, start_provider
from openai import AsyncOpenAI, OpenAI
from processes import Processes

from p2p.config import EMBEDDED_MODEL

pytestmark = pytest.mark.slow

PARIS: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def gateway(network: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Processes(tmp_path_factory.mktemp("model")) as processes:
        start_provider(processes, network.file, "model", "--settle-at-nano", "1")
        yield start_gateway(processes, network.file)


def test_the_model_answers_and_is_paid(gateway: Gateway) -> None:
    with OpenAI(base_url=gateway.base_url, api_key="any", max_retries=0) as client:
        chat = client.chat.completions
        answer = chat.create(model=EMBEDDED_MODEL, messages=PARIS, temperature=0, max_tokens=24)
        assert len((answer.choices[0].message.content or "").split()) > 3

        with chat.create(model=EMBEDDED_MODEL, messages=PARIS, temperature=0, max_tokens=24, stream=True) as stream:
            chunks: list[Any] = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer.choices[0].message.content

        city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
        schema = city | {"additionalProperties": False}
        form: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        held = chat.create(model=EMBEDDED_MODEL, messages=PARIS, temperature=0, max_tokens=60, response_format=form)
        assert set(json.loads(held.choices[0].message.content or "")) == {"city"}

        vectors = client.embeddings.create(model=EMBEDDED_MODEL, input=["silk", "stone"]).data
        assert [len(one.embedding) for one in vectors] == [576, 576]

    costs = [(answer.model_extra or {})["bombyx"]["cost_nano"], chunks[-1].bombyx["cost_nano"]]
    (channel,) = get(gateway, "/api/channels")["channels"]
    receipts = get(gateway, "/api/receipts")["receipts"]
    assert [one["cost_nano"] for one in receipts[-2:]] == costs[::-1]
    assert sum(one["cost_nano"] for one in receipts) == channel["delivered_nano"]


# The package leaves its own generators to the garbage collector, which Trio warns of.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_the_model_answers_under_trio(gateway: Gateway) -> None:
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="any", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=EMBEDDED_MODEL, messages=PARIS, temperature=0, max_tokens=12, stream=True
        )
        chunks: list[Any] = [chunk async for chunk in stream]
    assert len([chunk for chunk in chunks if chunk.choices[0].delta.content]) > 3
    assert chunks[-1].bombyx["cost_nano"] > 0


def test_a_crowd_is_served(tmp_path: Path) -> None:
    crowd = run_crowd(tmp_path, clients=10, duration_s=0)
    assert (crowd.answers, crowd.failed) == (10, [])
