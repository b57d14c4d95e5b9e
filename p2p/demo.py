"""The demonstration: a whole network on this machine, one question, its answer, its receipt and its settlement."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio
from rich.markup import escape

from chain.ledger import Ledger, Transaction
from inference.engine import Request
from p2p.arguments import PROGRAM
from p2p.keys import verify_by_peer
from p2p.localnet import Child, LocalNetwork, LocalOffer, Record
from p2p.peer import LightPeer
from p2p.protocol.receipt import SignedReceipt, verify_receipt
from p2p.protocol.wire import encode
from p2p.purchase import Purchase, amount, buy, transaction_json
from p2p.story import Story, gram, short

# Input price, output price, slots and room to bargain in per cent: no two alike.
OFFERS = (
    ("75000000", "225000000", "1", "5"),
    ("60000000", "180000000", "2", "20"),
    ("66000000", "198000000", "3", "30"),
)


def offers(count: int) -> Sequence[LocalOffer]:
    """The providers of the demonstration. They settle after every answer, so that it can be seen."""
    names = ("--price-input", "--price-output", "--slots", "--discount-percent")
    return [
        LocalOffer(
            (
                *(part for pair in zip(names, OFFERS[number % len(OFFERS)], strict=True) for part in pair),
                "--settle-at-nano",
                "1",
            )
        )
        for number in range(count)
    ]


def introduce(network: LocalNetwork, story: Story) -> None:
    """Who is there."""
    for provider in network.providers:
        story.say(f"  provider {short(provider.ready['peer'])} is process {provider.pid}")


def report(story: Story, *kinds: str) -> Callable[[Child, Record], None]:
    """Tells what the providers report, of the kinds named."""

    def tell(child: Child, record: Record) -> None:
        if record.get("event") in kinds:
            story.say(f"  [dim]{child.name}:[/] {story.line(record).strip()}")

    return tell


async def demonstrate(
    network: LocalNetwork, peer: LightPeer, ledger: Ledger, request: Request, story: Story
) -> dict[str, Any]:
    """One question from discovery to settlement; returns what `--json` prints."""
    story.say(f"[bold]The question:[/] {escape(request.messages[-1].content)}")
    story.say("[bold]The client looks around, asks for quotes, and bargains[/]")
    bought = await buy(peer, request, story.piece)
    story.say("\n[bold]Settling, and closing the channel together[/]")
    channel = bought.answer.channel
    await peer.close_channel(channel)
    settled = next(known.settled_nano for known in await peer.channels() if known.channel == channel)
    transactions = await ledger.transactions(channel)
    receipt = await _check_receipt(bought, network)
    _conclude(bought, settled, transactions, receipt, story)
    return {
        **bought.summary,
        "settled_nano": settled,
        "transactions": [transaction_json(one) for one in transactions],
        "receipt": receipt,
    }


async def _check_receipt(bought: Purchase, network: LocalNetwork) -> dict[str, bool]:
    """By us, and by a process that has nothing but the receipt and the network's name."""
    signed = bought.answer.signed_receipt
    assert isinstance(signed, SignedReceipt)
    verify_receipt(signed, network=network.file.mark.name, verify=verify_by_peer)
    path = network.path.with_name("receipt.hex")
    await trio.Path(path).write_text(encode(signed).hex() + "\n")
    command = [sys.executable, "-m", "p2p.node", "receipts", "verify", str(path), "--network", str(network.path)]
    third = await trio.run_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return {"verified_by_client": True, "verified_by_third_party": third.returncode == 0}


def _conclude(
    bought: Purchase, settled: int, transactions: Sequence[Transaction], receipt: dict[str, bool], story: Story
) -> None:
    verified = "signed by both; checked by the client"
    if receipt["verified_by_third_party"]:
        verified += " and by a third process that knew nothing else"
    chain = [(f"on chain: {one.op}", f"fee {gram(one.fee_nano)}  {one.hash[:16]}…") for one in transactions]
    story.table("What it came to", [*bought.rows(), ("settled", amount(settled)), ("receipt", verified), *chain])
    story.say("[dim]The chain's fees do not grow with the answers. A provider settles, and a client closes,[/]")
    story.say("[dim]when it is worth them; here both did at once, so that it can be seen.[/]")


def how_to_go_on(path: Path, with_key: str, story: Story) -> None:
    """What a person can type while the network is up."""
    story.say("[bold]The network stays up.[/] In another terminal:")
    story.say(f"  {PROGRAM} ask --network {path}{with_key} --home {path.parent / 'me'} --faucet 'What is silk?'")
    story.say("Ctrl-C here ends it.")
