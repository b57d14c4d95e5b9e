"""What is on offer now: a look at the network, remembered for some seconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from p2p.discovery import Found
from p2p.errors import Unavailable
from p2p.gateway.failures import model_not_found
from p2p.peer import LightPeer
from p2p.protocol.advert import ModelOffer
from p2p.recent import Recent

FRESH_S = 10.0
EVERYBODY = ""


class Catalogue:
    """All providers that answer, and what they have."""

    def __init__(self, peer: LightPeer) -> None:
        self._peer = peer
        self._looks = Recent[Sequence[Found]](FRESH_S)

    async def providers(self) -> Sequence[Found]:
        """Those that answered within the last seconds, each once. Raises `Error`; nobody there is nothing found."""
        try:
            return await self._looks.get(EVERYBODY, self._peer.find)
        except Unavailable:  # where there is nobody, the next look may well find somebody
            return ()

    async def models(self) -> Mapping[str, Sequence[ModelOffer]]:
        """By id, each with its offers."""
        offers: defaultdict[str, list[ModelOffer]] = defaultdict(list)
        for found in await self.providers():
            for offer in found.advert.models:
                offers[offer.id].append(offer)
        return dict(sorted(offers.items()))

    async def require(self, model: str) -> Sequence[ModelOffer]:
        """The offers of one. Raises `Rejected`; of a network where nobody is, `Unavailable`."""
        if model in (known := await self.models()):
            return known[model]
        if not known:
            raise Unavailable("no provider answers; check the network, or start one: python -m p2p.node provide")
        try:
            return [found.model for found in await self._peer.find(model)]  # somebody may have come since
        except Unavailable:
            raise model_not_found(model) from None


def as_openai(model: str, offers: Sequence[ModelOffer], created: int) -> dict[str, Any]:
    """A model as `/v1/models` lists it. `bombyx` has what the cheapest and the fastest ask and promise."""
    cheapest = min(offers, key=lambda offer: (offer.prices.output, offer.prices.input))
    return {
        "id": model,
        "object": "model",
        "created": created,
        "owned_by": cheapest.family,
        "bombyx": {
            "providers": len(offers),
            "slots_free": sum(offer.slots_free for offer in offers),
            "context": max(offer.context for offer in offers),
            "price_from": {"input": cheapest.prices.input, "output": cheapest.prices.output},
            "tokens_per_s": max(offer.tokens_per_s for offer in offers),
            "features": sorted(set.intersection(*(set(offer.features) for offer in offers))),
        },
    }
