"""Prompts against ``transformers``: the same template and vocabulary give the same text and the same tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

import toy_tokenizer
from dgemma import Tokenizer
from dgemma.chat import history_ids
from dgemma.template import ChatTemplate

pytestmark = pytest.mark.reference

SYSTEM = {"role": "system", "content": "Be brief. \n"}
USER = {"role": "user", "content": " What is 1 < 2,\n  é and 🦙? "}
ASSISTANT = {"role": "assistant", "content": "<|channel>thought\nhm\n<channel|>True.\n"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": " b"}]}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Which city"},
                "days": {"type": "array", "items": {"type": "integer"}},
                "unit": {"type": "string", "enum": ["C", "F"]},
                "where": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]},
            },
            "required": ["city"],
        },
    },
}
ARGUMENTS = {"city": "Paris", "days": [1, 2], "exact": True, "where": {"lat": 48.9, "note": 'a "b"'}, "none": None}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"function": {"name": "get_weather", "arguments": ARGUMENTS}}],
}
RESPONSES = [{"name": "get_weather", "response": {"temp": 15, "sky": "clear", "Hours": [1, {"a": "b"}]}}]
CALLED = {**CALL, "tool_responses": RESPONSES}

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "user": [USER],
    "system": [SYSTEM, USER],
    "developer": [{**SYSTEM, "role": "developer"}, USER],
    "turns": [SYSTEM, USER, ASSISTANT, USER, ASSISTANT, PARTS],
    "call": [USER, CALL],
    "called": [USER, CALLED],
    "called and told": [USER, {**CALLED, "content": "15 degrees"}, USER],
    "called as text": [USER, {**CALLED, "tool_responses": [{"name": "get_weather", "response": "15 degrees"}]}],
}


@pytest.fixture(scope="module")
def reference(real_vocabulary: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    tokens, merges, special, template = toy_tokenizer.real_vocabulary(real_vocabulary)
    library = tokenizers.Tokenizer.from_str(json.dumps(toy_tokenizer.tokenizer_json(tokens, merges, special)))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=library, bos_token="<bos>", eos_token="<eos>", chat_template=template
    )


@pytest.mark.parametrize("generate", [False, True])
@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("tools", [None, [WEATHER]])
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_prompts_are_those_of_transformers(
    reference: Any, real_tokenizer: Tokenizer, name: str, tools: Any, thinking: bool, generate: bool
) -> None:
    messages = CONVERSATIONS[name]
    options = {"tools": tools, "enable_thinking": thinking, "add_generation_prompt": generate}
    text = reference.apply_chat_template(messages, tokenize=False, **options)
    template = ChatTemplate.from_tokenizer(real_tokenizer)
    assert template.render(messages, **options) == text
    ids = history_ids(template, real_tokenizer, messages, **options)
    assert ids == reference(text, add_special_tokens=False)["input_ids"]
