"""Asking whoever sits at the terminal: a passphrase, a wallet's words, a yes.

Secrets come from the environment or the terminal, never from the command line, which every process can read. They are
taken out of the environment at once, so that no child inherits them.
"""

from __future__ import annotations

import getpass
import os
import signal
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

from p2p.errors import LocalError

VARIABLE = "BOMBYX_PASSPHRASE"
NEW_VARIABLE = "BOMBYX_NEW_PASSPHRASE"
MIN_CHARACTERS = 8
MAX_WORDS_CHARACTERS = 4096


class Terminal:
    """Every question blocks until it is answered, so it is asked before there is anything else to do."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._passphrase = environment.pop(VARIABLE, None)
        self._new_passphrase = environment.pop(NEW_VARIABLE, None)

    def passphrase(self) -> str:
        """Of something that is locked. Raises `LocalError` if nobody can be asked."""
        return self._passphrase if self._passphrase is not None else _hidden("Passphrase: ", VARIABLE)

    def choose_passphrase(self) -> str:
        """For something new. Raises `LocalError` for a short one, or if it is not typed the same twice."""
        return _checked(self._passphrase) if self._passphrase is not None else _twice(VARIABLE)

    def choose_other_passphrase(self) -> str:
        """In the place of another. Raises as `choose_passphrase` does."""
        return _checked(self._new_passphrase) if self._new_passphrase is not None else _twice(NEW_VARIABLE)

    def words(self) -> str:
        """A wallet's words, not shown while they are typed; or what is piped in."""
        if _interactive():
            return _hidden("The 24 words, which are not shown: ", VARIABLE)
        return sys.stdin.read(MAX_WORDS_CHARACTERS)

    def agrees(self, question: str) -> bool:
        """Whether the answer is `yes`. Raises `LocalError` if nobody can be asked."""
        if not _interactive():
            raise LocalError("nobody can be asked for a yes here: run this in a terminal, or see --help")
        _say(f"{question} Type yes to go on: ")
        with _interruptible():
            return sys.stdin.readline().strip().lower() == "yes"

    def show_secret(self, text: str) -> None:
        """On the terminal alone. Raises `LocalError` if the output goes anywhere else."""
        if not (_interactive() and sys.stdout.isatty()):
            raise LocalError("a secret is shown on a terminal alone, never to a pipe or a file")
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def _interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _hidden(prompt: str, variable: str) -> str:
    # getpass asks the controlling terminal even where input is piped; without one, it would read from the pipe.
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise LocalError(f"there is no terminal to ask at: set {variable}") from None
    with _interruptible():
        try:
            return getpass.getpass(prompt)
        except EOFError:
            raise LocalError("nothing was typed") from None


def _twice(variable: str) -> str:
    first = _checked(_hidden("New passphrase: ", variable))
    if _hidden("The same again: ", variable) != first:
        raise LocalError("these were two different passphrases: nothing is changed")
    return first


def _checked(passphrase: str) -> str:
    if len(passphrase) < MIN_CHARACTERS:
        raise LocalError(f"a passphrase has {MIN_CHARACTERS} characters at least; several words are a good one")
    return passphrase


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends the question, and getpass gives the terminal its echo back: Trio would note it and wait on."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
