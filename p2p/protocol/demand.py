"""Core: what an application wants over time, for which it asks for standing quotes."""

from __future__ import annotations

import msgspec

from p2p.protocol.advert import Tier
from p2p.protocol.negotiate import Ask, Nonce
from p2p.protocol.price import Prices, Tokens
from p2p.protocol.wire import Bytes32, Name, Nat, Size

DAY_S = 86_400
# Single requests are larger than their mean: a quote covers those up to so many times that, and room for a template.
TIMES_THE_MEAN = 4
TEMPLATE_TOKENS = 256


class Wanted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """So many requests a day to a model, or to each model of a family; token counts are means."""

    model: Name = ""
    family: Name = ""
    per_day: Size
    input_tokens: Size
    output_tokens: Size
    prices_max: Prices | None = None
    tier: Tier = "open"
    until: Nat  # unix seconds

    @property
    def tokens(self) -> Tokens:
        """Of one request."""
        return Tokens(input=self.input_tokens, output=self.output_tokens)

    def sizes(self, context: int) -> tuple[int, int]:
        """The largest prompt and answer that a quote should cover, for a model that holds `context` tokens."""
        prompt = TIMES_THE_MEAN * self.input_tokens + TEMPLATE_TOKENS
        answer = TIMES_THE_MEAN * self.output_tokens
        if prompt + answer > context:
            answer = max(1, context * answer // (prompt + answer))
            prompt = max(1, context - answer)
        return prompt, answer

    def ask(self, model: str, context: int, *, payer_key: Bytes32, nonce: Nonce, now: float) -> Ask:
        """For what is wanted of the next day, or until the end: nobody promises more for much longer."""
        until = min(self.until, int(now) + DAY_S)
        prompt_tokens, max_tokens = self.sizes(context)
        return Ask(
            model=model,
            prompt_tokens=prompt_tokens,
            max_tokens=max_tokens,
            payer_key=payer_key,
            nonce=nonce,
            tier=self.tier,
            uses=max(2, -(-self.per_day * (until - int(now)) // DAY_S)),
            until=until,
        )
