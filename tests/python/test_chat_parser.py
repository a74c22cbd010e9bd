"""Answers taken apart: thoughts, tool calls, stop strings, however the tokens come."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dgemma import RequestError, Tokenizer
from dgemma.chat import Delta, Message, MessageParser, Piece, StopStrings, ToolCall, parse_call

CHANNEL, CHANNEL_END, CALL, CALL_END = "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>"
RESPONSE, RESPONSE_END, QUOTE = "<|tool_response>", "<tool_response|>", '<|"|>'
MARKERS = [CHANNEL, CHANNEL_END, CALL, CALL_END, RESPONSE, RESPONSE_END, QUOTE]
THOUGHT = f"{CHANNEL}thought\n"

deterministic = settings(
    derandomize=True, deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(
    tokenizer: Tokenizer, ids: Sequence[int], cuts: Sequence[int] = (), **options: Any
) -> tuple[Message, list[Piece]]:
    """The message and all pieces of tokens that come in several blocks."""
    parser, pieces = MessageParser(tokenizer, **options), []
    places = [0, *sorted(cuts), len(ids)]
    for start, end in pairwise(places):
        pieces += parser.feed(ids[start:end])
    pieces += parser.finish()
    assert parser.finish() == []
    return parser.message, pieces


def message(tokenizer: Tokenizer, text: str, **options: Any) -> Message:
    return read(tokenizer, tokenizer.encode(text, add_bos=False), **options)[0]


def joined(pieces: Sequence[Piece], kind: str) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, Delta) and piece.kind == kind)


ANSWERS = {
    "plain": ("hello é", Message("hello é")),
    "empty": ("", Message()),
    "spaces stay": ("  a\n\n b \n", Message("  a\n\n b \n")),
    "line breaks after a marker go": ("\n\na", Message("a")),
    "thought": (f"{THOUGHT}hm\n{CHANNEL_END}\n\nhello", Message("hello", "hm")),
    "blank line in the head": (f"{THOUGHT}\n\n  hm{CHANNEL_END}x", Message("x", "  hm")),
    "head without line break": (f"{CHANNEL}thought{CHANNEL_END}x", Message("x")),
    "head half written": (f"{CHANNEL}thou{CHANNEL_END}x", Message("x", "thou")),
    "no head": (f"{CHANNEL}thoughtful I am{CHANNEL_END}x", Message("x", "thoughtful I am")),
    "another channel": (f"{CHANNEL}plan\nfirst{CHANNEL_END}x", Message("x", "plan\nfirst")),
    "empty thought": (f"{THOUGHT}{CHANNEL_END}x", Message("x")),
    "several thoughts": (f"{THOUGHT}a{CHANNEL_END}x{THOUGHT}b{CHANNEL_END}y", Message("xy", "a\n\nb")),
    "a channel in a channel": (f"{THOUGHT}a{THOUGHT}b{CHANNEL_END}y", Message("y", "a\n\nb")),
    "unclosed thought is the answer": (f"{THOUGHT}it is so\n", Message("it is so")),
    "unclosed thought after a closed one": (f"{THOUGHT}a{CHANNEL_END}\n{THOUGHT}b", Message("b", "a")),
    "unclosed thought after text": (f"x{THOUGHT}b", Message("x", "b")),
    "only a closed thought": (f"{THOUGHT}a{CHANNEL_END}", Message("", "a")),
    "an unclosed head": (f"{CHANNEL}thought", Message()),
    "closing nothing": (f"a{CHANNEL_END}b{CALL_END}c<tool_response|>d", Message("abcd")),
    "a quote in text": (f"say {QUOTE}", Message(f"say {QUOTE}")),
    "control tokens": ("a<pad><|turn>b<|think|>", Message("ab")),
    "end token": ("a<turn|>b", Message("a")),
    "end of text": ("a<eos>", Message("a")),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_text_and_thoughts(toy: Tokenizer, name: str) -> None:
    text, expected = ANSWERS[name]
    found = message(toy, text)
    assert (found.content, found.thought, found.tool_calls) == (expected.content, expected.thought, ())
    assert not found.malformed_call


CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "nothing": ("{}", {}),
    "string": ('{a:<|"|>b c<|"|>}', {"a": "b c"}),
    "empty string": ('{a:<|"|><|"|>}', {"a": ""}),
    "notation in a string": ('{a:<|"|>},{x:[1],call:f{ \n<|"|>}', {"a": "},{x:[1],call:f{ \n"}),
    "numbers": ("{a:1,b:-2.5,c:1e3,d:0}", {"a": 1, "b": -2.5, "c": 1000.0, "d": 0}),
    "words": ("{a:true,b:false,c:null,d:None}", {"a": True, "b": False, "c": None, "d": None}),
    "list": ('{a:[1,<|"|>x<|"|>,[],[true]]}', {"a": [1, "x", [], [True]]}),
    "objects": ('{a:{b:{c:1},<|"|>d e<|"|>:[{}]}}', {"a": {"b": {"c": 1}, "d e": [{}]}}),
    "white space": ('{ a : 1 ,\n b: [ 1 , 2 ] , c:<|"|> x <|"|> }', {"a": 1, "b": [1, 2], "c": " x "}),
    "forgotten quotes": ("{a:New York,b:12:30,c:x://y?q=1}", {"a": "New York", "b": "12:30", "c": "x://y?q=1"}),
    "quotes of JSON": ('{"a":"b, \\"c\\" }\\u00e9"}', {"a": 'b, "c" }é'}),
    "no numbers": ("{a:007,b:1e999,c:1.2.3,d:NaN}", {"a": "007", "b": "1e999", "c": "1.2.3", "d": "NaN"}),
    "a large number": (f"{{a:1{'0' * 400}}}", {"a": 10**400}),
    "the last one counts": ("{a:1,a:2}", {"a": 2}),
}


@pytest.mark.parametrize("name", CALLS)
def test_arguments(toy: Tokenizer, name: str) -> None:
    text, arguments = CALLS[name]
    found = message(toy, f"{CALL}call:f{text}{CALL_END}{RESPONSE}noise")
    assert (found.tool_calls, found.content) == ((ToolCall("f", arguments),), "")
    assert toy.decode(found.ids) == f"{CALL}call:f{text}{CALL_END}"


MALFORMED = ["", "f{}", "call:f", "call:{}", "call:f{", "call:f{a}", "call:f{a:}", "call:f{a:1}}", "call:f{a:1,}"]
MALFORMED += ["call:f{a:[1}", "call:f{a:1 {}}", 'call:f{a:<|"|>x}', 'call:f{a:<|"|>x<|"|>y}', "call:f{,}", "call:f{}x"]
MALFORMED += ['call:f{a:"x}', 'call:f{a:"\\ud800"}', "call:f{a:" + "[" * 100 + "]" * 100 + "}", "call:f{a:\0}"]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_call_is_text(toy: Tokenizer, text: str) -> None:
    ids = toy.encode(f"a {CALL}{text}{CALL_END}b", add_bos=False)
    found, pieces = read(toy, ids)
    assert (found.content, found.tool_calls, found.malformed_call) == (f"a {CALL}{text}{CALL_END}b", (), True)
    assert Delta("text", f"{CALL}{text}{CALL_END}", malformed_call=True) in pieces
    assert found.ids == tuple(ids)


def test_deep_nesting_within_reason() -> None:
    call = parse_call([f"call:f{{a:{'[' * 60}{']' * 60}}}"])
    assert call is not None


def test_calls_among_text_and_thoughts(toy: Tokenizer) -> None:
    text = f"{THOUGHT}I need it{CHANNEL_END}Wait.\n{CALL}call:f{{a:1}}{CALL_END}\n{CALL}call:ns.g-2{{}}{CALL_END}\ndone"
    found, pieces = read(toy, toy.encode(text, add_bos=False))
    first, second = ToolCall("f", {"a": 1}), ToolCall("ns.g-2", {})
    assert pieces == [Delta("thought", "I need it"), Delta("text", "Wait.\n"), first, second, Delta("text", "done")]
    assert toy.decode(found.ids) == f"Wait.\n{CALL}call:f{{a:1}}{CALL_END}{CALL}call:ns.g-2{{}}{CALL_END}done"


@pytest.mark.parametrize("end", ["", "<turn|>", RESPONSE, f"{THOUGHT}x{CHANNEL_END}", f"{CALL}call:g{{}}{CALL_END}"])
def test_a_whole_call_needs_no_closing_marker(toy: Tokenizer, end: str) -> None:
    found = message(toy, f"{CALL}call:f{{}}{end}")
    assert found.tool_calls[0] == ToolCall("f", {})
    assert toy.decode(found.ids).startswith(f"{CALL}call:f{{}}{CALL_END}")


def test_a_call_cut_by_the_end_is_text(toy: Tokenizer) -> None:
    found = message(toy, f"{CALL}call:f{{a:{QUOTE}b")
    assert (found.content, found.malformed_call) == (f"{CALL}call:f{{a:{QUOTE}b", True)


def test_a_call_in_an_unclosed_thought(toy: Tokenizer) -> None:
    found = message(toy, f"{THOUGHT}need it{CALL}call:f{{}}{CALL_END}{RESPONSE}")
    assert (found.content, found.thought, found.tool_calls) == ("", "need it", (ToolCall("f", {}),))


def test_calls_as_text_where_none_are_wanted(toy: Tokenizer) -> None:
    text = f"{CALL}call:f{{}}{CALL_END}"
    found = message(toy, text, tool_calls=False)
    assert (found.content, found.tool_calls, found.malformed_call) == (text, (), False)


def test_text_that_spells_markers_is_text(toy: Tokenizer) -> None:
    text = f"{THOUGHT}a{CHANNEL_END}{CALL}call:f{{}}{CALL_END}<turn|>{RESPONSE}"
    found, pieces = read(toy, toy.encode(text, add_bos=False, parse_special=False))
    assert (found.content, found.thought) == (text, "")
    assert pieces == [Delta("text", text)]
    # In a string, too: only the token is a quote.
    inside = toy.encode('x<|"|>y', add_bos=False, parse_special=False)
    ids = [*toy.encode(f"{CALL}call:f{{a:{QUOTE}", add_bos=False), *inside, *toy.encode(f"{QUOTE}}}", add_bos=False)]
    assert read(toy, ids)[0].tool_calls == (ToolCall("f", {"a": 'x<|"|>y'}),)


def test_a_vocabulary_without_markers(metadata: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_metadata(metadata, "small.gguf")  # has a channel that nothing closes
    text = "<|tool_call>hello<channel|>"
    assert message(tokenizer, text).content == text
    types = metadata["tokenizer.ggml.token_type"].copy()
    types[tokenizer.token_to_id("<|channel>")] = 1
    ordinary = Tokenizer.from_metadata({**metadata, "tokenizer.ggml.token_type": types}, "small.gguf")
    ids = [ordinary.token_to_id("<|channel>"), *ordinary.encode("hello", add_bos=False)]
    assert read(ordinary, ids)[0].content == "<|channel>hello"  # type: ignore[arg-type]


def test_half_a_character_is_never_shown(toy: Tokenizer) -> None:
    ids = toy.encode("🦙", add_bos=False)
    parser = MessageParser(toy)
    assert [parser.feed([id]) for id in ids] == [[], [], [], [Delta("text", "🦙")]]
    # A marker ends the character: its other bytes cannot come.
    found, _ = read(toy, [*ids[:2], *toy.encode(f"{THOUGHT}x{CHANNEL_END}", add_bos=False), *ids[2:]])
    assert found.content == toy.decode(ids[:2]) + toy.decode(ids[2:])


def test_an_id_outside_the_vocabulary(toy: Tokenizer) -> None:
    with pytest.raises(RequestError, match="outside the vocabulary"):
        MessageParser(toy).feed([toy.vocab_size])


def test_as_history_is_plain_data(toy: Tokenizer) -> None:
    found = message(toy, f"{THOUGHT}a{CHANNEL_END}hello{CALL}call:f{{a:1}}{CALL_END}")
    assert found.as_history() == {
        "role": "assistant",
        "content": "hello",
        "tokens": list(found.ids),
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}],
    }
    assert found.tool_calls[0].arguments_json == '{"a": 1}'


PARTS = [*MARKERS, "thought\n", "thought", "\n", "call:", "f", "{", "}", "[", "]", ",", ":", "a", " b", "1", "é", "🦙"]
PARTS += ["<turn|>", "<pad>", "<|channel", '"', "true"]


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[str], list[int]]:
    parts = draw(st.lists(st.sampled_from(PARTS), max_size=30))
    return parts, draw(st.lists(st.integers(0, 60), max_size=6))


@deterministic
@given(stream=streams(), tool_calls=st.booleans())
def test_how_a_stream_is_cut_makes_no_difference(
    toy: Tokenizer, stream: tuple[list[str], list[int]], tool_calls: bool
) -> None:
    parts, cuts = stream
    ids = [id for part in parts for id in toy.encode(part, add_bos=False)]
    whole, pieces = read(toy, ids, tool_calls=tool_calls)
    cut, cut_pieces = read(toy, ids, [min(place, len(ids)) for place in cuts], tool_calls=tool_calls)
    single, _ = read(toy, ids, range(len(ids)), tool_calls=tool_calls)
    assert whole == cut == single
    assert joined(pieces, "text") == joined(cut_pieces, "text") == whole.content
    assert joined(pieces, "thought") == joined(cut_pieces, "thought")
    assert [piece for piece in cut_pieces if isinstance(piece, ToolCall)] == list(whole.tool_calls)


@deterministic
@given(ids=st.lists(st.integers(0, 511), max_size=60))
def test_nothing_is_lost(toy: Tokenizer, ids: list[int]) -> None:
    """All characters but white space and markup arrive as text or as thought."""
    markup = {toy.token_to_id(marker) for marker in (CHANNEL, CHANNEL_END, RESPONSE_END)}
    ends = [place for place, id in enumerate(ids) if id in toy.eos_ids]
    kept = [id for id in ids[: min(ends, default=len(ids))] if id not in markup]
    _, pieces = read(toy, ids, range(0, len(ids), 5), tool_calls=False)
    assert not letters(toy.decode(kept, skip_special=True)) - letters(
        joined(pieces, "text") + joined(pieces, "thought")
    )


def letters(text: str) -> Counter[str]:
    return Counter(re.sub(r"[\s\ufffd]", "", text))


@deterministic
@given(text=st.text(st.sampled_from('{}[]:,"\\ \n\0af1-.tru'), max_size=40), strings=st.lists(st.text(max_size=3)))
def test_no_call_is_too_odd(text: str, strings: list[str]) -> None:
    call = parse_call([f"call:f{{{text}}}", *strings])
    assert call is None or call.name == "f"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def written(value: Any) -> list[str]:
    """A value in Gemma's notation, cut at its quotes."""
    if isinstance(value, str):
        return ["", value, ""]
    if not isinstance(value, dict | list):
        return [json.dumps(value)]
    if isinstance(value, dict):
        brackets, members = "{}", [glue(written(key), [":"], written(item)) for key, item in value.items()]
    else:
        brackets, members = "[]", [written(item) for item in value]
    between = [part for member in members for part in ([","], member)][1:]
    return glue([brackets[0]], *between, [brackets[1]])


def glue(*chunks: list[str]) -> list[str]:
    """Lists of chunks end to end: the last of one and the first of the next are one chunk."""
    whole = [""]
    for part in chunks:
        whole = [*whole[:-1], whole[-1] + part[0], *part[1:]]
    return whole


@deterministic
@given(arguments=st.dictionaries(st.text(max_size=5), values, max_size=4))
def test_arguments_come_back_as_they_were_written(arguments: dict[str, Any]) -> None:
    call = parse_call(glue(["call:f"], written(arguments)))
    assert call == ToolCall("f", arguments)


def test_stop_strings() -> None:
    stop = StopStrings(["END", "\n\n"])
    assert [stop.feed(text) for text in ["a", "E", "NO", "\n", "b E", "N"]] == ["a", "", "ENO", "", "\nb ", ""]
    assert [stop.feed(text) for text in ["D", "more"]] == ["", ""]
    assert (stop.found, stop.finish()) == ("END", "")
    held = StopStrings(["END"])
    assert (held.feed("x EN"), held.finish(), held.found) == ("x ", "EN", None)
    assert (StopStrings([]).feed("a"), StopStrings([]).finish()) == ("a", "")
    assert StopStrings(["bcd", "c"]).feed("abcd") == "ab"


@deterministic
@given(
    text=st.text("ab", max_size=20),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 20), max_size=5),
)
def test_stop_strings_however_the_text_is_cut(text: str, stops: list[str], cuts: list[int]) -> None:
    stop, shown = StopStrings(stops), ""
    places = [0, *sorted(min(place, len(text)) for place in cuts), len(text)]
    for start, end in pairwise(places):
        shown += stop.feed(text[start:end])
        assert not any(word in shown for word in stops)
    shown += stop.finish()
    # The same by growing prefixes: the first that contains a stop string ends with it.
    ended = next((end for end in range(len(text) + 1) if any(word in text[:end] for word in stops)), None)
    longest = max((len(word) for word in stops if text[:ended].endswith(word)), default=0)
    assert shown == (text if ended is None else text[: ended - longest])
    assert (stop.found is None) == (ended is None)
