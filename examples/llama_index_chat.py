"""LlamaIndex over the gateway on this machine, streamed.

pip install llama-index-llms-openai-like
python -m p2p.node gateway                           # in another terminal
export OPENAI_BASE_URL=http://127.0.0.1:8642/v1
python examples/llama_index_chat.py MODEL "What is silk?"
"""

import os
import sys

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike


def main(model: str, question: str) -> None:
    llm = OpenAILike(model=model, api_base=os.environ["OPENAI_BASE_URL"], api_key="none", is_chat_model=True)
    for chunk in llm.stream_chat([ChatMessage("You answer in one sentence.", role="system"), ChatMessage(question)]):
        print(chunk.delta, end="", flush=True)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
