"""What the generator's process and the engine say to each other, over a pair of pipes.

The engine sends `Open` first and nothing else until `Ready`. A job that was started has an end in `Progress`, or in
`Refused`, `NotHeld` or `Broken`; and what was cancelled has `Gone` besides, whether or not it had ended by itself.
"""

from __future__ import annotations

import msgspec

from inference.exllama.backend import Sampling, Step
from inference.exllama.settings import ExLlama


class Open(msgspec.Struct, frozen=True, tag="open"):
    """`stop` are the ids that end an answer."""

    settings: ExLlama
    stop: tuple[int, ...]


class Start(msgspec.Struct, frozen=True, tag="start"):
    job: int
    prompt: list[int]
    sampling: Sampling


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    job: int


Order = Start | Cancel


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The model is loaded."""


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """What a turn gave."""

    steps: list[Step]


class Gone(msgspec.Struct, frozen=True, tag="gone"):
    """A job that was called off is forgotten, and what it held is free."""

    job: int


class NotHeld(msgspec.Struct, frozen=True, tag="not held"):
    """A job could not be begun: no answer can be held to its schema."""

    job: int


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """A job could not be queued, though it had been checked; the others are none the worse."""

    job: int
    error: str  # a class's name: what it says may quote the prompt


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """The generator failed, and with it its jobs. It was made anew, unless `over`: then the process must be."""

    error: str
    jobs: frozenset[int]
    over: bool


Report = Progress | Gone | NotHeld | Refused | Broken
