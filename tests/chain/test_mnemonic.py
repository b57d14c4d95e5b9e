"""TON's 24 words, against phrases whose keys TON's own wallets agree on."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from chain import mnemonic
from chain.errors import WalletUnusable

# Two phrases that the test suites of TON's JavaScript libraries publish; nobody keeps money on them.
HOSPITAL = (
    "hospital stove relief fringe tongue always charge angry urge sentence again match "
    "nerve inquiry senior coconut label tumble carry category beauty bean road solution"
)
DOSE = (
    "dose ice enrich trigger test dove century still betray gas diet dune "
    "use other base gym mad law immense village world example praise game"
)


def by_the_book(phrase: str) -> bytes:
    """The rule as TON's documentation gives it, on the standard library alone."""
    entropy = hmac.digest(phrase.encode(), b"", "sha512")
    return hashlib.pbkdf2_hmac("sha512", entropy, b"TON default seed", 100_000)[:32]


def test_the_published_phrase_gives_the_published_key() -> None:
    seed = mnemonic.seed(mnemonic.parse(HOSPITAL))
    assert seed.hex() == "9d659a6c2234db7f6e4f977e6e8653b9f5946d557163f31034011375d8f3f97d"


@pytest.mark.parametrize("phrase", [HOSPITAL, DOSE])
def test_the_key_is_made_by_the_book(phrase: str) -> None:
    assert mnemonic.seed(mnemonic.parse(phrase)) == by_the_book(phrase)


def test_case_and_spaces_do_not_matter() -> None:
    spread = "\n".join(HOSPITAL.upper().split(" ")) + "  \n"
    assert mnemonic.parse(spread) == tuple(HOSPITAL.split())


def test_fresh_words_are_valid_and_differ() -> None:
    first, second = mnemonic.generate(), mnemonic.generate()
    assert mnemonic.parse(" ".join(first)) == first
    assert first != second


@pytest.mark.parametrize(
    ("phrase", "why"),
    [
        ("", "24 words, these are 0"),
        (HOSPITAL.removesuffix(" solution"), "24 words, these are 23"),
        (f"{HOSPITAL} zoo", "24 words, these are 25"),
        (HOSPITAL.replace("stove", "stovve"), "not in the word list: word 2;"),
        (HOSPITAL.replace("stove", "stovve").replace("road", "röad"), "words 2, 23;"),
        (HOSPITAL.replace("stove", "zoo"), "no TON wallet's"),
        (" ".join(reversed(HOSPITAL.split())), "no TON wallet's"),
    ],
)
def test_what_is_no_phrase_is_refused_without_repeating_it(phrase: str, why: str) -> None:
    with pytest.raises(WalletUnusable, match=why) as caught:
        mnemonic.parse(phrase)
    said = set(str(caught.value).lower().replace(":", " ").replace(",", " ").split())
    assert not said & (set(phrase.split()) - {"word", "order"})
