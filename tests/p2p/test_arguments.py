"""The command line's words: what is configuration goes where the configuration has it."""

from __future__ import annotations

import pytest

from p2p.arguments import overrides, parse
from p2p.config import load
from p2p.errors import LocalError


@pytest.mark.parametrize(
    ("arguments", "nested"),
    [
        ([], {}),
        (["ask", "why?"], {}),
        (["--home", "/h", "ask", "why?", "--max-tokens", "9"], {"home": "/h", "ask": {"max_tokens": "9"}}),
        (["ask", "why?", "--home", "/h", "--price-max-output", "5"], {"home": "/h", "ask": {"price_max_output": "5"}}),
        (["provide", "--listen", "a", "--listen", "b"], {"listen": ["a", "b"]}),
        (
            ["provide", "--upstream-model", "a=b", "--upstream-model", "c", "--upstream-connect-s", "2"],
            {"provide": {"upstream_models": ["a=b", "c"], "upstream_connect_s": "2"}},
        ),
        (["provide", "--price-input", "7", "--slots", "3"], {"provide": {"price_input": "7", "slots": "3"}}),
    ],
)
def test_flags_are_configuration_wherever_they_stand(arguments: list[str], nested: dict[str, object]) -> None:
    options = parse(arguments)
    assert overrides(options) == nested
    load(None, {}, overrides(options))


def test_commands_and_their_own_options() -> None:
    assert parse([]).command == "solo"
    assert parse(["--json", "demo"]).json
    assert parse(["demo", "--json", "--providers", "2"]).providers == 2
    assert not parse(["demo"]).json
    assert parse(["ask", "--json", "--", "--why?"]).prompt == "--why?"
    close = parse(["channels", "close", "ab"])
    assert (close.command, close.action, close.channel, close.provider) == ("channels", "close", "ab", False)


@pytest.mark.parametrize(
    "words",
    [
        ["channels", "close", "ab"],
        ["models", "list", "own.gguf", "another.gguf"],
        ["models", "fit"],
        ["peers", "why", "ab"],
        ["receipts", "verify", "receipt"],
        ["wallet", "send", "address", "5"],
        ["ask", "why?"],
    ],
)
def test_flags_may_stand_between_words(words: list[str]) -> None:
    flags = ["--json", "--home", "/h"]
    meant = parse([*words, *flags])
    assert meant.json
    for place in range(1, len(words)):
        assert parse([*words[:place], *flags, *words[place:]]) == meant


@pytest.mark.parametrize(
    "arguments", [["sell"], ["ask", "--colour", "red"], ["demo", "--providers", "many"], ["relay"], ["channels", "eat"]]
)
def test_what_is_not_understood_is_one_line(arguments: list[str]) -> None:
    with pytest.raises(LocalError) as caught:
        parse(arguments)
    assert "\n" not in str(caught.value)
    assert "--help" in str(caught.value)
