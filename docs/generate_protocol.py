"""Fills the marked parts of PROTOCOL.md from the code: messages, limits, tables and diagrams.

    python docs/generate_protocol.py

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`; what is outside is written by hand. A test checks
that the committed page is up to date.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from msgspec import inspect as types

from chain import channel
from inference import engine
from p2p import discovery
from p2p.net import gossip_reader, yamux, yamux_stream
from p2p.protocol import (
    advert,
    advert_book,
    audit,
    demand,
    negotiate,
    places,
    price,
    receipt,
    release,
    session,
    window,
    wire,
)

PAGE = Path(__file__).with_name("PROTOCOL.md")
SOURCES = Path(__file__).parent.parent / "p2p"
CONTRACT = SOURCES.parent / "chain" / "contract" / "channel.tolk"

Table = Mapping[Any, Enum]

# Each limit or time that the other side can notice, and what it is for.
LIMITS: tuple[tuple[ModuleType, str, str], ...] = (
    (yamux, "MAX_INBOUND_STREAMS", "streams that a peer may have open on one connection; one more is reset"),
    (yamux_stream, "WINDOW_BYTES", "bytes of one stream that may be under way or unread, of which we never allow more"),
    (
        yamux,
        "MAX_UNREAD_BYTES",
        "bytes that the streams of a connection may leave unread; the one that goes beyond is reset",
    ),
    (yamux, "KEEP_ALIVE_INTERVAL_S", "seconds of silence after which we ping"),
    (yamux, "KEEP_ALIVE_TIMEOUT_S", "seconds without an answer after which a connection is given up"),
    (wire, "MAX_FRAME_BYTES", "bytes of a frame's payload"),
    (wire, "MAX_DEPTH", "maps and arrays within each other"),
    (wire, "MAX_ITEMS", "items of one map or array"),
    (wire, "MAX_CONTAINERS", "maps and arrays in one payload"),
    (advert, "MAX_ADVERT_BYTES", "bytes of an advert's body"),
    (advert, "MAX_LIFETIME_S", "seconds from an advert's `issued_at` to its `expires_at`"),
    (advert, "CLOCK_TOLERANCE_S", "seconds that an advert may come from the future"),
    (advert, "MAX_MODELS", "models of an advert, each named once"),
    (advert, "MAX_ADDRESSES", "addresses of an advert"),
    (advert_book, "MIN_RENEWAL_S", "seconds between two adverts of one peer that are passed on"),
    (demand, "MAX_DEMAND_BYTES", "bytes of a demand's body; its other limits are an advert's"),
    (gossip_reader, "MAX_PAYLOAD_BYTES", "bytes of what is gossiped"),
    (discovery, "RENEW_S", "seconds after which provider records and adverts are renewed"),
    (discovery, "FIRST_RENEWAL_S", "seconds after which they are renewed for the first time; then the time doubles"),
    (discovery, "RENEWAL_SPREAD", "each of these waits is shorter by a random part of up to so much"),
    (negotiate, "MAX_ROUNDS", "quotes of one negotiation"),
    (negotiate, "QUOTE_LIFETIME_S", "seconds for which our quotes bind"),
    (places, "HOLD_S", "seconds for which a slot is kept after `accepted`"),
    (places, "HOLDS_PER_PEER", "slots kept for one client at a time; half of the free ones where that is more"),
    (window, "MIN_WINDOW_TOKENS", "output tokens that a window covers at least, unless capped in money"),
    (session, "SESSIONS_PER_CHANNEL_MAX", "answers at a time over one channel"),
    (session, "HEARTBEAT_S", "seconds after which a side that said nothing says `heartbeat`"),
    (session, "SILENCE_S", "seconds of silence after which the other side is given up"),
    (session, "PAYMENT_PATIENCE_S", "seconds that a provider waits for a voucher or the countersignature"),
    (price, "PER_TOKENS", "tokens that a price is for"),
)

SIGNED_BY: dict[type[wire.SignedBody], str] = {
    advert.Advert: "the provider",
    demand.Demand: "the client",
    negotiate.Quote: "the provider",
    session.ProgressBody: "the provider",
    audit.Verdict: "the client that audited",
    receipt.Receipt: "the provider, then the client over the same bytes",
}

TO_PROVIDER, TO_CLIENT, BOTH = "client → provider", "provider → client", "both ways"


def main() -> None:
    """Rewrite the page."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def filled(page: str) -> str:
    """The page with every marked part made anew."""

    def part(found: re.Match[str]) -> str:
        return f"{found[1]}\n\n{PARTS[found[2]]().strip()}\n\n<!-- end -->"

    return re.sub(r"(<!-- generated: (\w+) -->).*?<!-- end -->", part, page, flags=re.DOTALL)


def limits() -> str:
    rows = ((f"`{name}`", f"{getattr(module, name):,}".replace(",", " "), meaning) for module, name, meaning in LIMITS)
    return table(("name", "value", "what is limited"), rows)


def advert_messages() -> str:
    return messages({advert.Pull: TO_PROVIDER}) + structs(advert.Advert, advert.ModelOffer, advert.ChannelOffer)


def demand_structs() -> str:
    return structs(demand.Demand, demand.Wanted)


def negotiate_messages() -> str:
    return messages(directions(negotiate)) + structs(negotiate.Quote)


def session_messages() -> str:
    return messages(directions(session) | {session.Payment: TO_PROVIDER}) + structs(session.ProgressBody)


def request_structs() -> str:
    return structs(engine.Request, engine.Message)


def receipt_structs() -> str:
    return structs(receipt.Receipt, receipt.Sampling, receipt.SignedReceipt)


def verdict_structs() -> str:
    return structs(audit.Verdict)


def channel_messages() -> str:
    return messages({release.CloseRequest: TO_PROVIDER, release.Released: TO_CLIENT})


def price_structs() -> str:
    return structs(price.Prices, price.Tokens)


def signed_structs() -> str:
    return structs(wire.Signed)


def domains() -> str:
    rows = ((f"`{tag_of(kind)}`", signer, first_line(kind)) for kind, signer in SIGNED_BY.items())
    return table(("domain", "signed by", "what it is"), rows)


def negotiate_diagram() -> str:
    return diagram(negotiate.MOVES, negotiate.State.START)


def channel_diagram() -> str:
    return diagram(channel.MOVES, channel.State.UNFUNDED)


def contract_data() -> str:
    """Of the contract's source: the cells that a channel keeps its terms and amounts in."""
    source = CONTRACT.read_text(encoding="utf-8")
    rows = []
    for cell in ("Channel", "Terms", "ReleaseTerms"):
        (body,) = re.findall(rf"^struct {cell} \{{\n(.*?)^\}}", source, flags=re.MULTILINE | re.DOTALL)
        found = re.findall(r"^ +(\w+): ([^\n/]+?) *(?:// (.*))?$", body, flags=re.MULTILINE)
        rows += [(cell, f"`{name}`", f"`{kind}`", note) for name, kind, note in found]
    return table(("cell", "field", "type", ""), rows)


def contract_operations() -> str:
    """Of the contract's source: its messages, and who may send them as its heading says."""
    source = CONTRACT.read_text(encoding="utf-8")
    about = dict(re.findall(r"^//   (\w+) +(\S.*)$", source, flags=re.MULTILINE))
    found = re.findall(r"^struct \(0x(\w{8})\) (\w+) \{ (.*) \}", source, flags=re.MULTILINE)
    rows = (
        (f"`{opcode}`", name, f"`{body}`", *re.split(r"  +", about[name], maxsplit=1))
        for opcode, name, body in found
        if name in about
    )
    return table(("opcode", "operation", "body", "from", "what it does"), rows)


def contract_exits() -> str:
    source = CONTRACT.read_text(encoding="utf-8")
    found = re.findall(r"^const (ERR_\w+) *= (\w+) // (.*)$", source, flags=re.MULTILINE)
    return table(("exit code", "name", "when"), ((str(int(code, 0)), f"`{name}`", when) for name, code, when in found))


def client_hears() -> str:
    return hears(session.CLIENT_HEARS)


def provider_hears() -> str:
    return hears(session.PROVIDER_HEARS)


def errors() -> str:
    return table(("code", "raised when"), spoken("RemoteError", (SOURCES,)))


def refusals() -> str:
    sellers = [SOURCES / name for name in ("serving.py", "payees.py", "upkeep.py", "foreign.py")]
    cores = [SOURCES / "protocol" / name for name in ("allowance.py", "negotiate.py", "sales.py", "standing.py")]
    cores += [SOURCES / "protocol" / name for name in ("incoming.py", "session_provider.py")]
    return table(("reason", "detail"), spoken(("Refused", "Refusal"), (*sellers, *cores)))


PARTS: dict[str, Callable[[], str]] = {
    part.__name__: part
    for part in (
        limits,
        advert_messages,
        demand_structs,
        negotiate_messages,
        session_messages,
        request_structs,
        receipt_structs,
        verdict_structs,
        channel_messages,
        price_structs,
        signed_structs,
        domains,
        negotiate_diagram,
        channel_diagram,
        contract_data,
        contract_operations,
        contract_exits,
        client_hears,
        provider_hears,
        errors,
        refusals,
    )
}


# Structs


def directions(module: ModuleType) -> dict[type, str]:
    """Each message of a protocol and who says it, in the order in which the module defines them."""
    to_provider, to_client = get_args(module.ToProvider), get_args(module.ToClient)
    found = {kind: BOTH if kind in to_client else TO_PROVIDER for kind in to_provider}
    found |= {kind: TO_CLIENT for kind in to_client if kind not in found}
    return {
        kind: found[kind] for kind in sorted(found, key=lambda kind: (kind.__module__, inspect.getsourcelines(kind)[1]))
    }


def messages(kinds: Mapping[type, str]) -> str:
    return "".join(entry(f"**`{tag_of(kind)}`**, {direction}.", kind) for kind, direction in kinds.items())


def structs(*kinds: type) -> str:
    return "".join(entry(f"**{kind.__name__}**.", kind) for kind in kinds)


def entry(heading: str, kind: type) -> str:
    parts = (f"{heading} {prose(kind)}", fields(kind))
    return "".join(f"{part}\n\n" for part in parts if part)


def tag_of(kind: type) -> str:
    struct: Any = kind
    return str(struct.__struct_config__.tag)


def fields(kind: type) -> str:
    """A table of a struct's fields; nothing where there are none."""
    info = types.type_info(kind)
    assert isinstance(info, types.StructType)
    notes = notes_of(kind)
    rows = [(f"`{one.name}`", type_name(one.type) + default(one), notes.get(one.name, "")) for one in info.fields]
    if info.tag_field == "domain":
        rows.insert(0, ("`domain`", f'`"{info.tag}"`', ""))
    headings = ("field", "type", "")
    if not any(note for _, _, note in rows):
        return table(headings[:2], (row[:2] for row in rows))
    return table(headings, rows)


def notes_of(kind: type) -> dict[str, str]:
    """The comments that stand at the ends of a struct's fields."""
    found = re.findall(r"^    (\w+): [^#\n]*  # (.+)$", inspect.getsource(kind), flags=re.MULTILINE)
    return dict(found)


def default(field: types.Field) -> str:
    if field.required:
        return ""
    return "; left out if empty" if field.default in ("", b"", ()) else f"; default {literal(field.default)}"


def literal(value: object) -> str:
    words: dict[object, str] = {None: "nil", True: "true", False: "false"}
    if isinstance(value, str):
        return f'`"{value}"`'
    return words[value] if value is None or isinstance(value, bool) else f"`{value}`"


def type_name(kind: types.Type) -> str:
    """A field's type in words."""
    match kind:
        case types.LiteralType(values=values):
            return " or ".join(literal(value) for value in values)
        case types.EnumType(cls=words):
            return " or ".join(literal(word.value) for word in words)
        case types.VarTupleType(item_type=item):
            return f"array of {type_name(item)}"
        case types.UnionType(types=parts):
            return " or ".join(map(type_name, parts))
        case types.StructType(cls=cls, array_like=array_like, fields=inner):
            return f"[{', '.join(one.name for one in inner)}] ({cls.__name__})" if array_like else cls.__name__
    return scalar_name(kind)


def scalar_name(kind: types.Type) -> str:
    match kind:
        case types.BoolType():
            return "boolean"
        case types.NoneType():
            return "nil"
        case types.IntType(ge=least, le=most):
            return "integer" if most is None else f"integer, {power(least)} to {power(most)}"
        case types.FloatType(ge=least, le=most):
            return "float" if most is None else f"float, {least:g} to {most:g}"
        case types.StrType(max_length=most, pattern=pattern):
            what = "text" if pattern == wire.SHOWN else "string"
            return what if most is None else f"{what}, at most {most}"
        case types.BytesType(min_length=least, max_length=most):
            return sized("bytes", least, most)
    raise TypeError(f"{kind} is not in any message")


def sized(what: str, least: int | None, most: int | None) -> str:
    if most is None:
        return what
    return f"{most} {what}" if least == most else f"{least or 0} to {most} {what}"


def power(number: int | None) -> str:
    """A bound as people write it."""
    assert number is not None
    for sign, size in (("", number + 1), ("−", -number)):
        if size > 1 << 16 and size.bit_count() == 1:
            return f"{sign}2^{size.bit_length() - 1}" + ("" if sign else " − 1")
    return str(number)


# Tables of states


def diagram(moves: Table, start: Enum) -> str:
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {start.name}"]
    lines += [f"    {begin.name} --> {end.name}: {said(move)}" for (begin, move), end in moves.items()]
    ends = {end for end in moves.values() if all(after is end for (begin, _), after in moves.items() if begin is end)}
    lines += [f"    {state.name} --> [*]" for state in type(start) if state in ends]
    return "\n".join([*lines, "```"])


def said(move: type | Enum) -> str:
    return tag_of(move) if isinstance(move, type) else move.name.lower().replace("_", " ")


def hears(heard: Mapping[type[wire.Message], Iterable[session.State]]) -> str:
    """Which message may come in which state."""
    states = [state for state in session.State if any(state in allowed for allowed in heard.values())]
    rows = ([f"`{tag_of(kind)}`", *("✓" if state in heard[kind] else "" for state in states)] for kind in heard)
    return table(("", *(state.name for state in states)), rows)


# Words for errors


def spoken(names: str | tuple[str, ...], places_: Iterable[Path]) -> list[tuple[str, str]]:
    """The codes given to these errors in the sources, each with the details that go with it."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    paths = [path for place in places_ for path in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                words = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg != "retry_after_s")]
                code, *details = [text for text in map(constant, words) if text is not None] or [""]
                if code:
                    found[code] |= dict.fromkeys(details)
    return [(f"`{code}`", "; ".join(details)) for code, details in sorted(found.items())]


def constant(node: ast.expr) -> str | None:
    """A string that stands in the source, `…` for what is put into it."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(constant(value) or "…" for value in values)
    return None


# Text


def prose(kind: type) -> str:
    """A docstring as one paragraph."""
    return " ".join((inspect.getdoc(kind) or "").split())


def first_line(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; nothing where there are no rows."""
    lines = [" | ".join(row) for row in rows]
    if not lines:
        return ""
    heads = list(headings)
    return "\n".join(f"| {line} |" for line in [" | ".join(heads), " | ".join(["---"] * len(heads)), *lines])


if __name__ == "__main__":
    main()
