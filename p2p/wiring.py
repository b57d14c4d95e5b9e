"""What commands work with, wired of concrete parts: a host, a ledger, a role with its keys and book, a light peer."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from chain.book import Book
from chain.keeper import BookKeeper
from chain.keys import Ed25519Signer
from chain.ledger import Ledger
from chain.nochain import NoChain
from chain.purse import Purse
from chain.wallet import WalletKey
from inference.engine import Engine
from inference.exllama.settings import ExLlama
from inference.link import Spec
from inference.llamacpp import GgufFile, LlamaCpp
from inference.scripted import Scripted
from inference.upstream import ServedModel, Upstream, open_upstream
from inference.worker import open_worker
from p2p import swarm_key
from p2p.auditing import AuditBudget, Reader, open_auditor
from p2p.budget import Budget
from p2p.config import AuditConfig, Config, ProvideConfig
from p2p.discovery import KNOWN_FAMILIES
from p2p.errors import LocalError, Unavailable
from p2p.foreign import translated
from p2p.home import Home
from p2p.host import Host
from p2p.joining import Lan, joined
from p2p.keys import SEED_BYTES, load_or_create_seed
from p2p.network_file import NetworkFile
from p2p.peer import LightPeer
from p2p.strategies import buyer_strategy
from p2p.terminal import Terminal
from p2p.trace import Trace, silent
from p2p.track_record import TrackRecord

if TYPE_CHECKING:
    from chain.tonledger import TonLedger
    from p2p.net.limits import InboundLimits

CONTEXT_TOKENS = 4096  # of the engine that reads answers
FAUCET_NANO = 2_000_000_000
PEERS_FILE = "peers.json"  # the DHT servers that were known last


@dataclass(frozen=True)
class Node:
    """A role on the network, wired: host, money, keys."""

    host: Host
    ledger: Ledger
    keeper: BookKeeper
    identity: Ed25519Signer
    channel_key: Ed25519Signer
    network: NetworkFile


class Means(Protocol):
    """What everything here is opened with: a run of a command is such, and so is an application that embeds us."""

    @property
    def config(self) -> Config: ...

    @property
    def trace(self) -> Trace: ...

    @property
    def terminal(self) -> Terminal: ...


@asynccontextmanager
async def open_node(
    session: Means,
    network: NetworkFile,
    home: Home,
    key: WalletKey | None,
    listen: Sequence[str],
    *,
    alone: bool = False,
) -> AsyncIterator[Node]:
    """Keys, book, chain and network of one role; no peer is needed `alone`, and no chain without a `key`.

    Raises `LocalError` or `Unavailable`.
    """
    member_key = swarm_key.key_for(session.config, network)
    # libp2p takes half a second to import, which `--help` and a mistyped flag need not wait for.
    from p2p.net.libp2p_host import open_host

    with translated():
        identity = Ed25519Signer(load_or_create_seed(home.identity))
        channel_key = Ed25519Signer(load_or_create_seed(home.channel_key))
        async with AsyncExitStack() as stack:
            book = stack.enter_context(Book(home.book, home.role, network.chain_network))
            ledger: Ledger = NoChain(network.chain_network)
            if key is not None:
                ledger = await stack.enter_async_context(open_ledger(network, key, home.purse, session.trace))
            libp2p = open_host(
                identity.seed,
                listen,
                dht_server=bool(listen),
                network=network.mark.name,
                peers_file=home.folder / PEERS_FILE,
                upnp=session.config.upnp,
                inbound=inbound_limits(session.config),
                swarm_key=member_key,
            )
            host = await stack.enter_async_context(libp2p)
            if not alone:
                lan = lan_of(session.config, network, host)
                await stack.enter_async_context(joined(host, network.bootstraps, lan, trace=session.trace))
            yield Node(host, ledger, BookKeeper(book), identity, channel_key, network)


@asynccontextmanager
async def open_client(
    session: Means, network: NetworkFile, *, alone: bool = False, free: bool = False, listen: bool = False
) -> AsyncIterator[tuple[Node, LightPeer]]:
    """A light peer: it dials, and is not dialled unless it is to `listen`.

    A `free` one has no wallet, and asks no chain. Audits that are due are waited for in the end.
    """
    ask = session.config.ask
    strategy, reader = buyer_strategy(ask, session.trace), _reader(session.config.audit)
    home = Home(session.config, "payer")
    key = None if free else await home.unlock(network.chain_network, session.terminal)
    addresses = session.config.listen if listen else ()
    async with open_node(session, network, home, key, addresses, alone=alone) as node:
        peer = LightPeer(
            host=node.host,
            ledger=node.ledger,
            keeper=node.keeper,
            identity=node.identity,
            payer_key=node.channel_key,
            budget=Budget(
                prices_max=ask.prices_max,
                deposit_nano=ask.deposit_nano,
                channels_max=ask.channels_max,
                answer_max_nano=ask.answer_max_nano,
                nano_per_second=ask.weights.nano_per_second,
                tier=ask.weights.tier,
                features=ask.features,
                allow=ask.allow,
                block=ask.block,
                strategy=strategy,
            ),
            clock=time.time,
            trace=session.trace,
        )
        if not free:
            await peer.load()
        if reader is None or free:
            yield node, peer
            return
        audits = session.config.audit
        async with open_auditor(
            peer,
            reader,
            AuditBudget(audits.share_percent, audits.budget_nano_per_day, audits.real_prompts),
            track_record=TrackRecord(node.keeper, time.time, session.trace),
            identity=node.identity,
            clock=time.time,
            trace=session.trace,
        ) as auditor:
            yield node, peer
            await auditor.settled()


def is_free(config: Config, network: NetworkFile) -> bool:
    """Whether a client needs no wallet: it is to pay nothing, or has none that it could pay from."""
    return config.ask.free or network.unpaid or not Home(config, "payer").has_wallet(network.chain_network)


def _reader(config: AuditConfig) -> Reader | None:
    """What reads others' answers, if the user has an engine for it. Raises `LocalError`."""
    if not config.engine:
        return None
    spec = engine_spec(config.engine, config.model)
    return Reader(lambda: open_worker(spec), config.engine)


def engine_spec(engine: str, model: str, *, slots: int = 1, context: int = CONTEXT_TOKENS) -> Spec:
    """An engine by its name, and for llama.cpp the user's own model, which goes by its file's name."""
    if engine == "scripted":
        return Scripted(slots=slots)
    if engine != "llamacpp":
        raise LocalError(f"there is no engine {engine!r}: llamacpp or scripted, and for providers exllama and upstream")
    path = Path(model).expanduser()
    own = GgufFile(str(path), path.stem, path.stem.split("-")[0].lower()) if model else None
    return LlamaCpp(model=own, slots=slots, context=context)


def provided_spec(config: ProvideConfig) -> Spec:
    """The engine whose answers are sold: one of our own, or a server of the user's."""
    if config.engine == "upstream":
        return _upstream(config)
    if config.engine == "exllama":
        return _exllama(config)
    return engine_spec(config.engine, config.model, slots=config.slots, context=config.context)


def open_server(config: ProvideConfig) -> AbstractAsyncContextManager[Engine]:
    """The user's server, without a process of ours between. Raises as `inference.upstream.open_upstream`."""
    return open_upstream(_upstream(config))


def require_cuda(config: ProvideConfig) -> None:
    """What ExLlama needs besides the model. Raises `BadSettings` for what is missing."""
    from inference.exllama.loading import check_machine

    check_machine(_exllama(config))


def _exllama(config: ProvideConfig) -> ExLlama:
    if not config.model:
        raise LocalError("which model? Say it with --model DIR, a folder with config.json and .safetensors")
    folder = Path(config.model).expanduser().resolve()
    sold = _served(config.exllama_sold_as or folder.name)
    draft = config.exllama_draft
    return ExLlama(
        folder=str(folder),
        id=sold.name,
        family=sold.id if "=" in config.exllama_sold_as else sold.family,
        version=config.exllama_version,
        slots=config.slots,
        context=config.context,
        cache=config.exllama_cache,
        cache_tokens=config.exllama_cache_tokens,
        draft=draft if draft in ("", "ngram") else str(Path(draft).expanduser()),
        lora_folders=tuple(str(Path(one).expanduser()) for one in config.exllama_lora),
        gpu_split_gib=config.exllama_gpu_split_gib,
        banned=config.exllama_banned,
    )


def _upstream(config: ProvideConfig) -> Upstream:
    if not config.upstream_url:
        raise LocalError("where is the server? Say it with --upstream-url, such as http://127.0.0.1:8000/v1")
    return Upstream(
        url=config.upstream_url,
        models=tuple(map(_served, config.upstream_models)),
        key_file=str(Path(config.upstream_key_file).expanduser()) if config.upstream_key_file else "",
        key_variable=config.upstream_key_variable,
        slots=config.slots,
        context=config.context,
        connect_s=config.upstream_connect_s,
        first_token_s=config.upstream_first_token_s,
        between_tokens_s=config.upstream_between_tokens_s,
    )


def _served(text: str) -> ServedModel:
    """From NAME, NAME=ID or NAME=ID=FAMILY. A family that is not named is the first known one that the id has in it."""
    parts = text.split("=")
    if not all(parts) or len(parts) > 3 or not text.isprintable() or len(text) > 256:
        raise LocalError(f"--upstream-model {text}: write NAME=ID or NAME=ID=FAMILY")
    name, model = parts[0], parts[min(1, len(parts) - 1)]
    first_word = model.rpartition("/")[2].split("-")[0].lower()
    known = next((family for family in KNOWN_FAMILIES if family in model.lower()), first_word)
    return ServedModel(name, model, parts[2] if len(parts) == 3 else known)


def open_ledger(
    network: NetworkFile, key: WalletKey, purse: Purse, trace: Trace = silent
) -> AbstractAsyncContextManager[TonLedger]:
    """The wallet of `key` on the network's chain. Raises `LocalError` where there is none."""
    network.require_money()
    from p2p.net.unused import kept_out

    with kept_out():
        from chain.ton import open_ton  # pytoniq takes a second to import, too

    def dropped(server: str, why: str) -> None:
        trace("lite_server_dropped", server=server, why=why)

    return open_ton(network.chain, key, network=network.chain_network, purse=purse, dropped=dropped)


def open_passerby(
    config: Config, network: NetworkFile, listen: Sequence[str] = ()
) -> AbstractAsyncContextManager[Host]:
    """Somebody who only looks, under an identity that is thrown away."""
    from p2p.net.libp2p_host import open_host

    key, upnp = swarm_key.key_for(config, network), config.upnp and bool(listen)
    seed = secrets.token_bytes(SEED_BYTES)
    return open_host(seed, listen, dht_server=False, network=network.mark.name, upnp=upnp, swarm_key=key)


def lan_of(config: Config, network: NetworkFile, host: Host) -> Lan | None:
    """The local network, if the user wants to be known there."""
    if not config.mdns:
        return None
    from p2p.net.mdns import on_lan

    return lambda found: on_lan(config.mdns, network=network.mark.name, addresses=host.listening(), found=found)


def inbound_limits(config: Config) -> InboundLimits:
    from p2p.net.limits import InboundLimits

    return InboundLimits(**msgspec.structs.asdict(config.limits))


async def fund(network: NetworkFile, address: str) -> None:
    """Play money from a devnet's faucet. Raises `LocalError` elsewhere."""
    control = network.mark.control
    if not address:
        raise LocalError("nothing is to be paid: leave --faucet away")
    if not control:
        raise LocalError(f"there is no faucet on {network.mark.name}: send GRAM to {address}")
    from chain.devnet.control import ControlFailed, open_control

    try:
        async with open_control(control) as faucet:
            await faucet.faucet(address, FAUCET_NANO)
    except ControlFailed as error:
        raise Unavailable(f"the devnet's faucet: {error}") from error
