"""What can go wrong with an engine. `inference` knows nothing of `p2p`, which maps these by a table."""

from __future__ import annotations


class EngineError(Exception):
    """The root of this package's errors; also raised for an engine's own failure that has no better name."""


class ModelMissing(EngineError):
    """The model's file or name is not there."""


class BadRequest(EngineError):
    """The request makes no sense to the engine: an unknown role, a negative limit, an empty prompt."""


class ContextOverflow(BadRequest):
    """The prompt, or the prompt and the answer asked for, do not fit the model's context."""

    def __init__(self, prompt_tokens: int, context: int) -> None:
        super().__init__(f"{prompt_tokens} prompt tokens do not fit a context of {context}")
        self.prompt_tokens = prompt_tokens
        self.context = context


class BadSettings(EngineError):
    """What the user said of the engine cannot be: an address that is none, a key that nobody can read."""


class EngineDied(EngineError):
    """The engine's process ended in the middle; whatever it was doing is lost, the next request restarts it."""


class ServerRefused(EngineError):
    """An upstream server answered with this HTTP status."""

    def __init__(self, path: str, status: int) -> None:
        super().__init__(_REFUSALS.get(status, f"the server answered {path} with {status}"))
        self.status = status


_REFUSALS = {
    401: "the server wants a key, or another one: name its file with --upstream-key-file",
    403: "the server does not allow this with our key (--upstream-key-file)",
    429: "the server has too many requests: give fewer --slots",
}
