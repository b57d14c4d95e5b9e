"""What LlamaIndex asks of a gateway: run by pytest in LlamaIndex's own virtual environment, by `heavy_examples`.

OPENAI_BASE_URL says where the gateway is, MODEL what it sells.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from cities import MODEL, PARIS, City, temperature
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

PLACE: Any = {"api_base": os.environ["OPENAI_BASE_URL"], "api_key": "none"}


@pytest.fixture
def llm() -> OpenAILike:
    return OpenAILike(
        model=MODEL,
        temperature=0,
        max_tokens=40,
        context_window=2048,
        is_chat_model=True,
        is_function_calling_model=True,
        should_use_structured_outputs=True,
        **PLACE,
    )


@pytest.fixture
def embedding() -> OpenAILikeEmbedding:
    return OpenAILikeEmbedding(model_name=MODEL, **PLACE)


def test_chat(llm: OpenAILike) -> None:
    answer = llm.chat([ChatMessage("You answer in one sentence.", role="system"), ChatMessage(PARIS)])
    assert len(answer.message.content.split()) > 3
    assert answer.raw.usage.completion_tokens > 3
    assert answer.raw.bombyx["cost_nano"] > 0


def test_stream_chat(llm: OpenAILike) -> None:
    chunks = list(llm.stream_chat([ChatMessage(PARIS)]))
    assert len([chunk for chunk in chunks if chunk.delta]) > 3
    assert chunks[-1].message.content == llm.chat([ChatMessage(PARIS)]).message.content


def test_complete(llm: OpenAILike) -> None:
    answer = llm.chat([ChatMessage(PARIS)]).message.content
    assert llm.complete(PARIS).text == answer
    assert "".join(chunk.delta or "" for chunk in llm.stream_complete(PARIS)) == answer


async def test_in_asyncio(llm: OpenAILike) -> None:
    answer = (await llm.achat([ChatMessage(PARIS)])).message.content
    assert len(answer.split()) > 3
    stream = await llm.astream_chat([ChatMessage(PARIS)])
    assert "".join([chunk.delta or "" async for chunk in stream]) == answer


def test_a_tool_is_called(llm: OpenAILike) -> None:
    tool = FunctionTool.from_defaults(temperature)
    said = llm.chat_with_tools([tool], user_msg="How warm is it in Paris?", tool_required=True)
    (call,) = llm.get_tool_calls_from_response(said)
    assert call.tool_name == "temperature"
    assert tool.call(**call.tool_kwargs).content.startswith("21 in ")


def test_a_tool_is_called_in_a_stream(llm: OpenAILike) -> None:
    tool = FunctionTool.from_defaults(temperature)
    *_, last = llm.stream_chat_with_tools([tool], user_msg="How warm is it in Paris?", tool_required=True)
    (call,) = llm.get_tool_calls_from_response(last)
    assert (call.tool_name, set(call.tool_kwargs)) == ("temperature", {"city"})


def test_structured_output(llm: OpenAILike) -> None:
    found = llm.structured_predict(City, PromptTemplate("Which city is the capital of {country}?"), country="France")
    assert isinstance(found, City)
    assert found.city


def test_embeddings(embedding: OpenAILikeEmbedding) -> None:
    silk, stone = embedding.get_text_embedding_batch(["silk", "stone"])
    assert len(silk) == len(stone) == 576
    assert embedding.get_query_embedding("silk") == pytest.approx(silk, abs=1e-4)
    assert silk != stone


def test_an_index_is_asked(llm: OpenAILike, embedding: OpenAILikeEmbedding) -> None:
    """Retrieval and an answer from what it found, both bought."""
    documents = [Document(text=text) for text in ("Silk is spun by moths.", "Granite is cooled magma.")]
    answer = VectorStoreIndex.from_documents(documents, embed_model=embedding).as_query_engine(llm=llm).query("silk?")
    assert len(str(answer).split()) > 3
    assert len(answer.source_nodes) == 2
