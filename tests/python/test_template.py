"""Chat templates: a small one for the environment's promises, and Gemma 4's own, checked by eye against its source."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from dgemma import ModelFileError, RequestError, Tokenizer
from dgemma.template import ChatTemplate

USER = {"role": "user", "content": " hi "}


def render(source: str, *messages: dict[str, Any], **options: Any) -> str:
    return ChatTemplate(source, "<bos>", "<eos>", "small.gguf").render(messages, **options)


def test_variables_and_whitespace() -> None:
    source = """{{ bos_token }}
    {% for m in messages %}
[{{ m.role }}]{{ m.content | trim }}{{ eos_token }}
    {% endfor %}
    {% if add_generation_prompt %}
>{{ enable_thinking }}
    {%- endif %}
"""
    assert render(source, USER) == "<bos>\n[user]hi<eos>\n>False"
    assert render(source, USER, enable_thinking=True) == "<bos>\n[user]hi<eos>\n>True"
    assert render(source, USER, add_generation_prompt=False) == "<bos>\n[user]hi<eos>\n"


def test_what_hugging_face_offers() -> None:
    assert render("{% for i in [1, 2, 3] %}{{ i }}{% if i == 2 %}{% break %}{% endif %}{% endfor %}") == "12"
    assert render("{{ tools | tojson }}", tools=[{"name": "<é&'>"}]) == '[{"name": "<é&\'>"}]'
    assert render("{{ {'b': 1, 'a': 2} | tojson(indent=1, sort_keys=true) }}") == '{\n "a": 2,\n "b": 1\n}'
    assert render("{{ strftime_now('%Y') }}") in {str(datetime.date.today().year + late) for late in (0, -1)}
    assert render("a{% generation %}b{{ messages | length }}{% endgeneration %}c", USER) == "ab1c"
    assert render("{% if tools is none %}no tools{% endif %}") == "no tools"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('roles must\n alternate') }}", "refused the messages: roles must alternate"),
        ("{{ messages[0].role }}", "has no element 0"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% for i in range(1000000) %}{% endfor %}", "Range too big"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ],
)
def test_a_template_that_fails_is_one_sentence(source: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        ChatTemplate(source, "<bos>").render([])
    assert "\n" not in str(caught.value)


def test_a_template_that_is_no_jinja() -> None:
    with pytest.raises(ModelFileError, match=r"^small\.gguf: tokenizer\.chat_template is not valid Jinja at line 2: "):
        render("line\n{% if %}")


def test_from_tokenizer(metadata: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_metadata(metadata, "small.gguf")
    assert ChatTemplate.from_tokenizer(tokenizer).render([{"role": "user", "content": "a"}]) == "<bos>[user]a"
    del metadata["tokenizer.chat_template"]
    with pytest.raises(ModelFileError, match=r"^small\.gguf: tokenizer\.chat_template is missing.*--raw"):
        ChatTemplate.from_tokenizer(Tokenizer.from_metadata(metadata, "small.gguf"))


@pytest.fixture(scope="module")
def gemma(real_tokenizer: Tokenizer) -> ChatTemplate:
    return ChatTemplate.from_tokenizer(real_tokenizer)


NO_THOUGHT = "<|channel>thought\n<channel|>"
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "<|channel>thought\nhm<channel|>hello"},
    {"role": "user", "content": "bye"},
]
CONVERSATION = (
    "Be brief.<turn|>\n<|turn>user\nhi<turn|>\n<|turn>model\nhello<turn|>\n<|turn>user\nbye<turn|>\n<|turn>model\n"
)


def test_gemma_one_turn(gemma: ChatTemplate) -> None:
    turn = "<|turn>user\nhi<turn|>\n"
    assert gemma.render([USER]) == f"<bos>{turn}<|turn>model\n{NO_THOUGHT}"
    assert gemma.render([USER], add_generation_prompt=False) == f"<bos>{turn}"
    thinking = "<bos><|turn>system\n<|think|><turn|>\n"
    assert gemma.render([USER], enable_thinking=True) == f"{thinking}{turn}<|turn>model\n"


def test_gemma_several_turns(gemma: ChatTemplate) -> None:
    assert gemma.render(TURNS) == f"<bos><|turn>system\n{CONVERSATION}{NO_THOUGHT}"
    assert gemma.render(TURNS, enable_thinking=True) == f"<bos><|turn>system\n<|think|>{CONVERSATION}"


def test_gemma_tools(gemma: ChatTemplate) -> None:
    city = {"type": "object", "properties": {"city": {"type": "string", "description": "Where"}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": city}}
    assert gemma.render([USER], tools=[tool]).startswith(
        '<bos><|turn>system\n<|tool>declaration:weather{description:<|"|>Tells it.<|"|>,parameters:'
        '{properties:{city:{description:<|"|>Where<|"|>,type:<|"|>STRING<|"|>}},'
        'required:[<|"|>city<|"|>],type:<|"|>OBJECT<|"|>}}<tool|><turn|>\n'
    )


def test_gemma_without_messages(gemma: ChatTemplate) -> None:
    with pytest.raises(RequestError, match="refused the messages"):
        gemma.render([])
