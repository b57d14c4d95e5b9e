"""An application's light peer: under Trio, in plain synchronous code, and on asyncio; each pays on a devnet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from local import SCRIPTED, Local
from processes import Processes

from p2p.config import AskConfig, Config
from p2p.embed import Client
from p2p.embed_portal import AsyncioClient, SyncClient
from p2p.errors import LocalError, Refused

pytestmark = pytest.mark.slow

QUESTION = "why is silk strong"


@pytest.fixture(scope="module")
def config(network: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """Of a home with play money."""
    with Processes(tmp_path_factory.mktemp("embedding")) as processes:
        home = processes.directory / "app"
        funded = processes.run("p2p.node", "wallet", "fund", "--network", network.file, "--home", home)
        assert funded.code == 0, funded.err
        yield _config(home, network.file)


def _config(home: Path, network: Path) -> Config:
    return Config(home=str(home), network=str(network), ask=AskConfig(model=SCRIPTED, max_tokens=20))


async def test_under_trio(config: Config, network: Local) -> None:
    async with Client(config) as client:
        async with client.chat(QUESTION, max_tokens=12) as reply:
            pieces = [piece async for piece in reply]
        assert len(pieces) > 1
        assert "".join(pieces) == reply.text
        assert reply.completion_tokens == len(reply.text.split()) == 12
        assert (reply.provider, reply.failovers) == (network.provider.peer, 0)

        again = await client.complete(QUESTION, max_tokens=12)
        assert again.text == reply.text
        assert again.cost_nano > 0
        assert again.receipt in {receipt.session.hex() for receipt in await client.receipts()}
        assert len((await client.summarize("Silk is strong.", words=5)).text.split()) == 15
        assert (await client.draft("say hello", "a letter")).completion_tokens == 20

        silk, stone = await client.embed(["silk", "stone"])
        assert len(silk) == len(stone) > 1
        assert silk != stone

        (offer,) = await client.quotes(SCRIPTED)
        assert offer.provider == network.provider.peer
        assert offer.prices.output > 0
        spent = await client.budget()
        assert spent.today_nano == spent.all_nano >= reply.cost_nano + again.cost_nano
        assert spent.in_channels_nano > 0

        with pytest.raises(Refused, match="it could cost"):
            await client.complete(QUESTION, cost_max_nano=1)


def test_in_synchronous_code(config: Config) -> None:
    with SyncClient(config) as client:
        with client.chat(QUESTION, max_tokens=12) as reply:
            pieces = list(reply)
        assert "".join(pieces) == client.complete(QUESTION, max_tokens=12).text
        assert reply.reply.completion_tokens == 12
        assert client.budget().all_nano > 0
        with pytest.raises(Refused, match="it could cost"):
            client.draft("say hello", cost_max_nano=1)


def test_on_asyncio(config: Config) -> None:
    async def main() -> None:
        async with AsyncioClient(config) as client:
            async with client.chat(QUESTION, max_tokens=12) as reply:
                pieces = [piece async for piece in reply]
            several = await asyncio.gather(*(client.complete(QUESTION, max_tokens=12) for _ in range(2)))
            assert {one.text for one in several} == {"".join(pieces)}

            async with client.chat(QUESTION, max_tokens=300) as long:
                async for _ in long:
                    break
            assert 0 < long.reply.completion_tokens < 300

    # Other tests of this process may have brought trio-asyncio in; later the client leaves `asyncio.run` as it was.
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
    asyncio.run(asyncio.to_thread(time.time))
    with asyncio.Runner() as runner:
        assert isinstance(runner.get_loop(), asyncio.SelectorEventLoop)


def test_before_it_is_open(config: Config) -> None:
    with pytest.raises(LocalError, match="not open"):
        SyncClient(config).budget()
