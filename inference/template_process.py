"""Renders one chat template, over and over, in a process of its own: `templates` is the other end.

Templates come with models, from strangers. Jinja's sandbox keeps them from running code, and this process, which has
little memory, no files to write and an owner who ends it when it takes long, keeps them from taking the machine.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEXT_MAX_CHARACTERS = 8 << 20
_MEMORY_MAX_BYTES = 512 << 20


class _Raised(Exception):
    """The template's own word for a conversation that it does not take."""


def _raise(message: str) -> NoReturn:
    raise _Raised(message)


def _to_json(value: object, indent: int | None = None) -> str:
    """As model makers expect it, which is not as HTML does."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def environment() -> ImmutableSandboxedEnvironment:
    """What templates of models are written for, but for the date: the same conversation is to be the same prompt."""
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    made.filters["tojson"] = _to_json
    made.globals["raise_exception"] = _raise
    return made


def render(template: Any, given: dict[str, Any]) -> dict[str, str]:
    """`text`, or `refused` where the template takes no such conversation, or else `failed`."""
    try:
        text = template.render(given)
    except _Raised:
        return {"refused": "the model's template takes no such conversation"}
    except (TemplateError, MemoryError, RecursionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        return {"failed": f"the model's template fails with {type(error).__name__}"}
    if len(text) > TEXT_MAX_CHARACTERS:
        return {"failed": "the model's template makes too long a prompt"}
    return {"text": text}


def main() -> None:
    """A line with the template, then a line for each conversation, each answered by one."""
    for limit, most in ((resource.RLIMIT_AS, _MEMORY_MAX_BYTES), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))
    template: Any = None
    for line in sys.stdin.buffer:
        given = json.loads(line)
        if template is not None:
            reply = render(template, given)
        else:
            try:
                template, reply = environment().from_string(given["template"]), {"text": ""}
            except (TemplateError, MemoryError, RecursionError) as error:
                reply = {"failed": f"the model's template is none: {type(error).__name__}"}
        sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
