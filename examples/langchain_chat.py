"""LangChain over the gateway on this machine: a chain of a prompt and a model, streamed.

pip install langchain-openai
python -m p2p.node gateway                           # in another terminal
export OPENAI_BASE_URL=http://127.0.0.1:8642/v1 OPENAI_API_KEY=none
python examples/langchain_chat.py MODEL "silk"
"""

import sys

from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI


def main(model: str, thing: str) -> None:
    prompt = ChatPromptTemplate.from_messages([("system", "You answer in one sentence."), ("user", "What is {thing}?")])
    chain = prompt | ChatOpenAI(model=model)
    for chunk in chain.stream({"thing": thing}):
        print(chunk.content, end="", flush=True)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
