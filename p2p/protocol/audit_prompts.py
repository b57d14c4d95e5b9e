"""Core: prompts of an auditor's own, made to look like anybody's.

What is asked depends on what is said first, so that an answer to a prompt that was cut or edited shows. Whoever knows
this module may tell its prompts from others by their words; to be hard to tell, they are as long as a user's, are sent
with a user's own settings, and say hardly the same twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from inference.engine import Message, Request

Draw = Callable[[int], int]
"""A number from 0 up to, and not including, its argument."""

T = TypeVar("T")


def _words(text: str) -> Sequence[str]:
    return text.split()


_PEOPLE = _words(
    "Anna Boris Carla Dario Edith Farid Greta Hugo Ines Jonas Kavya Leon Mira Nils Olga Pavel Rosa Samir Tessa Umar "
    "Vera Wilma Yusuf Zoe"
)
_PLACES = _words(
    "Aarhus Bergen Cadiz Dresden Essex Faro Ghent Haifa Izmir Jaipur Kyoto Lagos Malmo Nantes Osaka Porto Quito Riga "
    "Sibiu Tunis Utrecht Verona Warsaw Zagreb"
)
_TRADES = _words(
    "baker carpenter dentist driver farmer gardener glazier librarian midwife nurse painter pharmacist pilot plumber "
    "potter sailor student surveyor tailor teacher translator violinist"
)
_THINGS = _words(
    "apples bicycles blankets books bulbs candles carpets chairs clocks coins drums eggs jars kites lamps letters maps "
    "mirrors nails onions pears plates radios ropes seeds shirts spoons stamps tents tickets tiles umbrellas"
)
_DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
_TROUBLES = (
    "the roof leaks",
    "the train is late again",
    "the shop closes at noon",
    "there is hardly any money left",
    "the guests come earlier than planned",
    "the dog has run away",
    "half of it arrived broken",
    "nobody has the key",
)
# What is asked before the facts are told is lost with the beginning of a prompt that is cut.
_ASKED_FIRST = (
    "Write a short story about this.",
    "What should {who} do first, and why?",
    "Write a letter from {who} to {other} about what follows.",
    "Summarise this in three sentences.",
    "Tell me what might happen next.",
    "Make a plan for {who}, step by step.",
    "How would {other} tell this?",
    "Turn this into a dialogue between {who} and {other}.",
    "Write a message of a few lines that {who} could send about this.",
    "Make a short poem of this.",
)
# What is asked afterwards goes on from where they end, or begins there: a line put behind it leads elsewhere.
_ASKED_LAST = (
    "Go on where I stop: Then {other} said to {who}:",
    "Turn each sentence into a question, starting with the last.",
    "Rewrite this from the end to the beginning, as {other} would tell it.",
    "Now write what {who} said to {other}, and what {other} answered.",
)
_OPENERS = ("", "", "", "Hi! ", "Please help me. ", "I need some ideas. ", "A question: ")
_HEARD = ("I see.", "Noted. What would you like to know?", "All right, go on.", "Thank you, I will keep that in mind.")


class _Scene:
    """Some facts and what is asked about them."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self.who = self._one(_PEOPLE)
        self.other = self._one([name for name in _PEOPLE if name != self.who])

    def messages(self) -> tuple[Message, ...]:
        opener, facts = self._one(_OPENERS), self._facts()
        if self._draw(2):
            return (Message("user", f"{opener}{self._asked(_ASKED_FIRST)} {facts}"),)
        if self._draw(2):
            return (Message("user", f"{opener}{facts} {self._asked(_ASKED_LAST)}"),)
        heard, asked = self._one(_HEARD), self._asked(_ASKED_LAST)
        return (Message("user", f"{opener}{facts}"), Message("assistant", heard), Message("user", asked))

    def _facts(self) -> str:
        number = 2 + self._draw(60)
        first = f"{self.who} is a {self._one(_TRADES)} in {self._one(_PLACES)}."
        told = [
            f"{self.other} lives in {self._one(_PLACES)} and works as a {self._one(_TRADES)}.",
            f"On {self._one(_DAYS)} {self.who} needs {number} {self._one(_THINGS)}.",
            f"{self.other} has promised to bring {self._one(_THINGS)} and {self._one(_THINGS)}.",
            f"They met {2 + self._draw(30)} years ago in {self._one(_PLACES)}.",
            f"Now {self._one(_TROUBLES)}.",
            f"{self.who} would rather sell the {self._one(_THINGS)} than wait until {self._one(_DAYS)}.",
        ]
        return " ".join([first, *(fact for fact in told if self._draw(3))])

    def _asked(self, among: Sequence[str]) -> str:
        return self._one(among).format(who=self.who, other=self.other)

    def _one(self, among: Sequence[T]) -> T:
        return among[self._draw(len(among))]


def synthetic(draw: Draw, like: Request) -> Request:
    """A request of our own, with the settings of `like`, but that every other one is greedy.

    Only greedy answers show small differences; in what is drawn they are lost. Above 1 chance drowns all.
    """
    return Request(
        model=like.model,
        messages=_Scene(draw).messages(),
        max_tokens=like.max_tokens,
        temperature=min(like.temperature, 1.0) * draw(2),
        seed=draw(1 << 31),
    )
