"""What an engine's worker and its owner say to each other over a pair of pipes.

The owner sends `Open` first and nothing else until `Ready`. Then every message with an id gets exactly one final word:
`Done`, `Value`, `Read`, `Failed` or `Cancelled`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from inference.engine import Delta, Finished, ModelInfo, Request, Scored
from inference.errors import BadRequest, BadSettings, ContextOverflow, EngineError, ModelMissing
from inference.exllama.settings import ExLlama
from inference.llamacpp import LlamaCpp
from inference.scripted import Scripted
from inference.upstream import Upstream

Spec = LlamaCpp | ExLlama | Upstream | Scripted
"""Which engine a worker opens, and how."""


class Open(msgspec.Struct, frozen=True, tag="open"):
    spec: Spec


class Health(msgspec.Struct, frozen=True, tag="health"):
    id: int


class Count(msgspec.Struct, frozen=True, tag="count"):
    id: int
    request: Request


class Prefill(msgspec.Struct, frozen=True, tag="prefill"):
    id: int
    request: Request
    tokens: int


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    id: int
    request: Request


class Score(msgspec.Struct, frozen=True, tag="score"):
    id: int
    request: Request
    text: str


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    id: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    models: tuple[ModelInfo, ...]
    slots: int


class Piece(msgspec.Struct, frozen=True, tag="piece"):
    id: int
    delta: Delta


class Done(msgspec.Struct, frozen=True, tag="done"):
    id: int
    finished: Finished


class Value(msgspec.Struct, frozen=True, tag="value"):
    id: int
    value: int


class Read(msgspec.Struct, frozen=True, tag="read"):
    id: int
    scored: Scored


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """`id` 0 is the start itself. `text` never quotes a prompt."""

    id: int
    kind: Literal["engine", "model_missing", "bad_request", "bad_settings", "context_overflow"]
    text: str
    prompt_tokens: int = 0
    context: int = 0


class Cancelled(msgspec.Struct, frozen=True, tag="cancelled"):
    id: int


Job = Health | Count | Prefill | Generate | Score
ToWorker = Open | Job | Cancel
FromWorker = Ready | Piece | Done | Value | Read | Failed | Cancelled

_KINDS: dict[type[EngineError], Literal["model_missing", "bad_request", "bad_settings"]] = {
    BadSettings: "bad_settings",
    ModelMissing: "model_missing",
    BadRequest: "bad_request",
}


def failed(job: int, error: EngineError) -> Failed:
    """The message that carries `error`."""
    if isinstance(error, ContextOverflow):
        return Failed(job, "context_overflow", str(error), error.prompt_tokens, error.context)
    return Failed(job, _KINDS.get(type(error), "engine"), str(error))


def raised(message: Failed) -> EngineError:
    """The error that `message` carries."""
    match message.kind:
        case "context_overflow":
            return ContextOverflow(message.prompt_tokens, message.context)
        case "model_missing":
            return ModelMissing(message.text)
        case "bad_request":
            return BadRequest(message.text)
        case "bad_settings":
            return BadSettings(message.text)
        case "engine":
            return EngineError(message.text)
