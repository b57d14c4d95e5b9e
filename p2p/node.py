"""`python -m p2p.node`: the command line."""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    suppress,
)
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import trio
from rich.console import Console

from chain.wallet import WalletKey
from inference.engine import Message
from inference.nursery import open_background
from inference.worker import open_worker
from p2p import (
    arguments,
    channel_commands,
    chat_command,
    customer,
    demand_command,
    demo,
    doctor,
    models_command,
    peers_command,
    provide_command,
    swarm_key,
    wallet_commands,
    watching,
    why_command,
)
from p2p.config import Config
from p2p.config import load as load_config
from p2p.console import Session
from p2p.demands import Demands
from p2p.discovery import KNOWN_FAMILIES, Directory
from p2p.earnings import earnings
from p2p.ending import DONE, explain, signalled
from p2p.errors import LocalError, Unavailable
from p2p.home import Home
from p2p.host import Host
from p2p.interrupt import Interrupt
from p2p.joining import joined
from p2p.keys import SEED_BYTES, load_or_create_seed, verify_by_peer
from p2p.localnet import Child, LocalNetwork, LocalOffer, Record, open_local_network, steps
from p2p.metrics import metrics
from p2p.network_file import NetworkFile, read_chain, read_network, unpaid_chain, write_network
from p2p.peer import LightPeer
from p2p.purchase import Purchase
from p2p.receipt_commands import receipts
from p2p.recording import recording
from p2p.story import JsonLines, Story
from p2p.terminal import Terminal
from p2p.trace import Trace, among
from p2p.wallet_commands import Wiring
from p2p.wiring import (
    PEERS_FILE,
    fund,
    inbound_limits,
    is_free,
    lan_of,
    open_client,
    open_ledger,
    open_passerby,
    open_server,
    require_cuda,
)

if TYPE_CHECKING:
    from chain.tonledger import TonLedger


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 to be changed by the user, 130, 141 or 143 for a signal."""
    as_json = False
    try:
        options = arguments.parse(list(sys.argv[1:] if argv is None else argv))
        as_json = options.json
        terminal = Terminal(os.environ)
        file = Path(options.config) if options.config else None
        config = load_config(file, os.environ, arguments.overrides(options))
        code = trio.run(_run, options, config, terminal)
    except BaseException as error:
        code = explain(error, as_json=as_json)
    sys.exit(code)


SERVICES = frozenset({"provide", "relay", "watch", "gateway"})
"""Commands that run until they are told to stop; with `--json` they say what happens meanwhile."""


async def _run(options: argparse.Namespace, config: Config, terminal: Terminal) -> int:
    """The command, until it is done or told to stop."""
    with ExitStack() as stack:
        session = _session(options, config, terminal, _traces(config, stack))
        return await _obey(session)


async def _obey(session: Session) -> int:
    options = session.options
    command: Callable[[Session], Awaitable[None]] = COMMANDS[options.command]
    interrupt = session.interrupt
    async with interrupt.watching(), open_background() as background:
        if getattr(options, "until_stdin_closes", False):
            background.start_soon(_stop_when_stdin_closes, interrupt.everything)
        await command(session)
    return signalled(interrupt.struck) if interrupt.struck and not session.up.is_set() else DONE


async def _stop_when_stdin_closes(scope: trio.CancelScope) -> None:
    """For a parent that may be killed: its end of the pipe closes then, whatever happened to it."""
    while True:
        await trio.lowlevel.wait_readable(0)
        if not os.read(0, 4096):
            scope.cancel()
            return


def _traces(config: Config, stack: ExitStack) -> Sequence[Trace]:
    """What is told of everything besides the terminal, if the user wants it."""
    traces: list[Trace] = []
    if config.trace:
        traces.append(stack.enter_context(recording(Path(config.trace).expanduser())))
    if config.metrics:
        traces.append(stack.enter_context(metrics(config.metrics)))
    return traces


def _session(options: argparse.Namespace, config: Config, terminal: Terminal, traces: Sequence[Trace]) -> Session:
    # What `ask` and `chat` print on standard output is the answer alone, so that it can be piped.
    story = Story(Console(stderr=options.command in {"ask", "chat"}, quiet=options.json))
    lines = options.json and options.command in SERVICES
    trace = JsonLines(sys.stdout) if lines else story
    return Session(options, config, story, among(trace, *traces), terminal, Interrupt(), trio.Event())


async def relay(session: Session) -> None:
    """A bootstrap peer, through which those can be reached that cannot be dialled."""
    from p2p.net.libp2p_host import open_host

    options, config = session.options, session.config
    home = config.home_path
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    seed = load_or_create_seed(home / "identity.key")
    path, key_path = options.network_out or config.network_path, swarm_key.path_of(config)
    if options.unpaid:
        key_path = key_path or home / swarm_key.FILE_NAME
        chain = _unpaid_chain(path, key_path)
    else:
        chain = read_chain(options.chain, options.chain_name)
    key = swarm_key.read(key_path) if key_path else None
    name = chain["bombyx"]["name"]
    libp2p = open_host(
        seed,
        config.listen,
        dht_server=True,
        network=name,
        peers_file=home / PEERS_FILE,
        relay=config.relay.limits,
        upnp=config.upnp,
        inbound=inbound_limits(config),
        swarm_key=key,
    )
    async with libp2p as host:
        mark = swarm_key.fingerprint(key) if key else ""
        network = NetworkFile(bootstraps=tuple(host.addresses()), swarm_key=mark, chain=chain)
        write_network(path, network)
        session.trace("ready", peer=host.peer, addresses=list(host.addresses()), network=str(path))
        session.story.say(f"A bootstrap peer is up: {host.addresses()[0]}")
        session.story.say(f"Others join with --network {path}{_with_key(key_path)}. Ctrl-C ends it.")
        session.up.set()
        # A bootstrap peer carries everybody's adverts, so it listens to every family.
        directory = Directory(host, network=name, verify=verify_by_peer, clock=time.time)
        async with joined(host, (), lan_of(config, network, host), trace=session.trace):
            demands = Demands(host, network=name, verify=verify_by_peer, clock=time.time)
            async with open_background() as background:
                background.start_soon(demands.listen, KNOWN_FAMILIES)
                await directory.listen(KNOWN_FAMILIES)


def _unpaid_chain(path: Path, key_path: Path) -> dict[str, Any]:
    """Of the private network with that key, which is made if there is none. Raises `LocalError`."""
    known = read_network(path).swarm_key if path.exists() else None
    if known is None and not key_path.exists():
        swarm_key.create(key_path)
    mark = swarm_key.fingerprint(swarm_key.read(key_path)) if key_path.exists() else ""
    if known is not None and (known != mark or not read_network(path).unpaid):
        raise LocalError(f"{path} joins another network, and is not replaced: give another --home or --network-out")
    return unpaid_chain(mark)


async def provide(session: Session) -> None:
    """Sell answers until told to stop."""
    await provide_command.run(session, open_worker)


async def ask(session: Session) -> None:
    """One question; the answer goes to standard output."""
    request = customer.request_of(session.config, Message("user", _prompt(session.options.prompt)))
    async with customer.open_customer(session) as (node, peer):
        bought = await customer.buy(session, node, peer, request)
        if session.options.close and not bought.answer.unpaid:
            await peer.close_channel(bought.answer.channel)
        if session.options.json:
            session.print_json(bought.summary)
            return
        session.story.table("", bought.rows())


async def chat(session: Session) -> None:
    """One question after the other."""
    async with customer.open_customer(session) as (node, peer):

        async def buy(messages: tuple[Message, ...]) -> Purchase:
            return await customer.buy(session, node, peer, customer.request_of(session.config, *messages))

        await chat_command.run(session, buy)


def _prompt(words: str) -> str:
    """The question, and below it what was piped in. Raises `LocalError` if there is neither."""
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()
    prompt = "\n\n".join(part for part in (words.strip(), piped.strip()) if part)
    if not prompt:
        raise LocalError(f'nothing was asked; try: {arguments.PROGRAM} ask "What is silk?"')
    return prompt


async def gateway(session: Session) -> None:
    """Serve OpenAI's clients until told to stop."""
    try:
        from p2p.gateway.command import manage_keys, serve  # a tenth of a second to import, and an extra
    except ImportError as error:
        raise LocalError(f"the gateway needs {error.name}: pip install 'bombyx[gateway]'") from None

    if session.options.action == "keys":
        manage_keys(session)
        return
    network = session.network()
    free = is_free(session.config, network)
    async with open_client(session, network, free=free) as (node, peer):
        if session.options.faucet:
            await fund(node.network, node.ledger.wallet.address)
        with suppress(Unavailable):  # a chain that does not answer now may do so when the first answer is to be paid
            if lack := await customer.lack_of_money(session.config, node, peer):
                session.story.say(f"Nothing can be paid yet: {lack}.")
        await serve(session, node, peer, free=free)


async def run_demo(session: Session) -> None:
    """A whole network on this machine, one paid answer."""
    options, story = session.options, session.story
    if not 1 <= options.providers <= 8:
        raise LocalError("--providers: from 1 to 8")
    tell = demo.report(story, "settled", "released")
    key_path = swarm_key.path_of(session.config)
    async with _local_network(story, demo.offers(options.providers), key_path, tell) as network:
        demo.introduce(network, story)
        path, key = network.path, str(key_path or "")
        config = msgspec.structs.replace(session.config, home=str(path.parent), network=str(path), swarm_key=key)
        async with open_client(replace(session, config=config), network.file) as (node, peer):
            await fund(node.network, node.ledger.wallet.address)
            async with session.interrupt.gently():
                result = await demo.demonstrate(
                    network, peer, node.ledger, customer.request_of(config, Message("user", options.prompt)), story
                )
        if options.json:
            session.print_json(result | ({"network": str(path)} if options.keep else {}))
        if options.keep:
            demo.how_to_go_on(path, _with_key(key_path), story)
            session.up.set()
            await trio.sleep_forever()


async def solo(session: Session) -> None:
    """What a bare `python -m p2p.node` does: a provider, a bootstrap and a devnet to play with."""
    story, config = session.story, session.config
    path = config.network_path
    if path.exists() and not read_network(path).mark.control:
        raise LocalError(f"{path} joins a network that is no plaything, and is not replaced: give another --home")
    story.say("[bold]A network of your own on this machine[/] (play money, nothing is announced outside)")
    tell = demo.report(story, "served", "settled", "released")
    key_path = swarm_key.path_of(config)
    async with _local_network(story, [LocalOffer(("--settle-at-nano", "1"))], key_path, tell) as network:
        write_network(path, network.file)
        where = "" if config.home == Config().home else f" --home {shlex.quote(config.home)}"
        where += _with_key(key_path) if config.swarm_key else ""
        story.say(f"Ready. It sells {config.ask.model}. In another terminal, type:")
        story.say(f'  {arguments.PROGRAM} ask{where} --faucet "Why is the sky blue?"')
        story.say(
            f"or, for programs that speak OpenAI's API, and a page to chat with at http://{config.gateway.listen}/:"
        )
        story.say(f"  {arguments.PROGRAM} gateway{where} --faucet")
        story.say("What it earns is shown here. Ctrl-C ends it. `demo` shows more.")
        session.up.set()
        await trio.sleep_forever()


@asynccontextmanager
async def _local_network(
    story: Story, offers: Sequence[LocalOffer], key_path: Path | None, tell: Callable[[Child, Record], None]
) -> AsyncIterator[LocalNetwork]:
    async with _local_directory() as directory, AsyncExitStack() as stack:
        with story.progress(steps(len(offers))) as step:
            opened = open_local_network(directory, offers, swarm_key=key_path, step=step, tell=tell)
            network = await stack.enter_async_context(opened)
        yield network


@asynccontextmanager
async def _local_directory() -> AsyncIterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="bombyx-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def make_swarm_key(session: Session) -> None:
    """The key of a private network."""
    path: Path = session.options.file
    swarm_key.create(path)
    session.story.say(f"{path} is the key of a network of its own; give it to its members and to nobody else.")
    session.story.say(f"Begin with: {arguments.PROGRAM} relay --chain FILE{_with_key(path)}")
    if session.options.json:
        session.print_json({"swarm_key": str(path)})


def _with_key(path: Path | None) -> str:
    return f" --swarm-key {shlex.quote(str(path))}" if path else ""


async def channels(session: Session) -> None:
    """List channels, or close one."""
    await channel_commands.run(session, partial(_light_peer, session))


async def demand(session: Session) -> None:
    """Ask for standing quotes, or list them."""
    await demand_command.run(session, partial(_light_peer, session))


@asynccontextmanager
async def _light_peer(session: Session, *, alone: bool = False, listen: bool = False) -> AsyncIterator[LightPeer]:
    async with open_client(session, session.network(), alone=alone, listen=listen) as (_, peer):
        yield peer


async def wallet(session: Session) -> None:
    """Show, make, lock, back up or empty the wallet."""
    await wallet_commands.run(session, Wiring(open_ledger, fund))


async def watch(session: Session) -> None:
    """Settle for a provider that is away."""
    await watching.watch(session, Wiring(partial(open_ledger, trace=session.trace), fund))


async def peers(session: Session) -> None:
    """Who is there, or why one is thought of as it is."""
    if session.options.action == "why":
        why_command.why(session)
        return

    @asynccontextmanager
    async def joined_host(network: NetworkFile) -> AsyncIterator[Host]:
        config = session.config
        async with (
            open_passerby(config, network) as host,
            joined(host, network.bootstraps, lan_of(config, network, host)),
        ):
            yield host

    await peers_command.run(session, joined_host)


async def examine(session: Session) -> None:
    """Look for what stands in the way."""

    def ledger(network: NetworkFile, home: Home) -> AbstractAsyncContextManager[TonLedger]:
        return open_ledger(network, WalletKey(secrets.token_bytes(SEED_BYTES)), home.purse)

    config = session.config
    look, listen = partial(open_passerby, config), partial(open_passerby, config, listen=config.listen)
    await doctor.run(session, doctor.Wiring(look, listen, ledger), doctor.Engines(open_server, require_cuda))


COMMANDS: dict[str, Callable[[Session], Awaitable[None]]] = {
    "solo": solo,
    "demo": run_demo,
    "provide": provide,
    "ask": ask,
    "chat": chat,
    "demand": demand,
    "gateway": gateway,
    "relay": relay,
    "swarm-key": make_swarm_key,
    "channels": channels,
    "receipts": receipts,
    "wallet": wallet,
    "earnings": earnings,
    "watch": watch,
    "peers": peers,
    "models": models_command.run,
    "doctor": examine,
}


if __name__ == "__main__":
    main()
