"""The `openai` package against the gateway on this machine: only the address is new.

pip install openai
python -m p2p.node gateway                           # in another terminal
export OPENAI_BASE_URL=http://127.0.0.1:8642/v1 OPENAI_API_KEY=none
python examples/openai_sync.py "What is silk?"
"""

import sys

from openai import OpenAI


def main(question: str) -> None:
    client = OpenAI()
    model = client.models.list().data[0].id
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])
    print(answer.choices[0].message.content)

    bought = (answer.model_extra or {})["bombyx"]  # what the gateway adds: who answered, and for how much
    print(f"({bought['cost_nano']} nano to {bought['provider'][-6:]})")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "What is silk?")
