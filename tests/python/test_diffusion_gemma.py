"""The high-level face: scripted answers in OpenAI's shapes, and the small random model from end to end."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dgemma
from dgemma import (
    BackendError,
    BlockEvent,
    ConversationStats,
    DiffusionGemma,
    DoneEvent,
    GenerationConfig,
    GenerationStats,
    RequestError,
    StepEvent,
    Tokenizer,
)
from dgemma.events import Event, Reason
from dgemma.template import ChatTemplate

USER = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}]
CALL = '<|tool_call>call:f{a:<|"|>b<|"|>}<tool_call|>'
CANVAS = 16


class ScriptedEngine:
    """The small model's engine without its network."""

    def __init__(self, path: str, **options: object) -> None:
        self.options = options
        self.config = GenerationConfig(t_max=0.7)
        self.n_ctx = 500
        self.closed = False

    def close(self) -> None:
        self.closed = True


class ScriptedConversation:
    """Answers with the class's ``script`` in canvases of 16 tokens, two steps each; remembers what it was asked."""

    script: list[int]
    reason: Reason
    error: Exception | None
    calls: list[dict[str, Any]]
    ended: int

    def __init__(self, engine: ScriptedEngine) -> None:
        self.stats = ConversationStats()

    def answer(self, prompt: Sequence[int], **options: Any) -> Generator[Event, None, None]:
        self.calls.append({"prompt": list(prompt), **options})
        self.stats.encoded_tokens += len(prompt) - 1
        self.stats.reused_tokens += 1
        tokens, empty = self.script[: options["max_new_tokens"]], np.zeros(CANVAS, np.int32)
        blocks = [tokens[start : start + CANVAS] for start in range(0, len(tokens), CANVAS)] or [[]]
        try:
            for block, ids in enumerate(blocks):
                for step in (1, 2):
                    yield StepEvent(block, step, 0.8, empty, empty > 0, empty.astype(np.float32), empty)
                if self.error is not None:
                    raise self.error
                yield BlockEvent(block, ids)
            stats = GenerationStats(0, len(tokens), len(blocks), 2 * len(blocks), 0.1, 0.02 * len(blocks), 1.0)
            yield DoneEvent(self.reason if len(tokens) == len(self.script) else "length", None, stats)
        finally:
            type(self).ended += 1


Script = Callable[[str], DiffusionGemma]


@pytest.fixture
def scripted(toy_model: Path, toy: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DiffusionGemma]:
    """``scripted(text, **options)``: a model that answers with this text's tokens, markers included."""
    monkeypatch.setattr("dgemma.diffusion_gemma.Engine", ScriptedEngine)
    monkeypatch.setattr("dgemma.diffusion_gemma.Conversation", ScriptedConversation)

    def model(text: str, reason: Reason = "stop", **options: Any) -> DiffusionGemma:
        ScriptedConversation.script = toy.encode(text, add_bos=False)
        ScriptedConversation.reason, ScriptedConversation.error = reason, None
        ScriptedConversation.calls, ScriptedConversation.ended = [], 0
        return DiffusionGemma(toy_model, **options)

    return model


def asked() -> dict[str, Any]:
    return ScriptedConversation.calls[-1]


def content(chunks: Iterable[dict[str, Any]], key: str = "content") -> str:
    return "".join(chunk["choices"][0]["delta"].get(key, "") for chunk in chunks)


def test_a_chat_completion(scripted: Script, toy: Tokenizer, toy_model: Path) -> None:
    with scripted("the canvas starts as noise") as model:
        answer = model.create_chat_completion(USER, seed=7, max_tokens=99)
    assert answer["id"].startswith("chatcmpl-")
    assert (answer["object"], answer["model"], answer["seed"]) == ("chat.completion", str(toy_model), 7)
    message = {"role": "assistant", "content": "the canvas starts as noise"}
    assert answer["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    prompt = toy.encode(ChatTemplate.from_tokenizer(toy).render(USER))
    settings = {"max_new_tokens": 99, "seed": 7, "config": GenerationConfig(t_max=0.7)}
    assert asked() == {"prompt": prompt, "settled": len(prompt), **settings}
    tokens = len(ScriptedConversation.script)
    assert answer["usage"] == {
        "prompt_tokens": len(prompt),
        "completion_tokens": tokens,
        "total_tokens": len(prompt) + tokens,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    timings = answer["timings"]
    assert timings["tokens_per_second"] == tokens / timings["wall_seconds"] > 0
    assert (timings["blocks"], timings["steps"], timings["encoded_tokens"]) == (1, 2, len(prompt) - 1)
    assert timings["ms_per_step"] == pytest.approx(10)
    assert json.loads(json.dumps(answer)) == answer


def test_thoughts_are_reasoning_content(scripted: Script) -> None:
    model = scripted("<|channel>thought\nhm\n<channel|>hello")
    answer = model.create_chat_completion(USER)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "hello", "reasoning_content": "hm"}
    assert answer["usage"]["completion_tokens"] == len(ScriptedConversation.script)  # thoughts are received, too
    chunks = list(model.create_chat_completion(USER, stream=True))
    assert (content(chunks, "reasoning_content"), content(chunks)) == ("hm", "hello")


def test_an_unclosed_thought_is_the_answer(scripted: Script) -> None:
    answer = scripted("<|channel>thought\nhello").create_chat_completion(USER)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "hello"}


def test_tool_calls(scripted: Script) -> None:
    model = scripted(f"I see.{CALL}{CALL}")
    choice = model.create_chat_completion(USER, tools=TOOLS)["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "I see.")
    calls = choice["message"]["tool_calls"]
    assert [call["function"] for call in calls] == [{"name": "f", "arguments": '{"a": "b"}'}] * 2
    assert len({call["id"] for call in calls}) == 2
    chunks = list(model.create_chat_completion(USER, tools=TOOLS, stream=True))
    deltas = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert [(call["index"], call["function"]["name"], call["type"]) for call in deltas] == [
        (0, "f", "function"),
        (1, "f", "function"),
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert scripted(CALL).create_chat_completion(USER)["choices"][0]["message"]["content"] is None


def test_tool_choice(scripted: Script, toy: Tokenizer) -> None:
    none = scripted(CALL).create_chat_completion(USER, tools=TOOLS, tool_choice="none")["choices"][0]
    assert (none["message"]["content"], none["finish_reason"]) == (CALL, "stop")
    function = {"type": "function", "function": {"name": "f"}}
    model = scripted("a:1}<tool_call|>")
    forced = model.create_chat_completion(USER, tools=TOOLS, tool_choice=function)["choices"][0]
    assert forced["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert toy.decode(asked()["prompt"]).endswith("<|turn>model\n<|tool_call>call:f{")
    assert toy.decode(asked()["prompt"][asked()["settled"] :]) == "<|tool_call>call:f{"
    with pytest.raises(RequestError, match="no thought can stand before it"):
        model.create_chat_completion(USER, tools=TOOLS, tool_choice="required", enable_thinking=True)


def test_a_stream(scripted: Script) -> None:
    model = scripted("the canvas starts as noise, and every step the model reads")
    chunks = list(model.create_chat_completion(USER, stream=True, seed=1))
    whole = model.create_chat_completion(USER, seed=1)
    assert len(chunks) == 4  # the role, two blocks, the end
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert content(chunks) == whole["choices"][0]["message"]["content"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[-1]["usage"] == {**whole["usage"], "prompt_tokens_details": {"cached_tokens": 1}}
    assert "timings" in chunks[-1]
    assert "usage" not in chunks[0]


def test_completions(scripted: Script, toy: Tokenizer) -> None:
    model = scripted(f"hello {CALL}")
    answer = model("the canvas<turn|>", max_tokens=50, echo=True)
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    text = f"the canvas<turn|>hello {CALL}"
    assert answer["choices"] == [{"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}]
    assert asked()["prompt"] == toy.encode("the canvas<turn|>")
    chunks = list(model.create_completion(asked()["prompt"], stream=True, echo=True))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == f"<bos>{text}"
    assert chunks[-1]["usage"] == answer["usage"]
    with pytest.raises(RequestError, match="prompt must be text or a list of token ids, not 3"):
        model.create_completion(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_across_blocks(scripted: Script, toy: Tokenizer, stream: bool) -> None:
    """Wherever the stop string lies, at a block's border too, the text ends before it and the answer ends there."""
    text = "When the numbers agree with the reference, the text will be as good as the weights that were trained."
    model = scripted(text)
    ends = [len(toy.decode(ScriptedConversation.script[:n])) for n in range(len(ScriptedConversation.script) + 1)]
    assert len(ends) > 2 * CANVAS
    for place in range(len(text) - 4):
        before = text[: text.index(text[place : place + 4])]
        answer: Any = model.create_completion([2, 3], stop=["nowhere", text[place : place + 4]], stream=stream)
        chunks = list(answer) if stream else [answer]
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == before
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
        assert chunks[-1]["usage"]["completion_tokens"] == next(n for n, end in enumerate(ends) if end >= len(before))
        assert chunks[-1]["timings"]["ms_per_step"] is None
    assert ScriptedConversation.ended == len(ScriptedConversation.calls)  # the engine was told, every time


def test_stop_strings_apply_to_text_only(scripted: Script) -> None:
    model = scripted(f"<|channel>thought\nb END<channel|>a{CALL}E{CALL}ND END")
    answer = model.create_chat_completion(USER, stop="END")
    message = answer["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"], len(message["tool_calls"])) == ("b END", "aEND ", 2)
    assert answer["usage"]["completion_tokens"] == len(ScriptedConversation.script) - len("END")


def test_a_stop_string_at_once(scripted: Script) -> None:
    answer = scripted("END").create_chat_completion(USER, stop=["END"])
    assert (answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]) == ("", 0)


@pytest.mark.parametrize("reason", ["length", "context", "cancelled"])
def test_answers_that_were_cut(scripted: Callable[..., DiffusionGemma], reason: Reason) -> None:
    assert scripted("hello", reason).create_chat_completion(USER)["choices"][0]["finish_reason"] == "length"
    answer = scripted("hello hello").create_completion("a", max_tokens=2)
    assert (answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", 2)


def test_answers_sent_back_keep_their_tokens(scripted: Script, toy: Tokenizer) -> None:
    model = scripted("<|channel>thought\nhm<channel|>the canvas")
    ScriptedConversation.script += [id for letter in "ing" for id in toy.encode(letter, add_bos=False)]
    own = ScriptedConversation.script[-3:]
    assert toy.encode("ing", add_bos=False) != own
    for stream in (False, True):
        answer: Any = model.create_chat_completion(USER, stream=stream)
        said = content(answer) if stream else answer["choices"][0]["message"]["content"]
        model.create_chat_completion([*USER, {"role": "assistant", "content": said}, *USER])
        prompt = asked()["prompt"]
        assert any(prompt[place : place + len(own)] == own for place in range(len(prompt)))
        assert "hm" not in toy.decode(prompt)


def test_seeds(scripted: Callable[..., DiffusionGemma]) -> None:
    fixed = scripted("a", seed=5)
    assert [fixed("a")["seed"], fixed("a", seed=0)["seed"], fixed("a")["seed"]] == [5, 0, 5]
    free = scripted("a")
    seeds = [free("a")["seed"] for _ in range(3)]
    assert len(set(seeds)) == 3
    assert [call["seed"] for call in ScriptedConversation.calls] == seeds


def test_settings_by_name(scripted: Callable[..., DiffusionGemma]) -> None:
    places = {"n_gpu_layers": 3, "n_cpu_moe": 2, "override_tensor": "exps=CPU", "tensor_split": [1], "main_gpu": None}
    places["card_layers"] = "own"
    model = scripted("a", t_min=0.2, n_ctx=99, n_threads=2, **places)
    assert model._engine.options == {"n_ctx": 99, "n_threads": 2, "kv_type": "f16", **places}  # type: ignore[attr-defined]
    model("a", max_denoising_steps=3, t_max=0.5, entropy_bound=0.2, stability_threshold=2, confidence_threshold=0.1)
    given = GenerationConfig(3, 0.2, 0.5, 0.2, 2, 0.1)
    assert asked()["config"] == given
    model.create_chat_completion(USER, entropy_bound=None, temperature=None)
    assert asked()["config"] == dataclasses.replace(GenerationConfig(t_max=0.7), t_min=0.2)
    assert asked()["max_new_tokens"] == 500 - len(asked()["prompt"])
    with pytest.raises(RequestError, match="t_min must be at most t_max"):
        model("a", t_min=0.9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"temperature": 1}, "temperature is not an argument of this model"),
        ({"nonsense": 1}, "has no argument 'nonsense'"),
        ({"stop": 3}, "stop must be"),
        *(({"max_tokens": value}, "max_tokens must be at least 1, or None") for value in (0, -1, True, 1.5)),
    ],
)
def test_bad_arguments(scripted: Callable[..., DiffusionGemma], arguments: dict[str, Any], words: str) -> None:
    model = scripted("a")
    for stream in (False, True):  # a stream checks them before it begins
        with pytest.raises(RequestError, match=words):
            model("a", stream=stream, **arguments)
        with pytest.raises(RequestError, match=words):
            model.create_chat_completion(USER, stream=stream, **arguments)
    assert not ScriptedConversation.calls
    if "temperature" in arguments:
        with pytest.raises(RequestError, match=words):
            scripted("a", **arguments)


def test_one_answer_at_a_time(scripted: Script) -> None:
    model = scripted("the canvas starts as noise, and every step the model reads")
    stream = model.create_completion("a", stream=True)
    next(stream)
    with pytest.raises(RequestError, match="another answer of this model is under way"):
        model("a")
    assert ScriptedConversation.ended == 0
    stream.close()  # type: ignore[attr-defined]
    assert ScriptedConversation.ended == 1
    assert model("a")["choices"][0]["finish_reason"] == "stop"


def test_after_an_error_the_model_goes_on(scripted: Script) -> None:
    model = scripted("a")
    ScriptedConversation.error = BackendError("out of memory")
    with pytest.raises(BackendError):
        model("a")
    ScriptedConversation.error = None
    assert model("a")["choices"][0]["text"] == "a"


def test_events_can_be_watched(scripted: Script) -> None:
    events: list[Event] = []
    scripted("a").create_chat_completion(USER, on_event=events.append)
    assert [type(event) for event in events] == [StepEvent, StepEvent, BlockEvent, DoneEvent]


def test_tokens(scripted: Script, toy: Tokenizer) -> None:
    model = scripted("a")
    assert model.tokenize("hello") == model.tokenize(b"hello") == toy.encode("hello")
    assert model.tokenize("<eos>", add_bos=False, special=True) == [1]
    assert model.tokenize("<eos>", add_bos=False) != [1]
    assert model.detokenize([2, *model.tokenize("é", add_bos=False)]) == "é".encode()
    assert model.detokenize([2], special=True) == b"<bos>"
    assert (model.n_ctx(), model.n_vocab(), model.token_bos(), model.token_eos()) == (500, 512, 2, 1)
    with pytest.raises(RequestError, match="the text is not UTF-8: byte 1"):
        model.tokenize(b"a\xff")


@pytest.mark.parametrize(
    ("filename", "wanted"), [(None, None), ("m.gguf", "m.gguf"), ("*Q4_K_M.gguf", "Q4_K_M"), ("*q8_0*", "q8_0")]
)
def test_from_pretrained(
    scripted: Script, toy_model: Path, monkeypatch: pytest.MonkeyPatch, filename: str | None, wanted: str | None
) -> None:
    scripted("a")
    calls: list[object] = []
    monkeypatch.setattr("dgemma.hub.resolve", lambda *args: calls.append(args) or toy_model)
    model = DiffusionGemma.from_pretrained("owner/name", filename, n_ctx=64)
    assert calls == [("owner/name", wanted, None)]
    assert model._engine.options["n_ctx"] == 64  # type: ignore[attr-defined]
    with pytest.raises(RequestError, match="DiffusionGemma has no argument 'verbose'"):
        DiffusionGemma.from_pretrained("owner/name", verbose=False)


def test_the_real_path(toy_model: Path, toy: Tokenizer) -> None:
    """Five turns with the small random model: what was encoded stays, and the same seed gives the same answer."""
    spelled = {id: toy.id_to_token(id) for id in range(toy.vocab_size)}
    special = {id for id in spelled if toy.encode(spelled[id]) != toy.encode(spelled[id], parse_special=False)}
    with DiffusionGemma(toy_model, n_ctx=1024, max_denoising_steps=2) as model:
        messages: list[dict[str, Any]] = []
        held = 0
        for turn in range(5):
            messages += [{"role": "user", "content": f"question {turn}"}]
            blocks: list[list[int]] = []
            watch = lambda event: isinstance(event, BlockEvent) and blocks.append(event.tokens)  # noqa: E731, B023
            answer = model.create_chat_completion(messages, seed=turn, max_tokens=40, on_event=watch)
            messages += [answer["choices"][0]["message"]]
            usage = answer["usage"]
            assert usage["completion_tokens"] == sum(map(len, blocks))
            assert usage["prompt_tokens_details"]["cached_tokens"] >= held
            encoded = [token for block in blocks[:-1] for token in block]
            # A random model writes markers, too, and those are no part of the history.
            plain = next((place for place, token in enumerate(encoded) if token in special), len(encoded))
            held = usage["prompt_tokens"] + plain
        whole = model.create_chat_completion(messages[:1], seed=0, max_tokens=40)
        assert whole["choices"][0]["message"] == messages[1]
        chunks = list(model.create_chat_completion(messages[:1], seed=0, max_tokens=40, stream=True))
        assert content(chunks) == messages[1]["content"]
        text = model("the canvas", seed=3, max_tokens=33)["choices"][0]["text"]
        stopped = model("the canvas", seed=3, max_tokens=33, stop=text[20:24])
        assert stopped["choices"][0]["text"] == text[: text.index(text[20:24])]
        with pytest.raises(dgemma.ContextError):
            model("a " * 3000, max_tokens=5)
    with pytest.raises(RequestError, match="closed"):
        model("a")
    model.close()
