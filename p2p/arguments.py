"""The command line's words: parsing only."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from chain.ledger import GLOBAL_IDS
from p2p.errors import LocalError

PROGRAM = "python -m p2p.node"

EXAMPLES = f"""\
examples:
  {PROGRAM} demo                          a whole network on this machine, one paid answer
  {PROGRAM}                               a provider of your own to play with, until Ctrl-C
  {PROGRAM} ask "What is silk?"           ask whoever sells it cheapest
  cat report.txt | {PROGRAM} ask "Summarise this"
  {PROGRAM} provide --price-output 150000000
"""


DEMANDS = f"""\
examples:
  {PROGRAM} demand --per-day 5000 --input-tokens 800 --output-tokens 200
  {PROGRAM} demand --family qwen --per-day 200 --price-max-output 150000000 --until 2027-01-31
  {PROGRAM} demand --family qwen --per-day 200 --publish --listen /ip4/0.0.0.0/tcp/4001
  {PROGRAM} demand list                   the standing quotes you hold
  {PROGRAM} demand list --provider        those you gave
"""

CHAT = f"""\
examples:
  {PROGRAM} chat                          type questions; /new begins another conversation, Ctrl-D ends it
  {PROGRAM} chat --answer-max-nano 1000000
  printf 'What is silk?\\nWho makes it?\\n' | {PROGRAM} chat --json
"""

GATEWAY = f"""\
examples:
  {PROGRAM} gateway                       serve http://127.0.0.1:8642/v1, with what `ask` is configured to spend
  {PROGRAM} gateway --preset cheap --answer-max-nano 1000000
  {PROGRAM} gateway --origin https://chat.example
  {PROGRAM} gateway keys add phone --budget-nano-per-day 50000000
  {PROGRAM} gateway --listen 192.168.1.5:8642     once there are keys
  curl http://127.0.0.1:8642/v1/models
"""

MODELS = f"""\
examples:
  {PROGRAM} models list                   yours and those that are known by name: what they take, whether that fits
  {PROGRAM} models list own.gguf          a file of yours among them
  {PROGRAM} models fit                    what fits into the memory and the GPUs here
  {PROGRAM} models fit Qwen/Qwen3-8B --slots 4 --context 8192 --quantisation Q8_0
  {PROGRAM} models fit own.gguf folder    a GGUF file and a folder of safetensors, side by side
  {PROGRAM} models fit Qwen/Qwen3-8B --memory 16GiB --json
"""


PRICE_CAPS = {
    "price-max-input": "refuse dearer providers: nano per million prompt tokens",
    "price-max-output": "refuse dearer providers: nano per million answer tokens",
}


class Parser(argparse.ArgumentParser):
    """Flags may stand between a command's words, and errors are one line that ends the program like other bad input."""

    _intermixes = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does with flags alone first and with words then: of both at once it takes a word that may be left
        out for left out as soon as a flag comes before it. But it forgets what `--` is for on the way.
        """
        if self._subparsers is not None or self._intermixes or "--" in (args or ()):
            return super().parse_known_args(args, namespace)
        self._intermixes = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixes = False

    def error(self, message: str) -> NoReturn:
        raise LocalError(f"{message}; see {self.prog} --help")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Raises `LocalError` for what is not understood."""
    return _parser().parse_args(arguments)


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The flags that were given and that are configuration, nested like the configuration."""
    nested: dict[str, Any] = {}
    for name, value in vars(options).items():
        section, _, key = name.partition(".")
        if value is not None and key:
            (nested if section == "node" else nested.setdefault(section, {}))[key] = value
    return nested


def _parser() -> Parser:
    parser = Parser(
        PROGRAM,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Bombyx: sell and buy private LLM inference, peer to peer.",
    )
    parser.set_defaults(command="solo", json=False, config=None)
    _general(parser)
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=Parser)
    _demo(_command(commands, "demo", "start a small network on this machine and ask it one question"))
    _provide(_command(commands, "provide", "sell answers of a model"))
    _ask(_command(commands, "ask", "ask one question and pay for the answer"))
    _chat(_command(commands, "chat", "ask one question after the other, each with what was said before", CHAT))
    _demand(
        _command(
            commands, "demand", "get a price for many answers ahead, or list what is left of those you have", DEMANDS
        )
    )
    _gateway(_command(commands, "gateway", "serve OpenAI's clients on this machine", GATEWAY))
    _relay(_command(commands, "relay", "run a bootstrap peer, through which others find each other"))
    _swarm_key(_command(commands, "swarm-key", "make the key of a private network, which none but its members join"))
    _channels(_command(commands, "channels", "list your payment channels, or close one"))
    _receipts(_command(commands, "receipts", "list receipts, or verify one that somebody shows you"))
    _command(commands, "earnings", "what you earned with which model on which day, and what fees you paid")
    _watch(_command(commands, "watch", "settle for a provider that is away, before its clients can take money back"))
    _wallet(_command(commands, "wallet", "show, make, lock, back up or empty your wallet"))
    _peers(
        _command(
            commands, "peers", "who is there, how far away and by which path; or why a provider is thought of as it is"
        )
    )
    _models(_command(commands, "models", "which models are known, and which of them fit into this machine", MODELS))
    _doctor(_command(commands, "doctor", "look for what stands in the way of asking or selling, and say what to do"))
    return parser


def _command(commands: Any, name: str, what: str, examples: str = "") -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter if examples else argparse.HelpFormatter
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=what, description=what, epilog=examples, formatter_class=layout
    )
    parser.set_defaults(command=name)
    _general(parser)
    return parser


def _general(parser: argparse.ArgumentParser) -> None:
    """Options that stand before or behind the command alike; a missing one must not hide the other place's."""
    for flag, dest, metavar, what in (
        ("--home", "node.home", "DIR", "keys, books and network file (~/.bombyx)"),
        ("--network", "node.network", "FILE", "how to join (HOME/network.json)"),
        ("--swarm-key", "node.swarm_key", "FILE", "the key of a private network (HOME/swarm.key, if there is one)"),
        ("--config", "config", "FILE", "a TOML file with any of the settings"),
        ("--trace", "node.trace", "FILE", "append a line for each thing that happens and each message"),
    ):
        parser.add_argument(flag, dest=dest, metavar=metavar, help=what, default=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="machine-readable output", default=argparse.SUPPRESS)


def _actions(parser: argparse.ArgumentParser, dest: str, named: Mapping[str, str]) -> Mapping[str, Parser]:
    """A parser for each of them, which says at `dest` which it is."""
    actions = parser.add_subparsers(metavar="ACTION", parser_class=Parser)
    found: dict[str, Parser] = {}
    for name, what in named.items():
        found[name] = actions.add_parser(name, help=what, description=what)
        found[name].set_defaults(**{dest: name})
        _general(found[name])
    return found


def _settings(parser: argparse.ArgumentParser, section: str, flags: Mapping[str, str]) -> None:
    """Flags for what the configuration has in that section, by the same names."""
    for flag, what in flags.items():
        parser.add_argument(f"--{flag}", dest=f"{section}.{flag.replace('-', '_')}", metavar="X", help=what)


def _hosting(parser: argparse.ArgumentParser) -> None:
    where = "where to listen (/ip4/127.0.0.1/tcp/0); may be repeated"
    parser.add_argument("--listen", dest="node.listen", action="append", metavar="MULTIADDR", help=where)
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when the parent process does")
    where = "serve counters for Prometheus by HTTP, such as 127.0.0.1:9464"
    parser.add_argument("--metrics", dest="node.metrics", metavar="HOST:PORT", help=where)
    ask = "ask the router to forward a port to the first that is listened on (by UPnP)"
    parser.add_argument("--upnp", dest="node.upnp", action="store_true", default=None, help=ask)
    _neighbours(parser, "announce yourself on the local network, and look for others there")


def _neighbours(parser: argparse.ArgumentParser, what: str = "look for peers on the local network, too") -> None:
    where = f"{what} (by multicast DNS; on all interfaces, or on the one with ADDRESS)"
    parser.add_argument("--mdns", dest="node.mdns", nargs="?", const="0.0.0.0", metavar="ADDRESS", help=where)  # noqa: S104


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", default="Explain in two sentences why the sky is blue.", help="the question")
    parser.add_argument("--max-tokens", dest="ask.max_tokens", metavar="N", help="length of the answer, at most (256)")
    parser.add_argument("--providers", type=int, default=3, metavar="N", help="how many to start, 1 to 8 (3)")
    parser.add_argument("--keep", action="store_true", help="leave the network up and say how to talk to it")


def _provide(parser: argparse.ArgumentParser) -> None:
    _hosting(parser)
    flags = {
        "engine": "llamacpp (default), exllama for a GPU, upstream for a server of yours (docs/OPERATING.md), scripted",
        "model": "path of a .gguf file (the embedded SmolLM2), or of a folder for exllama",
        "slots": "answers side by side (2)",
        "context": "tokens of prompt and answer for each slot (2048)",
        "upstream-url": "address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1",
        "upstream-key-file": "file with the key that it wants, for you to read alone",
        "upstream-key-variable": "environment variable that holds it instead",
        "upstream-connect-s": "how long to wait for a connection to it (5)",
        "upstream-first-token-s": "how long for the first token (120)",
        "upstream-between-tokens-s": "how long for the next (30)",
        "exllama-version": "2 (default), or 3 for newer models",
        "exllama-sold-as": "the id to sell the model under, or ID=FAMILY (its folder's name)",
        "exllama-cache": "fp16 (default), q8, q6 or q4",
        "exllama-cache-tokens": "of all slots together (enough for all at their longest)",
        "exllama-draft": "guess ahead: ngram, or the folder of a small model with the same tokenizer",
        "price-input": "nano per million prompt tokens",
        "price-cached-input": "nano per million cached prompt tokens",
        "price-output": "nano per million answer tokens",
        "strategy": "utilisation (default), fixed, concession, or the name of your own (docs/MARKET.md)",
        "discount-percent": "how far the price may fall, as slots are free or by concession (0)",
        "bulk-discount-percent": "how far below the list a standing quote is, which is for many answers (0)",
        "standing-percent": "of the slots' time, the most that is promised ahead by standing quotes (50); 0 for none",
        "standing-max-s": "for how long a standing quote binds at most (86400)",
        "surge-percent": "how far the price may rise while clients wait for a slot (0)",
        "concede": "how concession gives way: early, evenly (default) or late",
        "deposit-min-nano": "smallest channel that is served",
        "challenge-period-s": "how long you may be offline without losing vouchers (3600)",
        "settle-at-nano": "the most that may be unsettled on a channel (120000000)",
        "settle-fee-percent": "settle also when the fee is no more than this part of what is unsettled (1)",
        "settle-after-s": "settle also what has been unsettled for so long (604800)",
        "retired-wait-s": "close the channels of a book from a backup after so long (604800)",
        "free-tokens-per-client": "give each newcomer so many tokens without a channel (0)",
        "free-tokens-per-address": "of them, in a day, to all from one address or relay (20000)",
        "free-tokens-per-day": "of them, in a day, to everybody (200000)",
        "drain-s": "once told to stop, how long to wait for answers under way (30)",
    }
    _settings(parser, "provide", flags)
    _provide_many(parser)
    for flag, when in {
        "on-battery": "the machine runs on battery",
        "for-gpu": "another program computes on the GPU",
    }.items():
        dest = f"provide.pause_{flag.replace('-', '_')}"
        parser.add_argument(f"--pause-{flag}", dest=dest, action="store_true", default=None, help=f"rest while {when}")
    parser.add_argument("--faucet", action="store_true", help="on a devnet: take play money for fees first")


def _provide_many(parser: argparse.ArgumentParser) -> None:
    """What may be said several times."""
    for flag, dest, metavar, what in (
        (
            "upstream-model",
            "upstream_models",
            "NAME=ID[=FAMILY]",
            "what the server calls a model, and what it is sold as",
        ),
        ("exllama-lora", "exllama_lora", "DIR", "a LoRA's folder"),
        ("exllama-gpu-split-gib", "exllama_gpu_split_gib", "N", "of the model on the next GPU (as it fits)"),
        ("exllama-banned", "exllama_banned", "TEXT", "never say it, whatever its case"),
        ("serve-hours", "serve_hours", "X", "serve at these hours only, such as 22:00-07:00, by this machine's clock"),
    ):
        parser.add_argument(
            f"--{flag}", dest=f"provide.{dest}", action="append", metavar=metavar, help=f"{what}; may be repeated"
        )


def _ask(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="?", default="", help="the question; what comes on stdin is put below it")
    _answering(parser)
    explain = "show how the providers were ranked, and every term of it"
    parser.add_argument("--explain", action="store_true", help=explain)
    parser.add_argument("--close", action="store_true", help="close the channel afterwards")


def _chat(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(explain=False)
    _answering(parser)


def _answering(parser: argparse.ArgumentParser) -> None:
    """How one answer or several are to be, and bought."""
    flags = {
        "model": "the model's id",
        "max-tokens": "length of the answer, at most (256)",
        "temperature": "0 (default) is greedy",
        "seed": "the same seed gives the same answer",
    }
    _settings(parser, "ask", flags)
    _buying(parser)
    _neighbours(parser)


def _gateway(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listen", dest="gateway.listen", metavar="HOST:PORT", help="where to serve (127.0.0.1:8642)")
    origin = "let a web page of this origin call, such as https://chat.example; may be repeated"
    parser.add_argument("--origin", dest="gateway.origins", action="append", metavar="X", help=origin)
    name = "a name by which browsers may ask for it, besides addresses and localhost; may be repeated"
    parser.add_argument("--host", dest="gateway.hosts", action="append", metavar="NAME", help=name)
    day = "the most that all answers of a day may cost (no limit but the wallet's)"
    parser.add_argument("--budget-nano-per-day", dest="gateway.budget_nano_per_day", metavar="X", help=day)
    length = "length of an answer, at most, where the caller does not say it (1024)"
    parser.add_argument("--max-tokens", dest="gateway.max_tokens", metavar="N", help=length)
    mini_app = "let the page be a Telegram Mini App of the bot whose token is in this file (docs/PAGE.md)"
    parser.add_argument("--telegram-token-file", dest="gateway.telegram_token_file", metavar="FILE", help=mini_app)
    user = "the id of a Telegram account that may use it then; may be repeated"
    parser.add_argument("--telegram-user", dest="gateway.telegram_users", action="append", metavar="ID", help=user)
    _buying(parser)
    _neighbours(parser)
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when the parent process does")

    _gateway_keys(parser)


def _gateway_keys(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(action="serve")
    keys = parser.add_subparsers(metavar="ACTION", parser_class=Parser).add_parser(
        "keys", help="say who may call", description="Add a key, list all (the default), or remove one."
    )
    keys.set_defaults(action="keys", keys_action="list")
    _general(keys)
    named = {
        "add": "make a key, which is shown this once",
        "list": "who has one, and what each spent today",
        "remove": "make one good for nothing",
    }
    actions = _actions(keys, "keys_action", named)
    for name in ("add", "remove"):
        actions[name].add_argument("name", metavar="NAME", help="whose it is")
    _capabilities(actions["add"])


def _capabilities(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", action="append", metavar="X", help="only this model; may be repeated")
    for flag, what in {
        **PRICE_CAPS,
        "budget-nano-per-day": "the most that its answers of a day may cost",
        "requests-per-minute": "how often it may ask",
    }.items():
        parser.add_argument(f"--{flag}", type=_count, metavar="N", help=what)
    manage = "see the accounts and close channels, as the page does"
    parser.add_argument("--manage", action="store_true", help=manage)


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 16:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number")
    return int(text)


def _buying(parser: argparse.ArgumentParser) -> None:
    """Whose answers are bought, and what they may cost."""
    flags = {
        "preset": "what counts: cheap, balanced (default), fast, or private (docs/MARKET.md)",
        "nano-per-second": "what a second of yours is worth, in place of the preset's",
        "tier": "open or attested, in place of the preset's",
        **PRICE_CAPS,
        "strategy": "once (default): one counter-offer; take, concession, or your own (docs/MARKET.md)",
        "answer-max-nano": "the most that the answer may cost, whoever gives how much of it",
        "counter-percent": "how far below the best quote the first counter-offer goes (10); 0 for none",
        "concede": "how concession gives way: early, evenly (default) or late",
        "deposit-nano": "size of a channel that has to be opened",
    }
    _settings(parser, "ask", flags)
    for flag, what in {
        "feature": "only models with this feature; may be repeated",
        "allow": "only this provider, by its peer id; may be repeated",
        "block": "not this provider; may be repeated",
    }.items():
        dest = {"feature": "features"}.get(flag, flag)
        parser.add_argument(f"--{flag}", dest=f"ask.{dest}", action="append", metavar="X", help=what)
    free = "pay nothing: only what providers give to newcomers; needs no wallet"
    parser.add_argument("--free", dest="ask.free", action="store_true", default=None, help=free)
    reader = "have some answers of providers read by your own engine: llamacpp or scripted (docs/MARKET.md)"
    parser.add_argument("--audit-engine", dest="audit.engine", metavar="X", help=reader)
    share = "how many answers are followed by an audit (2); a provider's first ones are anyway; 0 for none"
    parser.add_argument("--audit-share-percent", dest="audit.share_percent", metavar="X", help=share)
    parser.add_argument("--faucet", action="store_true", help="on a devnet: take play money first")


def _demand(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("get", "list"), default="get")
    flags = {
        "model": "the model's id (the one that ask takes)",
        "family": "each model of a family, such as qwen",
        "per-day": "how many answers a day",
        "input-tokens": "tokens of a prompt, on the average (500)",
        "output-tokens": "tokens of an answer, on the average (200)",
        **PRICE_CAPS,
        "tier": "open (default) or attested",
        "until": "the last day on which they are wanted, such as 2027-01-31 (a day from now)",
    }
    _settings(parser, "demand", flags)
    tell = "tell everybody for half a minute, so that providers come forward that you do not know; needs --listen"
    parser.add_argument("--publish", dest="demand.publish", action="store_true", default=None, help=tell)
    where = "where providers may reach you meanwhile (/ip4/127.0.0.1/tcp/0); may be repeated"
    parser.add_argument("--listen", dest="node.listen", action="append", metavar="MULTIADDR", help=where)
    parser.add_argument("--provider", action="store_true", help="of list: those that you gave")
    _neighbours(parser)


def _relay(parser: argparse.ArgumentParser) -> None:
    _hosting(parser)
    money = parser.add_mutually_exclusive_group(required=True)
    chain = "the chain's configuration: a devnet's, or TON's own with --chain-name"
    money.add_argument("--chain", type=Path, metavar="FILE", help=chain)
    unpaid = "there is no money on this network, and no chain; it is private, and gets a key if it has none"
    money.add_argument("--unpaid", action="store_true", help=unpaid)
    name = "say which of TON's networks the --chain configuration is for"
    parser.add_argument("--chain-name", choices=tuple(GLOBAL_IDS), default="", help=name)
    parser.add_argument("--network-out", type=Path, metavar="FILE", help="where to write the network file")


def _swarm_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="where to write it; other libp2p programs can read it")


def _channels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("list", "close", "start-close", "finalise"), default="list")
    parser.add_argument("channel", nargs="?", default="", help="the first digits of a channel's id")
    parser.add_argument("--provider", action="store_true", help="those that pay you, not those you pay through")


def _receipts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("list", "verify"), default="list")
    parser.add_argument("file", nargs="?", type=Path, help="a receipt, as bytes in hex")
    parser.add_argument("--provider", action="store_true", help="those of answers that you sold")


def _watch(parser: argparse.ArgumentParser) -> None:
    charges = "what to watch over, a file or a folder of files; may be repeated (the provider's book in --home)"
    parser.add_argument("--charges", type=Path, action="append", metavar="PATH", help=charges)
    export = "write what there is to watch over to FILE, for somebody else's watchtower, and end"
    parser.add_argument("--export", type=Path, metavar="FILE", help=export)
    parser.add_argument("--risk-nano", dest="watch.risk_nano", metavar="X", help="settle once this much is unsettled")
    parser.add_argument("--faucet", action="store_true", help="on a devnet: take play money for fees first")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when the parent process does")


def _wallet(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(action="show", provider=False)
    _of_provider(parser)
    named = {
        "show": "its address and balance",
        "fund": "play money from a devnet's faucet",
        "create": "make one with fresh words",
        "import": "make one from the 24 words of another TON wallet, typed or on standard input",
        "export-words": "show its 24 words, on a terminal",
        "passphrase": "give it another passphrase",
        "send": "withdraw to another address",
        "backup": "write keys and book to a file that a passphrase locks",
        "restore": "bring keys and book back, to a home without any",
    }
    actions = _actions(parser, "action", named)
    for action in actions.values():
        _of_provider(action)
    open_ = "keep the key unencrypted, readable by whoever gets hold of the file"
    for name in ("create", "import", "passphrase"):
        actions[name].add_argument("--no-passphrase", action="store_true", help=open_)
    send = actions["send"]
    send.add_argument("address", metavar="ADDRESS", help="in any of TON's forms")
    send.add_argument("amount", metavar="AMOUNT", help="1.5 for GRAM, or 1500nano")
    send.add_argument("--yes", action="store_true", help="do not ask whether that is right")
    for name in ("backup", "restore"):
        actions[name].add_argument("file", type=Path, metavar="FILE")


def _peers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("list", "why"), default="list")
    parser.add_argument("peer", nargs="?", default="", help="of why: a provider, by the end of its id")
    parser.add_argument("--provider", action="store_true", help="whom the provider that runs on this home sees")
    _neighbours(parser)


def _models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("list", "fit"), default="list")
    what = "a .gguf file, a folder of .safetensors, or a model of the list; for fit, several are to fit together"
    parser.add_argument("names", nargs="*", metavar="MODEL", help=what)
    for flag, what in {"slots": "answers side by side (2)", "context": "tokens for each slot (2048)"}.items():
        parser.add_argument(f"--{flag}", dest=f"provide.{flag}", metavar="N", help=what)
    bits = "of a model that is not at hand: F16, Q8_0, Q6_K, Q5_K or Q4_K (Q4_K)"
    parser.add_argument("--quantisation", default="Q4_K", metavar="X", help=bits)
    kept = "how keys and values are kept: f16 (default), as llamacpp does; q8_0, q4_0"
    parser.add_argument("--cache", default="f16", metavar="X", help=kept)
    room = "reckon with so much, such as 16GiB, in place of what is free here"
    parser.add_argument("--memory", metavar="SIZE", help=room)


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--provider", action="store_true", help="look at what selling needs: engine or server, your wishes, ports, too"
    )


def _of_provider(parser: argparse.ArgumentParser) -> None:
    what = "the one that is paid, not the one that pays"
    parser.add_argument("--provider", action="store_true", help=what, default=argparse.SUPPRESS)
