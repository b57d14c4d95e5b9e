"""Templates are other people's programs: what they may do, and that they cannot do more."""

from __future__ import annotations

import pytest

from inference import templates
from inference.engine import Message
from inference.errors import BadRequest, BadSettings, EngineError
from inference.templates import open_template

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
HELLO = (Message("user", "Hello."),)


async def test_a_conversation_becomes_a_prompt() -> None:
    async with open_template(CHATML, {}) as template:
        prompt = "<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\n"
        assert await template.render(HELLO) == prompt
        assert await template.render((*HELLO, Message("assistant", "Hi, "))) == f"{prompt}Hi, "
        assert await template.render((Message("user", "漢\n{{ 7*7 }}"),)) == prompt.replace("Hello.", "漢\n{{ 7*7 }}")


async def test_what_templates_are_written_for() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}{{ m | tojson }}{% if loop.last %}{% break %}{% endif %}{% endfor %}"
    )
    async with open_template(source, {"bos_token": "<s>"}) as template:
        assert await template.render(HELLO) == '<s>{"role": "user", "content": "Hello."}'


async def test_a_conversation_that_a_template_refuses() -> None:
    source = "{% if messages[0].role == 'system' %}{{ raise_exception(messages[0].content) }}{% endif %}fine"
    async with open_template(source, {}) as template:
        with pytest.raises(BadRequest, match=r"takes no such conversation$"):
            await template.render((Message("system", "secret"), *HELLO))
        assert await template.render(HELLO) == "fine"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{% for m in %}",
        "{{ 'x' * 10**10 }}",
        "{{ '%1000000000d' % 1 }}",
        "{% set ns = namespace(t='x') %}{% for i in range(40) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t }}",
        "{{ range(10**9) | list }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
async def test_what_no_template_can_do(source: str) -> None:
    with pytest.raises(BadSettings, match="the model's template"):
        async with open_template(source, {}):
            pass


async def test_a_template_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    source = "{% if messages[0].content == 'loop' %}" + loop + "{% endif %}fine"
    async with open_template(source, {}) as template:
        monkeypatch.setattr(templates, "_PATIENCE_S", 0.3)
        with pytest.raises(EngineError, match="takes too long"):
            await template.render((Message("user", "loop"),))
        monkeypatch.undo()
        assert await template.render(HELLO) == "fine"
