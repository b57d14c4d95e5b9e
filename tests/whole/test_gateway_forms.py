"""What answers may hold besides prose, and the other endpoints, as the official client asks for them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from gateways import HELLO, Gateway, start_gateway
from local import SCRIPTED, Local, start_provider
from openai import OpenAI
from processes import Processes
from recorded_server import KEY, NAME, Recorded

pytestmark = pytest.mark.slow

WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
PERSON: dict[str, Any] = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_tool_is_called_and_what_came_of_it_is_heard(client: OpenAI, choice: Any) -> None:
    tools: list[Any] = [{"type": "function", "function": WEATHER}]
    answer = client.chat.completions.create(
        model=SCRIPTED, messages=HELLO, tools=tools, tool_choice=choice, max_tokens=60
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    message: Any = answer.choices[0].message
    (call,) = message.tool_calls
    assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments), dict)
    told: list[Any] = [*HELLO, message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    after = client.chat.completions.create(model=SCRIPTED, messages=told, tools=tools, max_tokens=5)
    assert len((after.choices[0].message.content or "").split()) == 5


def test_a_call_streams(client: OpenAI) -> None:
    tools: list[Any] = [{"type": "function", "function": WEATHER}]
    with client.chat.completions.stream(
        model=SCRIPTED, messages=HELLO, tools=tools, tool_choice="required", max_tokens=60
    ) as stream:
        final: Any = stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.name == "get_weather"


def test_a_call_that_is_cut_off_is_told_as_far_as_it_came(client: OpenAI) -> None:
    def ask(max_tokens: int, *, stream: bool) -> Any:
        tools: list[Any] = [{"type": "function", "function": WEATHER}]
        asked: Any = {"model": SCRIPTED, "messages": HELLO, "tools": tools, "tool_choice": "required"}
        return client.chat.completions.create(**asked, max_tokens=max_tokens, stream=stream)

    whole = ask(60, stream=False).choices[0].message.tool_calls[0].function.arguments
    tokens = ask(60, stream=False).usage.completion_tokens - 1
    answer = ask(tokens, stream=False).choices[0]
    (call,) = answer.message.tool_calls
    assert (answer.finish_reason, call.function.name) == ("length", "get_weather")
    assert whole.startswith(call.function.arguments)
    assert 0 < len(call.function.arguments) < len(whole)
    with ask(tokens, stream=True) as stream:
        chunks = [chunk.choices[0] for chunk in stream]
    parts = [part for chunk in chunks for part in chunk.delta.tool_calls or ()]
    assert "".join(part.function.arguments for part in parts) == call.function.arguments
    assert chunks[-1].finish_reason == "length"


def test_an_answer_is_held_to_a_schema(client: OpenAI) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    answer = client.chat.completions.create(model=SCRIPTED, messages=HELLO, response_format=wanted, max_tokens=60)
    assert set(json.loads(answer.choices[0].message.content or "")) == {"name"}


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(client: OpenAI, stream: bool) -> None:
    answer: Any = client.chat.completions.create(
        model=SCRIPTED, messages=HELLO, logprobs=True, top_logprobs=2, max_tokens=6, stream=stream
    )
    choices = [chunk.choices[0] for chunk in answer if chunk.choices] if stream else answer.choices
    told = [one for choice in choices for one in (choice.logprobs.content if choice.logprobs else ())]
    texts = [choice.delta.content if stream else choice.message.content for choice in choices]
    assert "".join(one.token for one in told) == "".join(filter(None, texts))
    assert all(one.logprob <= 0 and len(one.top_logprobs) == 2 for one in told)


def test_several_choices_stop_and_seed(client: OpenAI) -> None:
    def ask(seed: int) -> list[str]:
        answer = client.chat.completions.create(model=SCRIPTED, messages=HELLO, n=2, seed=seed, max_tokens=8)
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 16)
        return [choice.message.content or "" for choice in answer.choices]

    texts = ask(7)
    assert len(set(texts)) == 2
    assert ask(7) == texts
    assert ask(8) != texts
    first, second = texts[0].split()[:2]
    cut = client.chat.completions.create(model=SCRIPTED, messages=HELLO, seed=7, max_tokens=8, stop=[f" {second}"])
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == (first, "stop")


def test_embeddings(client: OpenAI) -> None:
    answer = client.embeddings.create(model=SCRIPTED, input=["silk", "stone"])  # the package asks for base64
    silk, stone = (one.embedding for one in answer.data)
    assert len(silk) == len(stone) > 1
    assert silk != stone
    assert answer.usage.total_tokens == 2
    again = client.embeddings.create(model=SCRIPTED, input="silk", encoding_format="float")
    assert again.data[0].embedding == pytest.approx(silk)


@pytest.mark.parametrize("stream", [False, True])
def test_the_older_completions(client: OpenAI, stream: bool) -> None:
    answer: Any = client.completions.create(model=SCRIPTED, prompt="why is silk strong", max_tokens=6, stream=stream)
    text = "".join(chunk.choices[0].text for chunk in answer) if stream else answer.choices[0].text
    assert len(text.split()) == 6


def test_responses(client: OpenAI) -> None:
    whole = client.responses.create(model=SCRIPTED, input="why is silk strong", max_output_tokens=6)
    assert len(whole.output_text.split()) == 6
    assert (whole.status, whole.usage and whole.usage.output_tokens) == ("incomplete", 6)
    with client.responses.stream(model=SCRIPTED, input="why is silk strong", max_output_tokens=6) as stream:
        events: list[Any] = list(stream)
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert events[-1].type == "response.incomplete"
    assert "".join(deltas) == events[-1].response.output_text
    assert len("".join(deltas).split()) == 6
    tools: list[Any] = [{"type": "function", **WEATHER}]
    called: Any = client.responses.create(model=SCRIPTED, input="go", tools=tools, tool_choice="required").output[0]
    assert (called.type, called.name) == ("function_call", "get_weather")


# Nobody here sells a model that sees. Whether one thinks before it answers the suite tells by its name: see below.
IMPOSSIBLE = {
    "openai-chat": {"chat-image-input": "failed", "chat-reasoning-summary": "skipped"},
    "open-responses": {"image-input": "failed", "reasoning-summary": "skipped"},
}
THINKS = "stand-in/deepseek-r"


def comply(base_url: str, model: str, *kinds: str, only: Sequence[str] = ()) -> dict[str, dict[str, str]]:
    """What came of the tests of each kind, all at once."""
    program = Path(sys.executable).parent / "llm-comply"
    flags = ["--base-url", base_url, "--api-key", "any", "--model", model, "--json"]
    flags += [flag for name in only for flag in ("--filter", name)]
    running = {kind: subprocess.Popen([program, *flags, "--format", kind], stdout=subprocess.PIPE) for kind in kinds}
    said = {kind: json.loads(process.communicate()[0])["results"] for kind, process in running.items()}
    return {kind: {one["id"]: one["status"] for one in results} for kind, results in said.items()}


def test_the_compliance_suite(gateway: Gateway) -> None:
    said = comply(gateway.base_url, SCRIPTED, *IMPOSSIBLE)
    assert {kind: len(results) for kind, results in said.items()} == {"openai-chat": 9, "open-responses": 13}
    missed = {
        kind: {name: status for name, status in results.items() if status != "passed"} for kind, results in said.items()
    }
    assert missed == IMPOSSIBLE


async def test_the_compliance_suite_asks_a_model_that_thinks(network: Local, processes: Processes) -> None:
    """A stand-in of a server whose model thinks before it answers: what it thinks is neither passed on nor paid."""
    key_file = processes.directory / "key"
    key_file.write_text(KEY)
    key_file.chmod(0o600)

    def ask(url: str) -> dict[str, dict[str, str]]:
        served = ("--upstream-url", url, "--upstream-model", f"{NAME}={THINKS}=stand-in")
        start_provider(
            processes, network.file, "thinker", "--engine", "upstream", *served, "--upstream-key-file", str(key_file)
        )
        gateway = start_gateway(processes, network.file)
        return comply(gateway.base_url, THINKS, "openai-chat", only=["chat-reasoning-summary"])

    async with Recorded(hidden=5).serve() as url:
        said = await trio.to_thread.run_sync(ask, url)
    assert said == {"openai-chat": {"chat-reasoning-summary": "passed"}}
