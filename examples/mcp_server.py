"""An MCP server that lends an assistant the network: it may ask another model, look at prices, and see what it spent.

    pip install 'bombyx[mcp]'
    claude mcp add bombyx -- python examples/mcp_server.py

or whatever else your assistant starts servers with: this one speaks on standard input and output. Network, wallet and
model are those of `ask`; BOMBYX_ASK_ANSWER_MAX_NANO is the most that one answer may cost, whatever the assistant wants.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import trio
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from p2p.embed import Client, Offer
from p2p.ending import explain
from p2p.errors import Error

ANSWER_MAX_NANO = 1_000_000  # of an answer, where the settings say nothing


def tools(client: Client) -> MCPServer[Any]:
    """What the assistant may call. What it is told of an error is the one sentence that a person would be told."""
    server: MCPServer[Any] = MCPServer("bombyx", instructions="Amounts are in nano: 10^9 of them are one GRAM.")

    @server.tool()
    async def chat(question: str, model: str = "") -> dict[str, Any]:
        """Ask a model that a stranger runs, and pay for the answer. The stranger reads the question."""
        try:
            allowed = client.peer.budget.answer_max_nano or ANSWER_MAX_NANO
            reply = await client.complete(question, model=model or None, cost_max_nano=allowed)
        except Error as error:
            raise ToolError(str(error)) from None
        return {"answer": reply.text, "provider": reply.provider, "cost_nano": reply.cost_nano}

    @server.tool()
    async def quotes(model: str = "") -> list[dict[str, Any]]:
        """Who sells answers of `model`, or of any, for how many nano per million tokens; the cheapest first."""
        try:
            offers: Sequence[Offer] = await client.quotes(model or None)
        except Error as error:
            raise ToolError(str(error)) from None
        return [
            {
                "provider": offer.provider,
                "model": offer.model,
                "input_nano": offer.prices.input,
                "output_nano": offer.prices.output,
                "tokens_per_s": offer.tokens_per_s,
            }
            for offer in offers
        ]

    @server.tool()
    async def budget() -> dict[str, Any]:
        """What answers cost today and in all, and what is left in payment channels, in nano."""
        return dataclasses.asdict(await client.budget())

    return server


async def main() -> None:
    async with Client() as client:
        await tools(client).run_stdio_async()


if __name__ == "__main__":
    try:
        trio.run(main)
    except Error as error:
        sys.exit(explain(error, as_json=False))
