"""`models` on the command line: which models are known, and which of them fit into this machine, term by term."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.markup import escape
from trio.to_thread import run_sync

from inference.catalogue import catalogue
from inference.fitting import (
    CACHE_BITS,
    ON_CPU,
    ON_GPU,
    WEIGHT_BITS,
    Architecture,
    Overhead,
    Term,
    longest_context,
    needs,
    total,
    weights_of,
)
from inference.gpu import gpus
from inference.local_models import read_model
from inference.memory import available_memory
from p2p.console import Session
from p2p.errors import LocalError, Unavailable
from p2p.foreign import translated

MIB = 1 << 20
UNITS = {"": 1, "K": 1 << 10, "M": MIB, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Place:
    """Where a model can be loaded, and how much room there is, in bytes."""

    name: str
    room: int
    overhead: Overhead


@dataclass(frozen=True)
class Candidate:
    """A model with weights of a certain size."""

    name: str
    quantisation: str
    architecture: Architecture
    weights: Term


@dataclass(frozen=True)
class Wanted:
    """How it is to be served."""

    context: int
    slots: int
    cache: str

    def terms(self, one: Candidate, place: Place) -> tuple[Term, ...]:
        return needs(
            one.architecture, one.weights, place.overhead, context=self.context, slots=self.slots, cache=self.cache
        )

    def longest(self, one: Candidate, place: Place) -> int:
        return longest_context(
            one.architecture, one.weights, place.overhead, slots=self.slots, cache=self.cache, budget=place.room
        )


async def run(session: Session) -> None:
    """List the models that are known, or say what fits. Raises `Unavailable` where what was named does not fit."""
    if session.options.action == "list":
        _list(session)
        return
    wanted = _wanted(session)
    places = await run_sync(_places, session.options.memory, wanted.slots)
    if session.options.names:
        with translated():
            named = [await run_sync(_named, name, session.options.quantisation) for name in session.options.names]
        _tell_named(session, named, wanted, places)
    else:
        _tell_all(session, wanted, places)


def _list(session: Session) -> None:
    known = catalogue()
    if session.options.json:
        as_json = [msgspec.to_builtins(one) | {"parameters": one.architecture.parameters} for one in known]
        session.print_json(as_json)
        return
    headings = ("model", "family", "billions", "layers", "heads", "experts", "context", "source")
    session.story.columns(headings, [_listed(one.id, one.family, one.architecture, one.source) for one in known])


def _listed(name: str, family: str, model: Architecture, source: str) -> Sequence[str]:
    experts = f"{model.experts_used} of {model.experts}" if model.experts else "-"
    heads = f"{model.heads}, {model.kv_heads} cached"
    size = f"{model.parameters / 1e9:.2f}"
    return name, family, size, str(model.layers), heads, experts, f"{model.context:,}", escape(source)


def _wanted(session: Session) -> Wanted:
    """Raises `LocalError`."""
    cache = session.options.cache
    if cache not in CACHE_BITS:
        raise LocalError(f"--cache {cache}: {', '.join(CACHE_BITS)}")
    return Wanted(session.config.provide.context, session.config.provide.slots, cache)


def _places(memory: str | None, slots: int) -> Sequence[Place]:
    """Raises `LocalError` where nothing can be found out."""
    if memory is not None:
        return [Place("memory as given", _bytes(memory), ON_CPU)]
    found = [Place(f"GPU {number}, {gpu.name}", gpu.free, ON_GPU) for number, gpu in enumerate(gpus())]
    available = available_memory(ON_CPU.threads_for(slots))
    if available is not None:
        found.append(Place(f"memory, by the processor ({available.by})", available.bytes, ON_CPU))
    if not found:
        raise LocalError("this system does not say how much memory there is: give it as --memory 16GiB")
    return found


def _bytes(text: str) -> int:
    """From 16GiB, 500M or a number of bytes. Raises `LocalError`."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,3})?)\s?([KMGT]?)(?:iB)?", text)
    if not match:
        raise LocalError(f"--memory {text}: write it as 16GiB or 500MiB")
    return int(float(match[1]) * UNITS[match[2]])


def _named(name: str, quantisation: str) -> Candidate:
    """A file or folder of the user's, or a model of the catalogue. Raises `LocalError` or `ModelMissing`."""
    path = Path(name).expanduser()
    if path.exists():
        found = read_model(path)
        return Candidate(found.name, "as it is", found.architecture, found.weights)
    if quantisation not in WEIGHT_BITS:
        raise LocalError(f"--quantisation {quantisation}: {', '.join(WEIGHT_BITS)}")
    for known in catalogue():
        if known.id == name:
            return Candidate(name, quantisation, known.architecture, weights_of(known.architecture, quantisation))
    raise LocalError(f"{name} is neither a file here nor in the catalogue: see `models list`")


def _tell_named(session: Session, named: Sequence[Candidate], wanted: Wanted, places: Sequence[Place]) -> None:
    """Every term, for all of them side by side in each place."""
    for one in named:
        if wanted.context > one.architecture.context:
            raise LocalError(f"{one.name} takes {one.architecture.context} tokens at most: give a smaller --context")
    told, fits = [], False
    for place in places:
        terms = [(one, wanted.terms(one, place)) for one in named]
        taken = sum(total(each) for _, each in terms)
        fits = fits or taken <= place.room
        told.append(_as_json(place, taken, terms, wanted))
        if not session.options.json:
            _tell_terms(session, place, terms, taken)
            if len(named) == 1:
                longest = wanted.longest(named[0], place)
                session.story.say(f"The longest context that fits with {wanted.slots} slots: {longest:,} tokens each.")
    if session.options.json:
        session.print_json(told)
    if not fits:
        raise Unavailable("that does not fit: take fewer slots, less context, or fewer bits per weight")


def _as_json(
    place: Place, taken: int, terms: Sequence[tuple[Candidate, tuple[Term, ...]]], wanted: Wanted
) -> dict[str, Any]:
    return {
        "place": place.name,
        "room": place.room,
        "taken": taken,
        "fits": taken <= place.room,
        "models": [
            {
                "model": one.name,
                "quantisation": one.quantisation,
                "slots": wanted.slots,
                "context": wanted.context,
                "context_longest": wanted.longest(one, place),
                "terms": [asdict(term) for term in each],
            }
            for one, each in terms
        ],
    }


def _tell_terms(
    session: Session, place: Place, terms: Sequence[tuple[Candidate, tuple[Term, ...]]], taken: int
) -> None:
    session.story.say(f"{escape(place.name)}:")
    rows = [
        (f"{escape(one.name)} {term.name}", _mib(term.bytes), term.how, term.source)
        for one, each in terms
        for term in each
    ]
    verdict = "[green]fits[/]" if taken <= place.room else "[red]does not fit[/]"
    session.story.columns(("", "MiB", "how", "source"), rows)
    session.story.say(f"Together {_mib(taken)} MiB of {_mib(place.room)} MiB: {verdict}.")


def _tell_all(session: Session, wanted: Wanted, places: Sequence[Place]) -> None:
    """For each place and model the most bits per weight with which the wanted context fits."""
    told = []
    for place in places:
        best = list(_fitting(wanted, place))
        if session.options.json:
            told += [_as_json(place, total(terms), [(one, terms)], wanted) for one, terms in best]
            continue
        what = f"{wanted.slots} slots of {wanted.context:,} tokens, cached in {wanted.cache}"
        session.story.say(f"{escape(place.name)}, {_mib(place.room)} MiB. What fits with {what}:")
        if best:
            rows = [_row(one, terms, wanted.longest(one, place)) for one, terms in best]
            session.story.columns(("model", "weights in", "MiB", "of that weights", "longest context"), rows)
        others = len(catalogue()) - len(best)
        session.story.say(f"{others} of the catalogue do not fit. `models fit MODEL` shows each term.")
    if session.options.json:
        session.print_json(told)


def _fitting(wanted: Wanted, place: Place) -> Iterator[tuple[Candidate, tuple[Term, ...]]]:
    for known in catalogue():
        for quantisation in WEIGHT_BITS:  # the largest first
            weights = weights_of(known.architecture, quantisation)
            one = Candidate(known.id, quantisation, known.architecture, weights)
            terms = wanted.terms(one, place)
            if total(terms) <= place.room and wanted.context <= known.architecture.context:
                yield one, terms
                break


def _row(one: Candidate, terms: Sequence[Term], longest: int) -> Sequence[str]:
    return one.name, one.quantisation, _mib(total(terms)), _mib(one.weights.bytes), f"{longest:,}"


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f}"
