"""An application with a light peer of its own: no server, no gateway, the network itself.

    python examples/light_peer.py "What is silk?"

Network, wallet and model are those of `ask`. This is for Trio; for asyncio and plain code see `p2p.embed_portal`.
"""

import sys

import trio

from p2p.embed import Client


async def main(question: str) -> None:
    async with Client() as client:
        for offer in await client.quotes():
            print(f"{offer.provider[-6:]} sells {offer.model}: {offer.prices.output} nano a million tokens")
        async with client.chat(question) as reply:
            async for piece in reply:
                print(piece, end="", flush=True)
        print(f"\n({reply.cost_nano} nano to {reply.provider[-6:] if reply.provider else 'nobody'})")


if __name__ == "__main__":
    trio.run(main, " ".join(sys.argv[1:]) or "What is silk?")
