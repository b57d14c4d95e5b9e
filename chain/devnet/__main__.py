"""`python -m chain.devnet`: a local TON until it is told to end."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import stat
import sys
from ipaddress import IPv4Address
from pathlib import Path
from typing import NoReturn

import trio

from .server import CannotListen, Devnet, open_devnet
from .store import StateUnusable

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
    parser.add_argument("--state", type=Path, metavar="FILE", help="keep the chain in this file, and go on from it")
    parser.add_argument("--json", action="store_true", help="print one JSON line when ready, and nothing else")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when the parent process does")
    arguments = parser.parse_args()
    stdin = os.fstat(0).st_mode
    if arguments.until_stdin_closes and not (stat.S_ISFIFO(stdin) or stat.S_ISSOCK(stdin)):
        _fail("--until-stdin-closes wants a pipe as standard input")
    return arguments


async def _run(arguments: argparse.Namespace) -> str:
    """Serve until told to end. Returns why that could not be, or nothing."""
    try:
        return await _serve(arguments)
    except (CannotListen, StateUnusable, ExceptionGroup) as error:
        found = error
        while isinstance(found, ExceptionGroup) and len(found.exceptions) == 1:
            found = found.exceptions[0]
        if isinstance(found, CannotListen):
            return _what_to_do(found, arguments)
        if isinstance(found, StateUnusable):
            return str(found)
        raise


async def _serve(arguments: argparse.Namespace) -> str:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        ports = arguments.port, arguments.control_port
        async with open_devnet(arguments.host, *ports, state=arguments.state) as devnet:
            if failure := _write(arguments.config_out, devnet.global_config()):
                return failure
            _announce(arguments, devnet)
            async with trio.open_nursery() as nursery:
                if arguments.until_stdin_closes:
                    nursery.start_soon(_until_stdin_closes, nursery.cancel_scope)
                await anext(signals)
                nursery.cancel_scope.cancel()
    return ""


async def _until_stdin_closes(stop: trio.CancelScope) -> None:
    """For a parent that may be killed: its end of the pipe closes then, whatever happened to it."""
    while True:
        await trio.lowlevel.wait_readable(0)
        if not os.read(0, 4096):
            stop.cancel()
            return


def _write(path: Path | None, config: object) -> str:
    """In one step, so that nobody reads half a file. Returns why that could not be, or nothing."""
    if path is None:
        return ""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(config, indent=1) + "\n")
        temporary.replace(path)
    except OSError as error:
        return f"cannot write {path}: {error.strerror}"
    return ""


def _announce(arguments: argparse.Namespace, devnet: Devnet) -> None:
    config = devnet.global_config()
    if arguments.json:
        print(json.dumps(config), flush=True)  # noqa: T201 - a command's own voice
        return
    print(  # noqa: T201
        f"A local TON (global id {config['bombyx']['global_id']}) is up.\n"
        f"  lite-server  {devnet.host}:{devnet.port}, key {config['liteservers'][0]['id']['key']}\n"
        f"  control      {devnet.control}\n"
        f"  config       {arguments.config_out or 'give --config-out FILE to have one written'}\n"
        f"Ctrl-C ends it{f'; {arguments.state} keeps it' if arguments.state else ', and all its money with it'}.",
        flush=True,
    )


def _what_to_do(error: CannotListen, arguments: argparse.Namespace) -> str:
    if error.errno != errno.EADDRINUSE:
        return str(error)
    flag = "--port" if error.port == arguments.port else "--control-port"
    return f"port {error.port} is taken: give another to {flag}, or 0 for any free one"


def main() -> None:
    """Run the command line."""
    if failure := trio.run(_run, _arguments()):
        _fail(failure)


if __name__ == "__main__":
    main()
