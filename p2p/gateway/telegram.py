"""Pure: who opened the page as a Telegram Mini App, from the data that Telegram signs.

https://core.telegram.org/bots/webapps#validating-data-received-via-the-mini-app
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import parse_qsl

import msgspec

from p2p.gateway.failures import Rejected, invalid

LIFE_S = 86_400  # for which what was signed lets somebody in
EARLY_S = 60  # by which Telegram's clock may be ahead of ours
MAX_BYTES = 4096
MAX_FIELDS = 32


class User(msgspec.Struct, frozen=True):
    """All that is looked at of the one who opened it."""

    id: int


def user_of(init_data: str, token: str, now: float) -> int:
    """The id of the user to whom Telegram gave `init_data` for the bot with this `token`.

    Raises `Rejected` for what was not signed so, or too long ago.
    """
    try:
        given = parse_qsl(init_data, strict_parsing=True, keep_blank_values=True, max_num_fields=MAX_FIELDS)
        fields = dict(given)
        if len(init_data) > MAX_BYTES or len(fields) != len(given):
            raise _refused()
        signature = bytes.fromhex(fields.pop("hash"))
        lines = "\n".join(f"{name}={value}" for name, value in sorted(fields.items()))
        key = hmac.digest(b"WebAppData", token.encode(), hashlib.sha256)
        if not hmac.compare_digest(hmac.digest(key, lines.encode(), hashlib.sha256), signature):
            raise _refused()
        signed_at = int(fields["auth_date"])
        user = msgspec.json.decode(fields["user"], type=User)
    except (ValueError, KeyError):  # msgspec's errors are ValueErrors
        raise _refused() from None
    if not now - LIFE_S <= signed_at <= now + EARLY_S:
        raise _refused("what Telegram signed is too old: open the page again")
    return user.id


def _refused(why: str = "this is not what Telegram signed for this gateway's bot") -> Rejected:
    return invalid(why, code="invalid_api_key", status=401)
