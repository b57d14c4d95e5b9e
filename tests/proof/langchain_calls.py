"""What LangChain asks of a gateway: run by pytest in LangChain's own virtual environment, by `heavy_examples`.

OPENAI_BASE_URL says where the gateway is, MODEL what it sells.
"""

from __future__ import annotations

import pytest
from cities import MODEL, PARIS, City, temperature
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import BadRequestError

TEMPERATURE = StructuredTool.from_function(temperature)


@pytest.fixture
def chat() -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, temperature=0, max_completion_tokens=40, seed=1)


def test_invoke(chat: ChatOpenAI) -> None:
    answer = chat.invoke(PARIS)
    assert len(answer.content.split()) > 3
    assert answer.usage_metadata["output_tokens"] > 3
    assert answer.response_metadata["finish_reason"] in {"stop", "length"}


def test_stream(chat: ChatOpenAI) -> None:
    chunks = list(chat.stream(PARIS, stream_usage=True))
    assert len([chunk for chunk in chunks if chunk.content]) > 3
    assert "".join(chunk.content for chunk in chunks) == chat.invoke(PARIS).content
    assert sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata) > 3


def test_a_chain_in_a_batch(chat: ChatOpenAI) -> None:
    chain = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "What is {thing}?")]) | chat
    answers = (chain | StrOutputParser()).batch([{"thing": "silk"}, {"thing": "stone"}])
    assert all(len(answer.split()) > 3 for answer in answers)
    assert len(set(answers)) == 2


async def test_in_asyncio(chat: ChatOpenAI) -> None:
    answer = (await chat.ainvoke(PARIS)).content
    assert len(answer.split()) > 3
    assert "".join([chunk.content async for chunk in chat.astream(PARIS)]) == answer


def test_a_tool_is_called_and_its_result_read(chat: ChatOpenAI) -> None:
    asked = ("user", "How warm is it in Paris?")
    said = chat.bind_tools([TEMPERATURE], tool_choice="temperature").invoke([asked])
    (call,) = said.tool_calls
    assert call["name"] == "temperature"
    assert "city" in call["args"]
    answer = chat.bind_tools([TEMPERATURE], tool_choice="none").invoke([asked, said, TEMPERATURE.invoke(call)])
    assert len(answer.content.split()) > 3


def test_a_tool_is_called_in_a_stream(chat: ChatOpenAI) -> None:
    (first, *rest) = chat.bind_tools([TEMPERATURE], tool_choice="any", strict=True).stream("How warm is it in Paris?")
    whole = sum(rest, first)
    (call,) = whole.tool_calls
    assert (call["name"], set(call["args"])) == ("temperature", {"city"})


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(chat: ChatOpenAI, method: str) -> None:
    found = chat.with_structured_output(City, method=method).invoke(PARIS)
    assert isinstance(found, City)
    assert found.city


def test_logprobs(chat: ChatOpenAI) -> None:
    told = chat.bind(logprobs=True, top_logprobs=2).invoke(PARIS).response_metadata["logprobs"]["content"]
    assert len(told) > 3
    assert all(len(token["top_logprobs"]) == 2 and token["logprob"] <= 0 for token in told)


def test_embeddings() -> None:
    # Texts as they are: by default LangChain would send what OpenAI's tokenizer makes of them.
    embeddings = OpenAIEmbeddings(model=MODEL, check_embedding_ctx_length=False)
    silk, stone = embeddings.embed_documents(["silk", "stone"])
    assert len(silk) == len(stone) == 576
    assert embeddings.embed_query("silk") == pytest.approx(silk, abs=1e-4)
    assert silk != stone


def test_what_is_refused_is_said(chat: ChatOpenAI) -> None:
    with pytest.raises(BadRequestError, match="frequency_penalty"):
        chat.bind(frequency_penalty=1.0).invoke(PARIS)
