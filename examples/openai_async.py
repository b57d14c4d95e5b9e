"""Several answers at once, streamed, with the `openai` package's asynchronous client and the gateway on this machine.

pip install openai
python -m p2p.node gateway                           # in another terminal
export OPENAI_BASE_URL=http://127.0.0.1:8642/v1 OPENAI_API_KEY=none
python examples/openai_async.py "What is silk?" "What is a moth?"
"""

import asyncio
import sys

from openai import AsyncOpenAI


async def ask(client: AsyncOpenAI, model: str, question: str) -> str:
    stream = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    return "".join(pieces)


async def main(questions: list[str]) -> None:
    async with AsyncOpenAI() as client:
        model = (await client.models.list()).data[0].id
        answers = await asyncio.gather(*(ask(client, model, question) for question in questions))
    for question, answer in zip(questions, answers, strict=True):
        print(f"{question}\n  {answer}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["What is silk?", "What is a moth?"]))
