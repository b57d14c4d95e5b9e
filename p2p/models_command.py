"""`models` on the command line: which models are at hand or known, and which of them fit here, term by term."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from rich.markup import escape
from trio.to_thread import run_sync

from inference.catalogue import Known, catalogue
from inference.errors import ModelMissing
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
from inference.models import embedded_model
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

    @property
    def short(self) -> str:
        return self.name.partition(",")[0]


@dataclass(frozen=True)
class Candidate:
    """A model with weights of a certain size. Of files nothing says what family they are."""

    name: str
    quantisation: str
    architecture: Architecture
    weights: Term
    family: str = "-"
    source: str = "its files"


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

    def taken(self, one: Candidate, place: Place) -> int:
        return total(self.terms(one, place))

    def fits(self, one: Candidate, place: Place) -> bool:
        return self.taken(one, place) <= place.room and self.context <= one.architecture.context

    def longest(self, one: Candidate, place: Place) -> int:
        return longest_context(
            one.architecture, one.weights, place.overhead, slots=self.slots, cache=self.cache, budget=place.room
        )


async def run(session: Session) -> None:
    """List models, or say what fits. Raises `Unavailable` where what was named to `fit` does not."""
    wanted, quantisation = _wanted(session), _quantisation(session)
    places = await run_sync(_places, session.options.memory, wanted.slots)
    with translated():
        named = [await run_sync(_named, name, quantisation) for name in session.options.names]
        if session.options.action == "list":
            own = await run_sync(_own, session.config.provide.model)
            known = [_known(one, quantisation) for one in catalogue()]
            _list(session, [*own, *named, *known], wanted, places)
            return
    if not places:
        raise LocalError("this system does not say how much memory there is: give it as --memory 16GiB")
    if named:
        _tell_named(session, named, wanted, places)
    else:
        _tell_all(session, wanted, places)


def _list(session: Session, models: Sequence[Candidate], wanted: Wanted, places: Sequence[Place]) -> None:
    if session.options.json:
        session.print_json([_listed_as_json(one, wanted, places) for one in models])
        return
    rows = [_listed(one, wanted, places) for one in models]
    headings = ("model", "family", "billions", "experts", "context", "weights in", "MiB", "fits", "source")
    session.story.columns(headings, rows)
    what = f"{wanted.slots} slots of {wanted.context:,} tokens, cached in {wanted.cache}"
    session.story.say(f"MiB to serve {what}, and where there is room for that now. `models fit MODEL` shows each term.")


def _listed(one: Candidate, wanted: Wanted, places: Sequence[Place]) -> Sequence[str]:
    """In the first place where it fits, or else in the last."""
    fitting = next((place for place in places if wanted.fits(one, place)), None)
    told = fitting or (places[-1] if places else None)
    model = one.architecture
    experts = f"{model.experts_used} of {model.experts}" if model.experts else "-"
    return (
        escape(one.name),
        one.family,
        f"{model.parameters / 1e9:.2f}",
        experts,
        f"{model.context:,}",
        one.quantisation,
        _mib(wanted.taken(one, told)) if told else "-",
        escape(fitting.short) if fitting else "no" if places else "unknown",
        escape(one.source),
    )


def _listed_as_json(one: Candidate, wanted: Wanted, places: Sequence[Place]) -> dict[str, Any]:
    return {
        "id": one.name,
        "family": one.family,
        "source": one.source,
        "architecture": msgspec.to_builtins(one.architecture),
        "parameters": one.architecture.parameters,
        "quantisation": one.quantisation,
        "slots": wanted.slots,
        "context": wanted.context,
        "places": [
            {
                "place": place.name,
                "room": place.room,
                "taken": wanted.taken(one, place),
                "fits": wanted.fits(one, place),
            }
            for place in places
        ],
    }


def _wanted(session: Session) -> Wanted:
    """Raises `LocalError`."""
    cache = session.options.cache
    if cache not in CACHE_BITS:
        raise LocalError(f"--cache {cache}: {', '.join(CACHE_BITS)}")
    return Wanted(session.config.provide.context, session.config.provide.slots, cache)


def _quantisation(session: Session) -> str:
    """Raises `LocalError`."""
    quantisation: str = session.options.quantisation
    if quantisation not in WEIGHT_BITS:
        raise LocalError(f"--quantisation {quantisation}: {', '.join(WEIGHT_BITS)}")
    return quantisation


def _places(memory: str | None, slots: int) -> Sequence[Place]:
    """None where nothing can be found out. Raises `LocalError` for a size that is none."""
    if memory is not None:
        return [Place("memory as given", _bytes(memory), ON_CPU)]
    found = [Place(f"GPU {number}, {gpu.name}", gpu.free, ON_GPU) for number, gpu in enumerate(gpus())]
    available = available_memory(ON_CPU.threads_for(slots))
    if available is not None:
        found.append(Place(f"memory, by the processor ({available.by})", available.bytes, ON_CPU))
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
        return _at(path)
    for known in catalogue():
        if known.id == name:
            return _known(known, quantisation)
    raise LocalError(f"{name} is neither a file here nor in the catalogue: see `models list`")


def _at(path: Path) -> Candidate:
    found = read_model(path)
    return Candidate(found.name, "as it is", found.architecture, found.weights)


def _known(one: Known, quantisation: str) -> Candidate:
    weights = weights_of(one.architecture, quantisation)
    return Candidate(one.id, quantisation, one.architecture, weights, one.family, one.source)


def _own(model: str) -> Sequence[Candidate]:
    """What `provide` would serve, if it is here: the file or folder that is configured, or the embedded model."""
    if model:
        return [_at(Path(model).expanduser())]
    try:
        weights = embedded_model()
    except ModelMissing:
        return []
    return [replace(_at(Path(weights.path)), name=weights.id, family=weights.family)]


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
            one = _known(known, quantisation)
            if wanted.fits(one, place):
                yield one, wanted.terms(one, place)
                break


def _row(one: Candidate, terms: Sequence[Term], longest: int) -> Sequence[str]:
    return one.name, one.quantisation, _mib(total(terms)), _mib(one.weights.bytes), f"{longest:,}"


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f}"
