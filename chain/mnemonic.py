"""The 24 words that a wallet's key is made from, as TON's wallets do it.

The words are BIP-39's, the rule is TON's own (pytoniq-core's `crypto/keys.py`): one phrase in 256 is valid, and
100,000 rounds of PBKDF2-SHA512 make an Ed25519 seed of it. That cannot be undone, so whoever wants to show the words
again has to keep them.
"""

from __future__ import annotations

from chain.errors import WalletUnusable

WORDS = 24

Words = tuple[str, ...]


def generate() -> Words:
    """24 fresh words, from the system's randomness. Takes about half a second: most phrases are not valid."""
    from pytoniq_core.crypto.keys import mnemonic_new

    return tuple(mnemonic_new(WORDS))


def parse(text: str) -> Words:
    """The words in `text`, in either case and however they are spaced.

    Raises `WalletUnusable` for what is no phrase; the message repeats nothing of it.
    """
    from pytoniq_core.crypto.keys import mnemonic_is_valid
    from pytoniq_core.crypto.keys import words as known

    words = tuple(text.lower().split())
    if len(words) != WORDS:
        raise WalletUnusable(f"a wallet has {WORDS} words, these are {len(words)}")
    strange = [str(place) for place, word in enumerate(words, 1) if word not in known]
    if strange:
        raise WalletUnusable(f"not in the word list: {_named(strange)}; is it misspelt?")
    if not mnemonic_is_valid(list(words)):
        raise WalletUnusable(
            f"these {WORDS} words are no TON wallet's: one is wrong, the order is, or they go with a password"
        )
    return words


def seed(words: Words) -> bytes:
    """The Ed25519 seed of a valid phrase, 32 bytes. Takes about 0.2 s."""
    from pytoniq_core.crypto.keys import mnemonic_to_wallet_key

    _, secret = mnemonic_to_wallet_key(list(words))
    return bytes(secret[:32])


def _named(places: list[str]) -> str:
    return f"{'word' if len(places) == 1 else 'words'} {', '.join(places)}"
