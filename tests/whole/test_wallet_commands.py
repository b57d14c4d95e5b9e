"""`wallet` as its owner uses it: on the command line, on a terminal, and against a real chain."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest
from here import here
from processes import MARK, Done, Processes
from typist import Typed, typed

from chain.address import friendly
from chain.book import Book
from chain.ledger import ChannelTerms, Network
from chain.sealed import COST_MIN
from chain.voucher import Claim
from chain.wallet import Bare, WalletKey, read, store
from p2p.terminal import Terminal

pytestmark = pytest.mark.slow

GRAM = 10**9
DEVNET, PRIVATE = Network("devnet", -239), Network("private", -239)
PASSPHRASE = "correct horse battery"
NOTHING: Mapping[str, str] = MappingProxyType({})

# Published in the test suites of TON's JavaScript libraries.
WORDS = (
    "hospital stove relief fringe tongue always charge angry urge sentence again match "
    "nerve inquiry senior coconut label tumble carry category beauty bean road solution"
)
SEED = "9d659a6c2234db7f6e4f977e6e8653b9f5946d557163f31034011375d8f3f97d"
STRANGER = "0:" + "5a" * 32


class Owner:
    """Somebody with a home, and all that they were ever told."""

    def __init__(self, processes: Processes, networks: Mapping[str, Path], name: str) -> None:
        self.home = processes.directory / name
        self.told: list[str] = []
        self._processes = processes
        self._networks = networks

    def wallet(self, *arguments: str | Path, on: str = "devnet", environment: Mapping[str, str] = NOTHING) -> Done:
        """The command, where it needs to ask nothing: in this process."""
        return self._heard(here(self._processes, *self.command(arguments, on), environment=environment))

    def alone(self, *arguments: str | Path, on: str = "devnet", environment: Mapping[str, str] = NOTHING) -> Done:
        """The same in a process without a terminal to ask at."""
        return self._heard(self._processes.run("p2p.node", *self.command(arguments, on), environment=environment))

    def types(self, *arguments: str | Path, answers: Sequence[tuple[str, str]], on: str = "devnet") -> Typed:
        """With a terminal."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BOMBYX_")}
        environment = inherited | {"PYTHONPATH": str(Path(__file__).parent.parent.parent), "TERM": "dumb", MARK: ""}
        command = ("-m", "p2p.node", *self.command(arguments, on))
        done = typed(*command, answers=answers, environment=environment, folder=self._processes.directory)
        self.told.append(done.said)
        return done

    def other(self, name: str) -> Owner:
        """Somebody else, on the same networks."""
        return Owner(self._processes, self._networks, name)

    def _heard(self, done: Done) -> Done:
        self.told += [done.out, done.err]
        return done

    @property
    def folder(self) -> Path:
        return self.home / "client"

    @property
    def key(self) -> WalletKey:
        """Of a wallet that is not locked, or is by `PASSPHRASE`."""
        return read(self.folder / "wallet.key").unlock(PASSPHRASE)

    def has(self, key: WalletKey, lock: str | Bare) -> None:
        """Give them a wallet, which is quick to unlock."""
        self.folder.mkdir(parents=True)
        store(self.folder / "wallet.key", key, lock, COST_MIN)

    def command(self, arguments: Sequence[str | Path], on: str) -> list[str | Path]:
        return ["wallet", *arguments, "--home", self.home, "--network", self._networks[on]]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Path]]:
    """A devnet; and the same chain under two names that promise no play money."""
    with Processes(tmp_path_factory.mktemp("chain")) as started:
        folder = started.directory
        devnet = started.serve("chain.devnet", "--config-out", folder / "ton.json")
        devnet.said(lambda text: text.endswith("\n"))
        chain = json.loads((folder / "ton.json").read_text())
        marks = {name: {"name": name, "global_id": chain["bombyx"]["global_id"]} for name in ("private", "mainnet")}
        marks["devnet"] = chain["bombyx"]
        for name, mark in marks.items():
            network = {"bootstraps": [], "chain": chain | {"bombyx": mark}}
            (folder / f"{name}.json").write_text(json.dumps(network))
        yield {name: folder / f"{name}.json" for name in marks}


@pytest.fixture
def owner(processes: Processes, networks: Mapping[str, Path]) -> Iterator[Owner]:
    owner = Owner(processes, networks, "owner")
    yield owner
    told = "\n".join(owner.told)
    assert PASSPHRASE not in told
    if (owner.folder / "wallet.key").exists():
        key = owner.key
        assert key.seed.hex() not in told
        assert not any(" ".join(key.words[start : start + 2]) in told for start in range(len(key.words) - 1))


def refusal(done: Done) -> str:
    """The one line with which a command refused to start."""
    assert done.code == 2
    assert done.out == ""
    return done.complaint


def unlocks(done: Done) -> bool:
    """Whether it got past the wallet: the chain then fails it, where one server's word is not enough."""
    return done.code == 1 and "lite-server" in done.complaint


def test_on_a_devnet_a_wallet_is_there_on_first_use_and_needs_no_passphrase(owner: Owner) -> None:
    shown = owner.wallet("--json").result
    assert shown == {
        "address": owner.key.address(DEVNET),
        "balance_nano": 0,
        "spent_today_nano": 0,
        "locked": False,
    }
    assert owner.wallet("fund", "--json").result["balance_nano"] == 2 * GRAM
    assert "a wallet already" in refusal(owner.wallet("create"))
    table = owner.wallet().out
    assert friendly(shown["address"], DEVNET) in table
    assert "(2,000,000,000 nano)" in table
    assert "the file's permissions alone" in table


def test_money_is_sent_exactly_and_only_to_real_addresses(owner: Owner) -> None:
    owner.wallet("fund")
    target = WalletKey(bytes(31) + b"\1").address(DEVNET)
    sent = owner.wallet("send", friendly(target, DEVNET), "0.25", "--yes", "--json").result
    assert (sent["to"], sent["sent_nano"]) == (target, GRAM // 4)
    owner.wallet("send", target, "7nano", "--yes")
    with_target = owner.other("target")
    with_target.has(WalletKey(bytes(31) + b"\1"), Bare.DEVNET)
    arrived_nano = with_target.wallet("--json").result["balance_nano"]
    assert 0 <= GRAM // 4 + 7 - arrived_nano < 100  # the account pays rent meanwhile
    shown = owner.wallet("--json").result
    assert shown["spent_today_nano"] == GRAM // 4 + 7
    assert 2 * GRAM - shown["spent_today_nano"] - shown["balance_nano"] < 3_000_000
    mistyped = friendly(target, DEVNET).replace("A", "B", 1)
    for address, amount, why in [
        (mistyped, "1", "checksum"),
        (target[:-1], "1", "not a TON address"),
        (target, "1.0000000001", "not an amount"),
        (target, "-1", ""),
        (target, "0", "nothing"),
    ]:
        assert why in refusal(owner.wallet("send", address, amount, "--yes"))
    too_much = owner.wallet("send", target, "5", "--yes")
    assert too_much.code == 1
    assert "holds" in too_much.complaint
    assert owner.wallet("--json").result["balance_nano"] == shown["balance_nano"]


def test_nothing_is_sent_without_a_yes(owner: Owner) -> None:
    owner.wallet("fund")
    assert "nobody can be asked" in refusal(owner.alone("send", STRANGER, "1"))
    asked = owner.types("send", STRANGER, "1.5", answers=[("Type yes to go on: ", "y\n")])
    assert asked.code == 2
    assert f"Send 1.5 GRAM (1,500,000,000 nano) to {STRANGER} on devnet." in asked.said
    assert "nothing was sent" in asked.said
    assert owner.wallet("--json").result["balance_nano"] == 2 * GRAM
    agreed = owner.types("send", STRANGER, "1.5", answers=[("Type yes to go on: ", "yes\n")])
    assert agreed.code == 0
    assert owner.wallet("--json").result["spent_today_nano"] == 15 * GRAM // 10


def test_a_limit_holds_from_one_process_to_the_next(owner: Owner) -> None:
    owner.wallet("fund")
    limit = {"BOMBYX_WALLET_DAY_MAX_NANO": str(GRAM)}
    assert owner.wallet("send", STRANGER, "0.7", "--yes", environment=limit).code == 0
    over = owner.wallet("send", STRANGER, "0.7", "--yes", environment=limit)
    assert over.code == 1
    assert "300000000 left, day_max_nano is 1000000000" in over.complaint
    assert owner.wallet("send", STRANGER, "0.3", "--yes", environment=limit).code == 0


def test_two_processes_send_at_once(owner: Owner) -> None:
    owner.wallet("fund")
    owner.wallet("send", STRANGER, "1nano", "--yes")  # so that the wallet's contract is there
    command = owner.command(("send", STRANGER, "0.1", "--yes", "--json"), "devnet")
    both = [owner._processes.start("p2p.node", *command) for _ in range(2)]
    assert [one.wait().result["sent_nano"] for one in both] == [GRAM // 10] * 2
    assert owner.wallet("--json").result["spent_today_nano"] == 2 * GRAM // 10 + 1


def test_where_money_is_real_a_wallet_is_made_on_purpose_and_locked(owner: Owner) -> None:
    assert "wallet create" in refusal(owner.wallet(on="private"))
    assert "there is no terminal" in refusal(owner.alone("create", on="private"))
    assert "8 characters" in refusal(owner.wallet("create", on="private", environment={"BOMBYX_PASSPHRASE": "short"}))
    assert not (owner.folder / "wallet.key").exists()
    made = owner.wallet("create", "--json", on="private", environment={"BOMBYX_PASSPHRASE": PASSPHRASE}).result
    assert made["address"] == owner.key.address(PRIVATE)
    assert b"argon2id 3 268435456 " in (owner.folder / "wallet.key").read_bytes()
    assert "there is no terminal" in refusal(owner.alone(on="private"))
    wrong = refusal(owner.wallet(on="private", environment={"BOMBYX_PASSPHRASE": PASSPHRASE + " "}))
    assert "the passphrase is wrong, or the file was changed" in wrong
    assert unlocks(owner.wallet(on="private", environment={"BOMBYX_PASSPHRASE": PASSPHRASE}))
    for address in (friendly(STRANGER, DEVNET), friendly(STRANGER, DEVNET, bounce=True)):
        assert "test networks only" in refusal(owner.wallet("send", address, "1", "--yes", on="mainnet"))


def test_without_a_passphrase_only_when_asked_for(owner: Owner) -> None:
    assert owner.wallet("create", "--no-passphrase", on="private").code == 0
    assert unlocks(owner.wallet(on="private"))
    assert read(owner.folder / "wallet.key").protection is Bare.BY_CHOICE


def test_a_devnets_key_is_not_used_where_money_is_real_until_it_is_locked(owner: Owner) -> None:
    owner.wallet("fund")
    assert "made for a devnet" in refusal(owner.wallet(on="private"))
    assert "made for a devnet" in refusal(owner.wallet("send", STRANGER, "1", "--yes", on="private"))
    new = {"BOMBYX_NEW_PASSPHRASE": PASSPHRASE}
    assert owner.wallet("passphrase", "--json", environment=new).result["locked"] is True
    given = {"BOMBYX_PASSPHRASE": PASSPHRASE}
    assert unlocks(owner.wallet(on="private", environment=given))
    assert owner.wallet("--json", environment=given).result["balance_nano"] == 2 * GRAM


def test_a_passphrase_is_typed_twice_unseen_and_changed(owner: Owner) -> None:
    owner.has(WalletKey.from_words(tuple(WORDS.split())), "the first one")
    twice = [("Passphrase: ", "the first one\n"), ("New passphrase: ", f"{PASSPHRASE}\n")]
    differs = owner.types("passphrase", answers=[*twice, ("The same again: ", "something else\n")])
    assert differs.code == 2
    assert "nothing is changed" in differs.said
    assert read(owner.folder / "wallet.key").unlock("the first one").seed.hex() == SEED
    changed = owner.types("passphrase", answers=[*twice, ("The same again: ", f"{PASSPHRASE}\n")])
    assert changed.code == 0
    assert "the first one" not in changed.said + differs.said
    assert owner.key.seed.hex() == SEED


def test_ctrl_c_at_a_question_ends_it_and_gives_the_echo_back(owner: Owner) -> None:
    owner.has(WalletKey.from_words(tuple(WORDS.split())), PASSPHRASE)
    for arguments, question in [((), "Passphrase: "), (("send", STRANGER, "1"), "Passphrase: ")]:
        ended = owner.types(*arguments, answers=[(question, "\x03")])
        assert ended.code == 130
        assert ended.echoes
        assert "Traceback" not in ended.said


def test_words_are_imported_unseen_or_from_a_pipe_and_locked_on_a_devnet_too(
    owner: Owner, processes: Processes
) -> None:
    again = [("New passphrase: ", f"{PASSPHRASE}\n"), ("The same again: ", f"{PASSPHRASE}\n")]
    wrong = owner.types("import", answers=[("not shown: ", WORDS.replace("stove", "stovve") + "\n")])
    assert wrong.code == 2
    assert "not in the word list: word 2;" in wrong.said
    done = owner.types("import", answers=[("not shown: ", f"{WORDS}\n"), *again])
    assert done.code == 0
    assert read(owner.folder / "wallet.key").locked
    assert owner.key.seed.hex() == SEED
    assert owner.key.address(DEVNET) in done.said
    other = owner.other("other")
    empty = other.alone("import", environment={"BOMBYX_PASSPHRASE": PASSPHRASE})
    assert "these are 0" in refusal(empty)


def test_the_words_are_shown_on_a_terminal_alone_and_after_a_warning(owner: Owner) -> None:
    owner.has(WalletKey.from_words(tuple(WORDS.split())), PASSPHRASE)
    given = {"BOMBYX_PASSPHRASE": PASSPHRASE}
    assert "nobody can be asked" in refusal(owner.alone("export-words", environment=given))
    for_programs = owner.wallet("export-words", "--json", environment=given)
    assert for_programs.code == 2
    assert json.loads(for_programs.out).keys() == {"error", "reason"}
    assert "terminal" in for_programs.complaint
    kept = owner.types("export-words", answers=[("Type yes to go on: ", "no\n")])
    assert kept.code == 2
    answers = [("Type yes to go on: ", "yes\n"), ("Passphrase: ", f"{PASSPHRASE}\n")]
    shown = owner.types("export-words", answers=answers)
    assert shown.code == 0
    warning, words = shown.said.split("Type yes to go on: ")
    assert "can take all that the wallet holds" in warning
    assert WORDS in words
    owner.told.remove(shown.said)  # the one place where they belong


def test_keys_and_book_are_backed_up_while_they_are_used_and_come_back(owner: Owner, processes: Processes) -> None:
    owner.has(WalletKey.from_words(tuple(WORDS.split())), PASSPHRASE)
    for name in ("channel.key", "identity.key"):
        (owner.folder / name).touch(0o600)
        (owner.folder / name).write_bytes(name.encode().ljust(32))
    file = processes.directory / "bombyx.backup"
    given = {"BOMBYX_PASSPHRASE": PASSPHRASE}
    channel = bytes(32)
    with Book(owner.folder / "book.sqlite", "payer", DEVNET) as book:
        book.add_channel(channel, a_channel(), "peer")
        book.save_claim(Claim(channel, 5, bytes(64)))
        assert "cannot unlock" in refusal(owner.wallet("backup", file, environment={"BOMBYX_PASSPHRASE": "wrong one"}))
        saved = owner.wallet("backup", file, "--json", environment=given).result
    assert saved["keys"] == ["channel.key", "identity.key", "wallet.key"]
    assert "exists already" in refusal(owner.wallet("backup", file, environment=given))

    new = owner.other("new")
    assert "cannot unlock" in refusal(new.wallet("restore", file, environment={"BOMBYX_PASSPHRASE": "wrong one"}))
    assert "is a client's" in refusal(new.wallet("restore", file, "--provider", environment=given))
    assert new.wallet("restore", file, environment=given).code == 0
    for name in ("wallet.key", "channel.key", "identity.key"):
        assert (new.folder / name).read_bytes() == (owner.folder / name).read_bytes()
    with Book(new.folder / "book.sqlite", "payer", DEVNET) as book:
        assert [(known.authorised_nano, known.retired) for known in book.channels()] == [(5, True)]
    assert "is not empty" in refusal(new.wallet("restore", file, environment=given))


def test_a_key_that_others_can_read_is_refused_by_every_command(owner: Owner, processes: Processes) -> None:
    owner.wallet()
    (owner.folder / "wallet.key").chmod(0o644)
    for command in [(), ("send", STRANGER, "1", "--yes"), ("passphrase",), ("backup", processes.directory / "file")]:
        assert "chmod 600" in refusal(owner.wallet(*command))
    (owner.folder / "wallet.key").chmod(0o600)


def test_a_passphrase_is_not_handed_down_to_children(owner: Owner) -> None:
    """What `p2p.node` starts has its environment: the engine, the demonstration's parts."""
    environment = {"BOMBYX_PASSPHRASE": PASSPHRASE, "BOMBYX_NEW_PASSPHRASE": PASSPHRASE, "PATH": "here"}
    terminal = Terminal(environment)
    assert environment == {"PATH": "here"}
    assert PASSPHRASE not in repr(terminal)
    assert terminal.passphrase() == terminal.choose_other_passphrase() == PASSPHRASE


def a_channel() -> ChannelTerms:
    return ChannelTerms(
        payer="0:" + "aa" * 32,
        payee="0:" + "bb" * 32,
        payer_key=b"\1" * 32,
        payee_key=b"\2" * 32,
        challenge_period_s=3600,
        open_before=2_000_000_000,
        salt=bytes(32),
    )
