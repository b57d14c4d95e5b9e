"""The clients that OpenAI publishes, and a gateway that buys what they ask for: real processes, paid on a devnet."""

from __future__ import annotations

import http.client
import signal
import time
import urllib.error
import urllib.request
from typing import Any

import openai
import pytest
from gateways import HELLO, Gateway, get, start_gateway
from here import here
from local import SCRIPTED, Local
from openai import AsyncOpenAI, OpenAI
from processes import Processes

pytestmark = pytest.mark.slow


def test_models_are_those_on_offer(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [SCRIPTED]
    assert client.models.retrieve(SCRIPTED).owned_by == "scripted"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody/has-it")
    assert caught.value.code == "model_not_found"


def test_an_answer_is_bought(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=SCRIPTED, messages=HELLO, max_tokens=12, seed=1, temperature=0)
    assert len((answer.choices[0].message.content or "").split()) == 12
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 12)
    bombyx = (answer.model_extra or {})["bombyx"]
    assert bombyx["provider"].startswith("12D3KooW")
    assert bombyx["cost_nano"] > 0
    assert len(bytes.fromhex(bombyx["receipt"])) == 16


# The package leaves its own generators to the garbage collector, which Trio warns of.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_tokens_stream_under_trio(gateway: Gateway) -> None:
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="any", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=SCRIPTED, messages=HELLO, max_tokens=12, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens == 12
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks[1:-2]]
    assert len("".join(texts).split()) == 12
    assert len(texts) > 1


def test_the_accounts_tell_of_the_answer(gateway: Gateway, client: OpenAI, network: Local) -> None:
    answer = client.chat.completions.create(model=SCRIPTED, messages=HELLO, max_tokens=3)
    bombyx = (answer.model_extra or {})["bombyx"]

    (provider,) = get(gateway, "/api/providers")["providers"]
    assert provider["peer"] == network.provider.peer
    assert provider["channel_open"]
    assert provider["models"][0]["id"] == SCRIPTED
    assert provider["evidence"]["answered"] >= 1

    receipt = get(gateway, "/api/receipts?limit=1")["receipts"][0]
    assert (receipt["session"], receipt["cost_nano"]) == (bombyx["receipt"], bombyx["cost_nano"])

    (channel,) = get(gateway, "/api/channels")["channels"]
    assert channel["channel"] == receipt["channel"]
    assert 0 < channel["delivered_nano"] <= channel["authorised_nano"] <= channel["deposited_nano"]

    budget = get(gateway, "/api/budget")
    assert budget["answers"]["all_nano"] == channel["delivered_nano"]
    assert budget["wallet"]["balance_nano"] > 0
    assert budget["deposits"]["today_nano"] >= channel["deposited_nano"]
    allowance = get(gateway, "/api/allowance")
    assert allowance["limit"] == "wallet"
    assert allowance["day_max_nano"] == budget["deposits"]["day_max_nano"]
    assert allowance["today_nano"] == budget["answers"]["today_nano"]


def test_leaving_ends_the_answer(gateway: Gateway, client: OpenAI) -> None:
    """A stream that is closed is not generated any further, nor paid."""
    before = get(gateway, "/api/budget")["answers"]
    with client.chat.completions.create(model=SCRIPTED, messages=HELLO, max_tokens=300, stream=True) as stream:
        for chunk, _ in zip(stream, range(5), strict=False):
            assert chunk.choices
    while (after := get(gateway, "/api/budget")["answers"])["count"] == before["count"]:
        time.sleep(0.05)  # until the receipt is in the book
    whole_nano = 300 * get(gateway, "/api/providers")["providers"][0]["models"][0]["price"]["output"] // 10**6
    assert 0 < after["all_nano"] - before["all_nano"] < whole_nano / 2


@pytest.mark.parametrize(
    ("headers", "status"), [({"Host": "evil.example"}, 421), ({"Origin": "https://evil.example"}, 403)]
)
def test_a_web_page_of_others_spends_nothing(gateway: Gateway, headers: dict[str, str], status: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(f"{gateway.url}/v1/models", headers=headers))
    caught.value.close()
    assert caught.value.code == status


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [("/v1/nothing", {}, 404), ("/v1/responses", {"Origin": "https://evil.example"}, 403)],
)
def test_a_connection_is_good_for_more_after_a_refusal(
    gateway: Gateway, path: str, headers: dict[str, str], status: int
) -> None:
    """Also where the body is late: a client that keeps its connections would find this one closed."""
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=30)
    connection.connect()
    connection.auto_open = 0
    connection.putrequest("POST", path)
    for name, value in {"Content-Length": "2", "Content-Type": "application/json", **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    time.sleep(0.2)  # in which a gateway that does not wait for the body has answered, and closed
    connection.send(b"{}")
    refused = connection.getresponse()
    refused.read()
    connection.request("GET", "/v1/models")
    after = connection.getresponse()
    after.read()
    connection.close()
    assert (refused.status, after.status) == (status, 200)


def test_ctrl_c_ends_it(network: Local, processes: Processes) -> None:
    gateway = start_gateway(processes, network.file)
    gateway.process.signal(signal.SIGINT)
    done = gateway.process.wait()
    assert (done.code, done.err) == (0, "")


def test_an_address_in_use_is_said(network: Local, processes: Processes, gateway: Gateway) -> None:
    address = gateway.url.removeprefix("http://")
    done = processes.run(
        "p2p.node", "gateway", "--network", network.file, "--home", processes.home, "--listen", address
    )
    assert done.code == 2
    assert "cannot listen at" in done.complaint
    assert "Nothing can be paid yet" in done.out
    assert "add --faucet" in done.out


def test_a_key_can_do_what_it_is_made_for(network: Local, processes: Processes) -> None:
    home = processes.directory / "keys"

    def key(name: str, *flags: str) -> str:
        where = ("--home", home, "--json")
        secret: str = here(processes, "gateway", "keys", "add", name, *flags, *where).result["key"]
        return secret

    poor = key("poor", "--budget-nano-per-day", "1")
    rare = key("rare", "--requests-per-minute", "1")
    other = key("other", "--model", "some/model")
    gateway = start_gateway(processes, network.file, "keys")

    def ask(secret: str, **more: Any) -> Any:
        with OpenAI(base_url=gateway.base_url, api_key=secret, max_retries=0) as client:
            return client.chat.completions.create(model=SCRIPTED, messages=HELLO, max_tokens=3, **more)

    with pytest.raises(openai.AuthenticationError):
        ask("bx-wrong")
    with pytest.raises(openai.APIStatusError) as caught:
        ask(poor)
    assert (caught.value.status_code, caught.value.code) == (402, "insufficient_quota")
    assert caught.value.response.headers["x-should-retry"] == "false"
    with pytest.raises(openai.PermissionDeniedError):
        ask(other)
    assert ask(rare).choices
    with pytest.raises(openai.RateLimitError) as limited:
        ask(rare)
    assert 0 < int(limited.value.response.headers["retry-after"]) <= 60
    limited_to_one = {"network": "devnet", "free": False, "limit": "key", "day_max_nano": 1, "today_nano": 0}
    assert get(gateway, "/api/allowance", poor) == limited_to_one
    own = get(gateway, "/api/allowance", rare)
    assert (own["limit"], own["day_max_nano"]) == (None, None)
    assert 0 < own["today_nano"] < 10_000
    with pytest.raises(urllib.error.HTTPError) as forbidden:
        get(gateway, "/api/budget", rare)
    forbidden.value.close()
    assert forbidden.value.code == 403
    with pytest.raises(urllib.error.HTTPError) as unseen:
        get(gateway, "/api/budget")
    unseen.value.close()
    assert unseen.value.code == 401

    listed = {
        one["name"]: one["today_nano"]
        for one in processes.run("p2p.node", "gateway", "keys", "--home", home, "--json").result
    }
    assert listed["poor"] == 0
    assert 0 < listed["rare"] < 10_000


def test_what_a_caller_wants_is_heeded(gateway: Gateway, client: OpenAI) -> None:
    def ask(**wishes: Any) -> Any:
        return client.chat.completions.create(
            model=SCRIPTED, messages=HELLO, max_tokens=200, extra_body={"bombyx": wishes}
        )

    refused: list[tuple[dict[str, Any], int, str]] = [
        ({"cost_max_nano": 1}, 402, "insufficient_quota"),
        ({"price_max_output": 1}, 402, "price_cap"),
        ({"tier": "attested"}, 503, "no_provider"),
        ({"timeout_s": 0.01}, 504, "timeout"),
        ({"price_max_ouput": 1}, 400, "invalid_value"),
    ]
    for wishes, status, code in refused:
        with pytest.raises(openai.APIStatusError) as caught:
            ask(**wishes)
        assert (caught.value.status_code, caught.value.code) == (status, code)


def test_elsewhere_than_on_this_machine_keys_are_needed(network: Local, processes: Processes) -> None:
    where = ("--network", network.file, "--home", processes.home, "--listen", "0.0.0.0:0")
    done = here(processes, "gateway", *where)
    assert done.code == 2
    assert "need keys" in done.complaint
