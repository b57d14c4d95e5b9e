"""A provider at home is found and reached, and paid: real programs behind real routers, in network namespaces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from internet import Elsewhere, Home, Internet, Nat, Unusable
from local import CHEAP, SCRIPTED


@pytest.fixture
def internet() -> Iterator[Internet]:
    try:
        with Internet() as made:
            yield made
    except Unusable as why:
        pytest.skip(f"no internet of our own here: {why}")


class World:
    """A devnet and a relay in the open, and a provider at home, on an internet."""

    def __init__(self, internet: Internet, stack: ExitStack, directory: Path, nat: Nat) -> None:
        self.internet = internet
        self._stack = stack
        self._directory = directory
        self._network = directory / "network.json"
        outside = self._at("outside", place := internet.host("relay"))
        chain = directory / "chain.json"
        devnet = outside.serve("chain.devnet", "--host", place.ip, "--config-out", chain)
        devnet.said(lambda text: text.endswith("\n"))
        self.relay = outside.serve(
            "p2p.node", "relay", "--listen", f"/ip4/{place.ip}/tcp/4001",
            "--chain", chain, "--network-out", self._network, "--home", directory / "relay",
        ).record("ready")  # fmt: skip
        self.provider_home = internet.home("provider", nat)
        self.provider = self._at("provider", self.provider_home.inside).serve(
            "p2p.node", "provide", "--listen", "/ip4/0.0.0.0/tcp/4001",
            "--network", self._network, "--home", directory / "seller", "--faucet", *CHEAP,
        )  # fmt: skip

    def ask_from(self, home: Home) -> Any:
        """What a client there is answered, and pays for."""
        return self._at("client", home.inside).run(
            "p2p.node", "ask", "--network", self._network, "--home", self._directory / "buyer", "--model", SCRIPTED,
            "--faucet", "--json", "Why is the sky blue?",
        ).result  # fmt: skip

    def doctor_at(self, home: Home) -> Any:
        """What is said there, to one who would sell, of how others reach it."""
        settings = {"BOMBYX_LISTEN": "/ip4/0.0.0.0/tcp/4001", "BOMBYX_PROVIDE_ENGINE": "scripted"}
        found = self._at("patient", home.inside).run(
            "p2p.node", "doctor", "--provider", "--network", self._network, "--home", self._directory / "new", "--json",
            environment=settings,
        ).result  # fmt: skip
        return next(one for one in found if one["check"] == "reach")

    def _at(self, name: str, place: Any) -> Elsewhere:
        return self._stack.enter_context(Elsewhere(self._directory / name, place))


@pytest.mark.slow
@pytest.mark.parametrize(("nat", "path"), [("cone", "punched"), ("symmetric", "relayed")])
def test_a_provider_at_home_is_paid_by_a_client_at_home(
    nat: Nat, path: str, internet: Internet, tmp_path: Path
) -> None:
    """Through the relay, or by a hole in both routers where these keep to one port."""
    with ExitStack() as stack:
        world = World(internet, stack, tmp_path, nat)
        (announced,) = world.provider.record("reachable")["addresses"]
        peer = world.provider.record("ready")["peer"]
        assert announced == f"{world.relay['addresses'][0]}/p2p-circuit/p2p/{peer}"
        home = internet.home("client", nat)
        answer = world.ask_from(home)
        served = world.provider.record("served")
        assert answer["provider"] == peer
        assert answer["cost_nano"] == served["earned_nano"] > 0
        assert answer["path"] == path
        straight = internet.bytes_from_other_homes(home), internet.bytes_from_other_homes(world.provider_home)
        if path == "punched":
            assert min(straight) > len(answer["answer"])
        else:
            assert straight == (0, 0)
            assert world.doctor_at(home)["what"].startswith("behind a router or firewall, reached through a relay")
