"""One configuration: a TOML file, then `BOMBYX_*` variables, then flags, each over the one before.

Unknown keys are errors. A variable is named after the key, with the section in front: `BOMBYX_HOME`,
`BOMBYX_PROVIDE_PRICE_OUTPUT`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from chain.settling import SettlePolicy
from p2p.errors import LocalError
from p2p.manners import Manners, read_window
from p2p.protocol.advert import Tier
from p2p.protocol.allowance import Allowance
from p2p.protocol.market import PRESETS, Preset
from p2p.protocol.price import Prices
from p2p.protocol.relaying import Limits
from p2p.protocol.strategy import PERCENT, Tactic

PREFIX = "BOMBYX_"
# With commas between, in a variable.
LISTS = {
    "listen",
    "provide.upstream_models",
    "provide.serve_hours",
    "provide.exllama_lora",
    "provide.exllama_gpu_split_gib",
    "provide.exllama_banned",
    "ask.features",
    "ask.allow",
    "ask.block",
    "gateway.hosts",
    "gateway.origins",
}
SECTIONS = ("provide", "ask", "demand", "gateway", "audit", "wallet", "watch", "relay", "limits")
EMBEDDED_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"

Nano = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Percent = Annotated[int, msgspec.Meta(ge=0, le=90)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]


class ProvideConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a provider sells and on what terms. Prices are nano per million tokens."""

    engine: str = "llamacpp"  # or `exllama`, or `upstream`, a server of your own; or `scripted`, to try things out
    model: str = ""  # path of a .gguf file, empty for the embedded model; for exllama of a folder
    slots: Count = 2  # answers given side by side
    context: Count = 2048  # tokens of prompt and answer, for each slot
    upstream_url: str = ""  # of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1
    upstream_models: tuple[str, ...] = ()  # NAME=ID or NAME=ID=FAMILY: the server's name, and what it is sold as
    upstream_key_file: str = ""  # holds the key that the server wants; empty for none
    upstream_key_variable: str = ""  # the environment variable that holds it instead
    upstream_connect_s: Seconds = 5.0
    upstream_first_token_s: Seconds = 120.0  # loading the model included, for a server that does so when asked
    upstream_between_tokens_s: Seconds = 30.0
    exllama_version: Literal[2, 3] = 2
    exllama_sold_as: str = ""  # ID or ID=FAMILY; empty for the folder's name
    exllama_cache: Literal["fp16", "q8", "q6", "q4"] = "fp16"
    exllama_cache_tokens: Nano = 0  # for all slots together; 0: enough for all at their longest
    exllama_draft: str = ""  # `ngram`, or the folder of a small model: what is guessed ahead
    exllama_lora: tuple[str, ...] = ()  # folders
    exllama_gpu_split_gib: tuple[float, ...] = ()  # for each GPU; empty: as it fits
    exllama_banned: tuple[str, ...] = ()  # what is never said
    price_input: Nano = 60_000_000
    price_cached_input: Nano = 30_000_000
    price_output: Nano = 180_000_000
    strategy: str = "utilisation"  # or `fixed`, `concession`, or one of your own: docs/MARKET.md
    discount_percent: Percent = 0  # how far the price may fall; nothing is ever sold for less
    bulk_discount_percent: Percent = 0  # how far below the list many answers are sold by a standing quote
    standing_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 50  # of the slots' time, promised by such; 0: none
    standing_max_s: Nano = 86_400  # for which a standing quote binds at most
    surge_percent: Annotated[int, msgspec.Meta(ge=0, le=900)] = 0  # how far it may rise while clients wait for a slot
    concede: Tactic = Tactic.EVENLY  # how `concession` gives way: early, evenly or late
    window_cap_nano: Nano = 1_000_000  # the most that one client ever owes, on all its answers together
    deposit_min_nano: Nano = 50_000_000
    challenge_period_s: Annotated[int, msgspec.Meta(ge=60, le=30 * 86400)] = 3600
    settle_at_nano: Nano = 120_000_000  # the most that may be unsettled on a channel, whatever settling costs
    settle_fee_percent: Percent = 1  # settle also when that costs no more than this part of what is unsettled
    settle_after_s: Nano = 7 * 86_400  # settle also what has been unsettled for so long
    retired_wait_s: Nano = 7 * 86_400  # for clients' vouchers that a backup lacks, before their channels are closed
    free_tokens_per_client: Nano = 0  # given to each newcomer, without a channel; 0 for nothing
    free_tokens_per_address: Nano = 20_000  # in a day, to all from one IPv4 address, /56 of IPv6, or relay
    free_tokens_per_day: Nano = 200_000  # to everybody together
    serve_hours: tuple[str, ...] = ()  # such as 22:00-07:00, by the machine's clock; empty for always
    pause_on_battery: bool = False
    pause_for_gpu: bool = False  # while a program that is not ours computes on it; needs `bombyx[gpu]`
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 30.0  # for answers under way, once told to stop

    @property
    def manners(self) -> Manners:
        """Raises `LocalError`."""
        return Manners(tuple(map(read_window, self.serve_hours)), self.pause_on_battery, self.pause_for_gpu)

    @property
    def allowance(self) -> Allowance:
        return Allowance(self.free_tokens_per_client, self.free_tokens_per_address, self.free_tokens_per_day)

    @property
    def prices(self) -> Prices:
        return Prices(self.price_input, self.price_cached_input, self.price_output)

    @property
    def prices_least(self) -> Prices:
        return self.prices.scaled(PERCENT - self.discount_percent, PERCENT)

    @property
    def prices_least_standing(self) -> Prices:
        return self.prices.scaled(PERCENT - max(self.discount_percent, self.bulk_discount_percent), PERCENT)

    @property
    def settle_policy(self) -> SettlePolicy:
        return SettlePolicy(
            risk_nano=self.settle_at_nano,
            fee_percent=self.settle_fee_percent,
            after_s=self.settle_after_s,
            retired_wait_s=self.retired_wait_s,
        )


class AskConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client wants and what it will spend."""

    model: str = EMBEDDED_MODEL
    max_tokens: Count = 256
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.0
    seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)] = 0
    price_max_input: Nano | None = None
    price_max_output: Nano | None = None
    preset: Literal["cheap", "balanced", "fast", "private"] = "balanced"  # what counts when providers are compared
    nano_per_second: Nano | None = None  # what a second is worth, in place of the preset's
    tier: Tier | None = None  # `attested` for machines that prove what they run, in place of the preset's
    features: tuple[str, ...] = ()  # that the model must have
    allow: tuple[str, ...] = ()  # the only providers that may answer, by peer id; empty for all
    block: tuple[str, ...] = ()  # providers that may not
    strategy: str = "once"  # of haggling; or `take`, `concession`, or one of your own: docs/MARKET.md
    counter_percent: Percent = 10  # how far below the best quote the first counter-offer goes; 0 for none
    concede: Tactic = Tactic.EVENLY  # how `concession` gives way: early, evenly or late
    deposit_nano: Nano = 100_000_000
    channels_max: Count = 3
    free: bool = False  # take only what is given to newcomers, or costs nothing
    answer_max_nano: Nano | None = None  # that one answer may cost, at all providers together that give a part of it

    @property
    def weights(self) -> Preset:
        """The preset, and what was changed of it."""
        preset = PRESETS[self.preset]
        per_second = preset.nano_per_second if self.nano_per_second is None else self.nano_per_second
        return replace(preset, nano_per_second=per_second, tier=self.tier or preset.tier)

    @property
    def prices_max(self) -> Prices | None:
        return _caps(self.price_max_input, self.price_max_output)


class DemandConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an application wants over time, for which it asks for standing quotes. Token counts are means."""

    model: str = ""  # empty for that of `ask`, unless a family is named
    family: str = ""  # such as `qwen`: each of its models
    per_day: Annotated[int, msgspec.Meta(ge=0, le=1 << 30)] = 0  # answers; has to be said
    input_tokens: Count = 500
    output_tokens: Count = 200
    price_max_input: Nano | None = None  # where neither is set, those of `ask`
    price_max_output: Nano | None = None
    tier: Tier = "open"
    until: date | None = None  # the last day, in UTC; a day from now if not set
    publish: bool = False  # tell everybody, under your own name, so that providers come forward that you do not know
    publish_s: Count = 30  # for so long, before the best is taken

    @property
    def prices_max(self) -> Prices | None:
        return _caps(self.price_max_input, self.price_max_output)


def _caps(price_input: int | None, price_output: int | None) -> Prices | None:
    """The caps as prices; a missing one caps nothing."""
    if price_input is None and price_output is None:
        return None
    top = 1 << 53
    inputs = top if price_input is None else price_input
    return Prices(inputs, inputs, top if price_output is None else price_output)


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How OpenAI's clients are served. What their answers may cost is in `ask`."""

    listen: str = "127.0.0.1:8642"
    hosts: tuple[str, ...] = ()  # names by which browsers may ask for it, besides addresses and localhost
    origins: tuple[str, ...] = ()  # of others' web pages that may use it, such as https://chat.example; * for all
    budget_nano_per_day: Nano | None = None  # that all answers may cost, from midnight to midnight UTC
    max_tokens: Count = 1024  # of an answer of which the caller does not say how long it may be
    telegram_token_file: str = ""  # holds the token of the bot whose Mini App the page is; empty for none
    telegram_users: tuple[int, ...] = ()  # ids of the Telegram accounts that may use it then, and nobody else


class AuditConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client does to find out whether answers are the model's. Without an engine of its own, nothing."""

    engine: str = ""  # that reads others' answers: `llamacpp`, or `scripted` where that is sold
    model: str = ""  # for llamacpp, path of a .gguf file with the very weights; empty for the embedded model
    share_percent: Annotated[float, msgspec.Meta(ge=0, le=100)] = 2.0  # of answers, besides a provider's first ones
    budget_nano_per_day: Nano = 10_000_000  # from midnight to midnight UTC
    real_prompts: bool = False  # have your own answers read, in place of asking and paying for more


class WalletConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The most that leaves the wallet. What gets money back, such as settling and closing, is never limited."""

    day_max_nano: Nano = 10_000_000_000  # by deposits and by `wallet send`, from midnight to midnight UTC
    channel_max_nano: Nano = 1_000_000_000  # deposited in one channel in all


class WatchConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a watchtower does besides answering a payer that starts to close."""

    risk_nano: Nano = 120_000_000  # settle once this much is unsettled on a channel


class RelayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a relay does for peers that cannot be dialled. Such a peer keeps a place, others reach it by circuits."""

    reservations: Annotated[int, msgspec.Meta(ge=0, le=1 << 16)] = 256  # places in all; 0 for no relaying
    reservations_per_address: Count = 8  # places for one IPv4 address, or one /56 of IPv6
    reservation_s: Annotated[int, msgspec.Meta(ge=120, le=86_400)] = 3600  # unless renewed
    circuits: Count = 256  # in all; each may take half a megabyte of memory while both ends are slow
    circuits_per_peer: Count = 16  # from one peer, and to one
    circuit_s: Annotated[int, msgspec.Meta(ge=10, le=86_400)] = 3600
    circuit_bytes: Annotated[int, msgspec.Meta(ge=1 << 16, le=1 << 40)] = 32 << 20  # each way

    @property
    def limits(self) -> Limits | None:
        return Limits(**msgspec.structs.asdict(self)) if self.reservations else None


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What strangers may take of a node. An address is one of IPv4, or a /56 of IPv6.

    Many honest peers behind one address, as in a large office, want a higher `connections_per_address`. The rates are
    shared by turns among all addresses that want in.
    """

    connections: Count = 1024
    connections_per_address: Count = 128
    handshakes_per_s: Count = 40
    streams_per_s: Count = 200


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a node can be told."""

    home: str = "~/.bombyx"  # keys, books and the network file
    network: str = ""  # the network file; empty for `network.json` in the home
    swarm_key: str = ""  # the file with a private network's key; empty for `swarm.key` in the home, if there is one
    listen: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/0",)
    upnp: bool = False  # ask the router to forward a port to the first that is listened on
    mdns: str = ""  # be known on the local network: an interface's address, `0.0.0.0` for all; empty for not at all
    trace: str = ""  # a file that gets a line for each thing that happens and each message; empty for none
    metrics: str = ""  # where Prometheus finds counters, such as 127.0.0.1:9464; empty for nowhere
    provide: ProvideConfig = ProvideConfig()
    ask: AskConfig = AskConfig()
    demand: DemandConfig = DemandConfig()
    gateway: GatewayConfig = GatewayConfig()
    audit: AuditConfig = AuditConfig()
    wallet: WalletConfig = WalletConfig()
    watch: WatchConfig = WatchConfig()
    relay: RelayConfig = RelayConfig()
    limits: LimitsConfig = LimitsConfig()

    @property
    def home_path(self) -> Path:
        return Path(self.home).expanduser()

    @property
    def network_path(self) -> Path:
        return Path(self.network).expanduser() if self.network else self.home_path / "network.json"


def load(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Config:
    """Merge the three sources. `flags` is nested like the file. Raises `LocalError` with what to do."""
    merged: dict[str, Any] = {}
    _merge(merged, _read_file(file) if file else {})
    _merge(merged, _read_environment(environment))
    _merge(merged, flags)
    try:
        return msgspec.convert(merged, Config, strict=False)
    except msgspec.ValidationError as error:
        raise LocalError(_complaint(str(error))) from None


def _complaint(error: str) -> str:
    """msgspec's message in the words of whoever wrote the setting: its name first, as it stands in the file."""
    what, _, where = error.partition(" - at `$")
    name = where.strip("`.")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what)
    if unknown:
        return f"there is no setting {'.'.join(filter(None, (name, unknown[1])))}; see --help"
    what = what.replace("Invalid RFC3339 encoded date", "Write a day as 2027-01-31")
    return f"the setting {name} is wrong: {what[0].lower()}{what[1:]}"


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise LocalError(f"cannot read the configuration file {file}: {os.strerror(error.errno or 0)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LocalError(f"{file} is not valid TOML: {error}") from None


def _read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in environment.items():
        if name.startswith(PREFIX):
            key = name.removeprefix(PREFIX).lower()
            section, _, rest = key.partition("_")
            if section in SECTIONS:
                listed = f"{section}.{rest}" in LISTS
                found.setdefault(section, {})[rest] = value.split(",") if listed else value
            else:
                found[key] = value.split(",") if key in LISTS else value
    return found


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping):
            nested = into.setdefault(key, {})
            if not isinstance(nested, dict):
                raise LocalError(f"the setting {key} is wrong: it is a section")
            _merge(nested, value)
        else:
            into[key] = value
