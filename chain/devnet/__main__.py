"""`python -m chain.devnet`: a local TON until it is told to end."""

from __future__ import annotations

import argparse
import base64
import errno
import json
import os
import signal
import stat
import sys
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple, NoReturn

import trio
from nacl.signing import SigningKey

from . import adnl, control
from .blocks import WHOLE_SHARD, masterchain_id
from .chain import GLOBAL_ID, Chain
from .liteserver import LiteServer
from .vm import Vm

HEARTBEAT_S = 2.0
"""An empty block is made this often: pytoniq's client gives up following a chain that stands still for 10 s."""

_USAGE = 2  # exit code for what the caller must change


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _fail(f"{message} (see --help)")


def _fail(message: str) -> NoReturn:
    print(f"chain.devnet: {message}", file=sys.stderr)  # noqa: T201 - a command's own voice
    raise SystemExit(_USAGE)


def _ipv4(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not an IPv4 address") from None


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: 0 to 65535")
    return int(text)


def _arguments() -> argparse.Namespace:
    parser = _Parser("python -m chain.devnet", description="A local TON: the real TVM behind a lite-server.")
    parser.add_argument("--host", type=_ipv4, default="127.0.0.1", help="IPv4 address to listen on")
    parser.add_argument("--port", type=_port, default=0, help="of the lite-server; 0 takes a free one")
    parser.add_argument("--control-port", type=_port, default=0, help="of faucet and clock; 0 takes a free one")
    parser.add_argument("--config-out", type=Path, metavar="FILE", help="write a TON global config for clients")
    parser.add_argument("--json", action="store_true", help="print one JSON line when ready, and nothing else")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when the parent process does")
    arguments = parser.parse_args()
    stdin = os.fstat(0).st_mode
    if arguments.until_stdin_closes and not (stat.S_ISFIFO(stdin) or stat.S_ISSOCK(stdin)):
        _fail("--until-stdin-closes wants a pipe as standard input")
    return arguments


async def _listen(host: str, port: int, flag: str) -> trio.SocketListener:
    try:
        return (await trio.open_tcp_listeners(port, host=host))[0]
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            _fail(f"port {port} is taken: give another to {flag}, or 0 for any free one")
        _fail(f"cannot listen on {host}:{port}: {error.strerror}")


def _address(listener: trio.SocketListener) -> tuple[str, int]:
    host, port = listener.socket.getsockname()[:2]
    return str(host), int(port)


class _Ready(NamedTuple):
    """What is printed once the devnet listens."""

    host: str
    port: int
    key: str  # of the lite-server, base64
    control: str  # HOST:PORT
    global_id: int
    config: str  # the file that was written, if any


def _global_config(ready: _Ready, chain: Chain) -> object:
    """What TON clients take as "global config", and beside it what only a devnet has."""
    first = masterchain_id(chain.blocks[0])
    block = {
        "workchain": -1,
        "shard": WHOLE_SHARD,
        "seqno": first["seqno"],
        "root_hash": base64.b64encode(bytes.fromhex(str(first["root_hash"]))).decode(),
        "file_hash": base64.b64encode(bytes.fromhex(str(first["file_hash"]))).decode(),
    }
    signed_ip = int.from_bytes(IPv4Address(ready.host).packed, "big", signed=True)  # the format has it as an i32
    server = {"ip": signed_ip, "port": ready.port, "id": {"@type": "pub.ed25519", "key": ready.key}}
    return {
        "@type": "config.global",
        "liteservers": [server],
        "validator": {"@type": "validator.config.global", "zero_state": block, "init_block": block},
        "bombyx": {"name": "devnet", "global_id": ready.global_id, "control": ready.control},
    }


def _write_config(path: Path, config: object) -> None:
    """In one step, so that nobody reads half a file."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(config, indent=1) + "\n")
        temporary.replace(path)
    except OSError as error:
        _fail(f"cannot write {path}: {error.strerror}")


def _announce(arguments: argparse.Namespace, ready: _Ready) -> None:
    if arguments.json:
        print(json.dumps(ready._asdict()), flush=True)  # noqa: T201 - a command's own voice
        return
    print(  # noqa: T201
        f"A local TON (global id {ready.global_id}) is up.\n"
        f"  lite-server  {ready.host}:{ready.port}, key {ready.key}\n"
        f"  control      {ready.control}\n"
        f"  config       {ready.config or 'give --config-out FILE to have one written'}\n"
        "Ctrl-C ends it, and all its money with it.",
        flush=True,
    )


async def _heartbeat(chain: Chain) -> None:
    while True:
        await trio.sleep(HEARTBEAT_S)
        chain.tick()


async def _until_stdin_closes(stop: trio.CancelScope) -> None:
    """For a parent that may be killed: its end of the pipe closes then, whatever happened to it."""
    while True:
        await trio.lowlevel.wait_readable(0)
        if not os.read(0, 4096):
            stop.cancel()
            return


async def _serve(arguments: argparse.Namespace) -> None:
    chain, key = Chain(Vm.from_package()), SigningKey.generate()
    queries = LiteServer(chain)
    lite_server = await _listen(arguments.host, arguments.port, "--port")
    control_server = await _listen(arguments.host, arguments.control_port, "--control-port")
    ready = _Ready(
        *_address(lite_server),
        key=base64.b64encode(bytes(key.verify_key)).decode(),
        control="{}:{}".format(*_address(control_server)),
        global_id=GLOBAL_ID,
        config=str(arguments.config_out or ""),
    )
    if arguments.config_out is not None:
        _write_config(arguments.config_out, _global_config(ready, chain))

    async def serve_lite(stream: trio.SocketStream) -> None:
        await adnl.serve(stream, key, queries.answer)

    async def serve_control(stream: trio.SocketStream) -> None:
        await control.serve(stream, chain)

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            if arguments.until_stdin_closes:
                nursery.start_soon(_until_stdin_closes, nursery.cancel_scope)
            nursery.start_soon(trio.serve_listeners, serve_lite, [lite_server])
            nursery.start_soon(trio.serve_listeners, serve_control, [control_server])
            nursery.start_soon(_heartbeat, chain)
            _announce(arguments, ready)
            await anext(signals)
            nursery.cancel_scope.cancel()


def main() -> None:
    """Run the command line."""
    trio.run(_serve, _arguments())


if __name__ == "__main__":
    main()
