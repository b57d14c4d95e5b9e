"""Every decoder of bytes that are not ours. Each may be given any bytes, and may raise only its own word for "wrong".

The suite gives each some bytes (`test_targets`); `make proof` gives them a million, led by what they reach in the code
(`guided`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import decoders
import make
import msgspec
from google.protobuf.message import DecodeError
from libp2p.host.autonat.pb.autonat_pb2 import Message as AutoNat
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.pubsub.pb import rpc_pb2
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, StopMessage
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch

from chain import address, charges, mnemonic, sealed
from chain.contract import cells
from chain.devnet import adnl, tl
from chain.errors import BadAddress, ChannelUnusable, ChargesUnusable, NetworkMismatch, WalletUnusable
from chain.ledger import Network
from inference import frames, link
from inference.completions import Counted, read_reply
from inference.engine import Delta, Request
from inference.errors import EngineDied, EngineError
from p2p import config, keys, network_file, swarm_key
from p2p.errors import LocalError, RemoteError, Unavailable
from p2p.host import PeerAddress
from p2p.net import autonat, kad_codec, mdns, saved_peers
from p2p.net.private_network import xsalsa20
from p2p.net.yamux import Yamux
from p2p.protocol import addresses, advert, demand, negotiate, receipt, release, session
from p2p.protocol.kad_messages import AddProvider, FindNode, GetProviders, Response
from p2p.protocol.wire import Signed, decode, encode, frame, sign
from sim.errors import ScenarioError
from sim.scenario import parse_scenario

NETWORK = Network(make.NETWORK, make.GLOBAL_ID)
PEER = make.PROVIDER
ADDRESS = make.ADVERT.addresses[0]
SIGNED_ADVERT = sign(make.ADVERT, make.SIGNERS["provider"])
SIGNED_DEMAND = sign(make.DEMAND, make.SIGNERS["client"])
PHRASE = (
    b"hospital stove relief fringe tongue always charge angry urge sentence again match "
    b"nerve inquiry senior coconut label tumble carry category beauty bean road solution"
)


class Target(NamedTuple):
    """A decoder, what it may raise, and some of what it takes."""

    decode: Callable[[bytes], object]
    refusal: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]

    def takes(self, data: bytes) -> bool:
        """Whether it does. Raises what no decoder may."""
        try:
            self.decode(data)
        except self.refusal:
            return False
        return True


# What trips decoders of all kinds: deep nesting in JSON, MessagePack and TOML, text that is none, numbers without end.
TRAPS = (
    b"",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"chain":' + b'{"a":' * 100_000,
    b"\x91" * 100_000,
    b"\x81\xa1a" * 100_000,
    b"a=" + b"[" * 100_000,
    b'"\xff"',
    b"\xa1\xff",
    b"9" * 10_000,
    b"1e999",
    b"\xff" * 100,
    b"\0" * 100,
)


def streams(protocol: str, union: Any) -> Target:
    """A whole stream of frames of one protocol and direction."""
    fitting = [frame(message) for message in make.MESSAGES[protocol] if isinstance(message, union)]
    return Target(decoders.messages(union), (RemoteError,), (*fitting, b"".join(fitting)))


def bodies(kind: type[Any], signer: str, example: Any) -> Target:
    """The body of a signed object."""
    return Target(decoders.body(kind, signer), (RemoteError,), (encode(example),))


def own_streams() -> Iterable[bytes]:
    """What a Yamux end sends that opens, writes, closes, resets and asks."""
    core = Yamux(initiator=True, now=0.0)
    for number in range(3):
        stream = core.open()
        assert stream is not None
        core.write(stream, memoryview(bytes(100)))
        (core.end, core.reset, lambda _: None)[number](stream)
    core.tick(100.0)
    core.close("enough")
    yield core.data_to_send()


KAD_REQUESTS = (FindNode(b"key"), GetProviders(b"key"), AddProvider(b"key", (b"\x04\x7f\0\0\1\x06\x0f\xa1",)))
DATA = cells.state_init(make.TERMS).data
NETWORK_FILE = network_file.NetworkFile(bootstraps=(ADDRESS,), chain={"bombyx": {"name": "devnet", "global_id": -239}})
HASHED_ID = b"\x12\x20" + bytes(32)  # a peer id that holds no key, so that the message must bring one
RPC = rpc_pb2.RPC(
    publish=[rpc_pb2.Message(data=b"x", topicIDs=["t"], from_id=HASHED_ID, signature=b"s", key=b"\x08\x01")]
)

RESERVE = (b"\x02\x08\0",)  # the length, and field 1, the type, 0

TARGETS: dict[str, Target] = {
    # From the network
    "advert request": streams(advert.PROTOCOL, advert.Pull),
    "advert answer": Target(decoders.messages(Signed), (RemoteError,), (frame(make.SIGNED_QUOTE),)),
    "negotiation, to the provider": streams(negotiate.PROTOCOL, negotiate.ToProvider),
    "negotiation, to the client": streams(negotiate.PROTOCOL, negotiate.ToClient),
    "session, to the provider": streams(session.PROTOCOL, session.ToProvider),
    "session, to the client": streams(session.PROTOCOL, session.ToClient),
    "channel, to the provider": streams(release.PROTOCOL, release.CloseRequest),
    "channel, to the client": streams(release.PROTOCOL, release.ToClient),
    "request": Target(lambda data: decode(data, Request), (RemoteError,), (encode(make.REQUEST),)),
    "advert": bodies(advert.Advert, "peer", make.ADVERT),
    "demand": bodies(demand.Demand, "client", make.DEMAND),
    "gossiped demand": Target(decoders.hear_demand, (RemoteError,), (encode(SIGNED_DEMAND),)),
    "quote": bodies(negotiate.Quote, "provider", make.QUOTE),
    "progress": bodies(session.ProgressBody, "network", make.PROGRESS),
    "receipt": bodies(receipt.Receipt, "provider", make.RECEIPT),
    "both sides' receipt": Target(decoders.countersigned, (RemoteError,), (encode(make.COUNTERSIGNED),)),
    "gossiped advert": Target(decoders.hear_advert, (RemoteError,), (encode(SIGNED_ADVERT),)),
    "gossip RPC": Target(decoders.read_gossip, (DecodeError,), (RPC.SerializeToString(),)),
    "voucher's signature": Target(decoders.verify_claim, (), (bytes(128),)),
    "kad request": Target(
        partial(kad_codec.decode_request, sender=b"me"),
        (RemoteError,),
        tuple(kad_codec.encode_request(request, b"me") for request in KAD_REQUESTS),
    ),
    "kad response": Target(
        decoders.kad_response, (RemoteError,), (kad_codec.encode_response(Response((), ()), FindNode(b"key")),)
    ),
    "Yamux": Target(decoders.yamux, (), tuple(own_streams())),
    "Noise": Target(decoders.noise, (ConnectionClosedError,), (b"\0\x14" + bytes(20) + b"\0\x10" + bytes(16),)),
    "private network": Target(
        decoders.protected,
        (ConnectionClosedError,),
        (bytes(24) + xsalsa20(decoders.SWARM_KEY, bytes(24)).encrypt(b"\x13/multistream/1.0.0\n"),),
    ),
    "neighbour's record": Target(
        partial(mdns.announced, network="devnet"), (), (mdns.announcement("devnet", [ADDRESS]),)
    ),
    "to a relay": Target(decoders.relay_message(HopMessage), (RemoteError, Unavailable), RESERVE),
    "from a relay": Target(decoders.relay_message(StopMessage), (RemoteError, Unavailable), RESERVE),
    "punching": Target(decoders.relay_message(HolePunch), (RemoteError, Unavailable), (b"\x02\x08\x64",)),
    "dialling back": Target(decoders.relay_message(AutoNat), (RemoteError, Unavailable), RESERVE),
    "an address to dial back": Target(
        lambda data: autonat.of_host([data], "127.0.0.1"), (), (b"\x04\x7f\0\0\1\x06\x0f\xa1",)
    ),
    "address": Target(
        decoders.as_text(addresses.parse),
        (LocalError,),
        (b"/ip4/127.0.0.1/tcp/4001", f"/ip6/::1/tcp/1/p2p/{PEER}/p2p-circuit".encode()),
    ),
    "peer id": Target(decoders.as_text(keys.public_key_of), (RemoteError,), (PEER.encode(),)),
    # From a chain's server, and from its clients
    "channel's account": Target(decoders.channel_account, (ChannelUnusable,), (DATA.to_boc(),)),
    "TL object": Target(tl.decode, (tl.Malformed,), (tl.encode("tcp.pong", random_id=1),)),
    "ADNL hello": Target(decoders.adnl_hello, (adnl.BrokenClient,), (decoders.hello(),)),
    # From an engine's child process
    "engine": Target(
        decoders.engine_frames,
        (EngineDied,),
        (frames.encode(link.Piece(1, Delta("x", 1))), frames.encode(link.Value(1, 2))),
    ),
    # From a server of the user's own
    "upstream's answer": Target(decoders.upstream_answer, (EngineError,), decoders.UPSTREAM_ANSWERS),
    "upstream's reply": Target(
        lambda data: read_reply(data, Counted), (EngineError,), (b'{"prompt_tokens":1,"completion_tokens":2}',)
    ),
    # From files
    "network file": Target(
        decoders.from_file(network_file.read_network), (LocalError,), (msgspec.json.encode(NETWORK_FILE),)
    ),
    "configuration": Target(
        decoders.from_file(lambda path: config.load(path, {}, {})),
        (LocalError,),
        (b'home = "x"\nlisten = ["/ip4/127.0.0.1/tcp/0"]\n[ask]\nmax_tokens = 5\ntemperature = 0.5\n',),
    ),
    "swarm key": Target(
        decoders.from_file(swarm_key.read), (LocalError,), (b"/key/swarm/psk/1.0.0/\n/base16/\n" + b"00" * 32,)
    ),
    "saved peers": Target(
        decoders.from_file(saved_peers.load_peers), (), (msgspec.json.encode([PeerAddress(PEER, (ADDRESS,))]),)
    ),
    "wallet file": Target(decoders.from_file(decoders.wallet_file), (WalletUnusable,), decoders.wallet_files()),
    "lock": Target(sealed.Sealed.decode, (), (decoders.lock(b"secret"),)),
    "backup": Target(decoders.backup_content, (WalletUnusable,), (msgspec.msgpack.encode(decoders.BACKUP),)),
    "charges": Target(
        decoders.from_file(lambda path: charges.read(path, NETWORK)),
        (ChargesUnusable, NetworkMismatch),
        (msgspec.json.encode(charges.Charges(NETWORK, (make.LAST_VOUCHER,))),),
    ),
    "phrase": Target(decoders.as_text(mnemonic.parse), (WalletUnusable,), (PHRASE,)),
    "TON address": Target(
        decoders.as_text(lambda text: address.parse(text, NETWORK)), (BadAddress,), (make.TERMS.payer.encode(),)
    ),
    "scenario": Target(lambda data: parse_scenario(data, "it"), (ScenarioError,), (decoders.SCENARIO.read_bytes(),)),
}
