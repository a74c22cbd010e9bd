"""Conversations: nothing is encoded twice, and going back gives the cache that a fresh encoding gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dgemma import (
    BlockEvent,
    ContextError,
    Conversation,
    DoneEvent,
    Engine,
    FileError,
    GenerationConfig,
    RequestError,
)

CONFIG = GenerationConfig(max_denoising_steps=2, confidence_threshold=0.0)


def tokens(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(200, 500, n).tolist()


def answer(conversation: Conversation, prompt: list[int], n: int = 40, seed: int = 1) -> list[int]:
    events = list(conversation.answer(prompt, max_new_tokens=n, seed=seed, config=CONFIG))
    return [token for event in events if isinstance(event, BlockEvent) for token in event.tokens]


@pytest.fixture
def long_engine(endless: Path) -> Engine:
    """Window 8 in a ring of 512 cells: a conversation soon outgrows it."""
    return Engine(endless, n_ctx=2048, exact=True)


def test_five_turns_encode_each_token_once(long_engine: Engine) -> None:
    conversation, history = Conversation(long_engine), []
    for turn in range(5):
        history = history + tokens(30, seed=turn)
        history = history + answer(conversation, history, seed=turn)
    # The answers' last blocks are encoded by the turn after; the last answer's never was.
    assert conversation.stats.encoded_tokens == len(conversation.ids)
    assert conversation.ids == history[: len(conversation.ids)]
    assert conversation.stats.reencodings == 0
    fresh = Conversation(long_engine)
    assert answer(fresh, history, seed=9) == answer(conversation, history, seed=9)


def test_a_dropped_thought_costs_the_visible_answer_again(long_engine: Engine) -> None:
    """Each turn's answer begins with a thought that history drops: the prompt is read once, the answer twice."""
    conversation, history = Conversation(long_engine), tokens(600)  # beyond the ring from the start
    read = 600
    for turn in range(4):
        said = answer(conversation, history, n=600, seed=turn)  # far enough for the ring to move on
        committed = len(conversation.ids) - len(history)
        assert committed == 592  # all blocks but the last
        visible = said[500:]
        history = history + visible + tokens(5, seed=turn)
        read += committed + len(visible) + 5
    answer(conversation, history, n=1)
    assert conversation.stats.reencodings == 0
    assert conversation.stats.encoded_tokens == read
    assert conversation.stats.snapshot_bytes > 0
    assert answer(Conversation(long_engine), history, seed=9) == answer(conversation, history, seed=9)


def test_a_prompt_whose_end_later_turns_leave_out(long_engine: Engine) -> None:
    """Gemma's template ends a prompt with an empty thought that history does not have: the place before it is kept."""
    conversation, history, read = Conversation(long_engine), tokens(600), 600
    for turn in range(3):
        settled = len(history)
        events = list(
            conversation.answer([*history, 101, 100], max_new_tokens=600, seed=turn, config=CONFIG, settled=settled)
        )
        said = [token for event in events if isinstance(event, BlockEvent) for token in event.tokens]
        read += 2 + 592  # the end, and committed canvases
        history = history + said[:40] + tokens(5, seed=turn)
        read += 45
    assert answer(conversation, history, n=1) == answer(Conversation(long_engine), history, n=1)
    assert conversation.stats.reencodings == 0
    assert conversation.stats.encoded_tokens == read


def test_a_saved_chat_goes_on_without_reading_it_again(long_engine: Engine, tmp_path: Path) -> None:
    conversation, history = Conversation(long_engine), tokens(600)
    list(conversation.answer([*history, 101], max_new_tokens=600, config=CONFIG, settled=600))
    conversation.save(tmp_path / "chat")
    loaded = Conversation(long_engine)
    loaded.load(tmp_path / "chat")
    for one in (conversation, loaded):
        before = one.stats.encoded_tokens
        answer(one, history + tokens(9, seed=1), n=1)
        assert one.stats.encoded_tokens - before == 9
        assert one.stats.reencodings == 0


def test_the_same_answer_again(long_engine: Engine) -> None:
    conversation, prompt = Conversation(long_engine), tokens(300)
    first = answer(conversation, prompt, n=600, seed=4)
    other = answer(conversation, prompt, n=17, seed=5)
    assert answer(conversation, prompt, n=600, seed=4) == first != other
    assert conversation.stats.reencodings == 0
    assert conversation.stats.encoded_tokens == 300 + 592 + 16 + 592  # the prompt once, and committed canvases


def test_an_old_turn_changed_is_read_again(long_engine: Engine) -> None:
    conversation, prompt = Conversation(long_engine), tokens(700)
    answer(conversation, prompt)
    changed = prompt[:50] + tokens(500, seed=3)
    said = answer(conversation, changed)
    assert conversation.stats.reencodings == 1
    assert said == answer(Conversation(long_engine), changed)


def test_a_snapshot_ends_when_something_is_encoded_before_it(long_engine: Engine) -> None:
    session, other = long_engine.session(), long_engine.session()
    session.prefill(tokens(30))
    snapshot = session.snapshot()
    assert snapshot.n_past == 30
    session.restore(snapshot)
    with pytest.raises(ContextError, match="another session's"):
        other.restore(snapshot)
    session.truncate(10)
    session.prefill(tokens(5, 2))
    with pytest.raises(ContextError, match="positions before 30 were encoded anew"):
        session.restore(snapshot)


def test_an_answer_left_half_way(long_engine: Engine) -> None:
    conversation, prompt = Conversation(long_engine), tokens(20)
    events = conversation.answer(prompt, max_new_tokens=100, config=CONFIG)
    while not isinstance(next(events), BlockEvent):
        pass
    next(events)  # the first step of the second block: the first is in the cache now
    events.close()
    assert len(conversation.ids) == 36
    assert answer(conversation, prompt, seed=3) == answer(Conversation(long_engine), prompt, seed=3)


def test_too_long_a_prompt_keeps_the_conversation(long_engine: Engine) -> None:
    conversation, prompt = Conversation(long_engine), tokens(100)
    answer(conversation, prompt)
    with pytest.raises(ContextError, match="do not fit"):
        list(conversation.answer(prompt + tokens(2000)))
    assert conversation.ids[:100] == prompt
    assert isinstance(list(conversation.answer(prompt, max_new_tokens=1, config=CONFIG))[-1], DoneEvent)
    with pytest.raises(RequestError, match="empty"):
        list(conversation.answer([]))


@pytest.mark.parametrize("n_batch", [256, 33])
def test_saved_and_restored(model_path, tmp_path: Path, n_batch: int) -> None:
    """In another process's place: a new engine, another chunk size and so another ring; nothing is encoded again."""
    engine = Engine(model_path("short"), n_ctx=1024, exact=True)
    conversation, prompt = Conversation(engine), tokens(700)
    history = prompt + answer(conversation, prompt)
    conversation.save(tmp_path / "chat", {"messages": ["ü"]})
    loaded = Conversation(Engine(model_path("short"), n_ctx=1000, n_batch=n_batch, exact=True))
    assert loaded.load(tmp_path / "chat") == {"messages": ["ü"]}
    assert loaded.ids == conversation.ids
    assert answer(loaded, history, seed=8) == answer(conversation, history, seed=8)
    assert loaded.stats.encoded_tokens == len(loaded.ids) - 732
    assert list(tmp_path.iterdir()) == [tmp_path / "chat"]


def saved(model_path, tmp_path: Path) -> Path:
    conversation = Conversation(Engine(model_path("short"), n_ctx=256))
    answer(conversation, tokens(50))
    conversation.save(tmp_path / "chat")
    return tmp_path / "chat"


def test_saved_sessions_that_do_not_match(model_path, tmp_path: Path) -> None:
    path = saved(model_path, tmp_path).rename(tmp_path / "g\udcffspräch")  # a name that is not UTF-8
    for engine, sentence in (
        (Engine(model_path("short"), n_ctx=256, kv_type="f32"), "cache of another type than f32"),
        (Engine(model_path("crossing"), n_ctx=256), "saved with another model file"),
        (Engine(model_path("short"), n_ctx=40), r"holds 66 tokens, the context 40"),
    ):
        conversation = Conversation(engine)
        with pytest.raises((FileError, ContextError), match=sentence):
            conversation.load(path)
        assert answer(conversation, tokens(5), n=16)  # usable, and empty
    with pytest.raises(FileError, match="cannot be opened"):
        Conversation(engine).load(tmp_path / "none")


def test_damaged_saved_sessions(model_path, tmp_path: Path) -> None:
    path = saved(model_path, tmp_path)
    whole = path.read_bytes()
    engine = Engine(model_path("short"), n_ctx=256)
    for data, sentence in (
        (b"GGUF" + whole[4:], "not a saved session"),
        (b"", "not a saved session"),
        (whole[:7] + b"9" + whole[8:], "another version"),
        (whole[:-1], "broke off: layer 2"),
        (whole[:200], "broke off|damaged"),
        (whole[:40] + b"\xff" * 7 + whole[47:], "header makes no sense"),  # the length of the note
        (whole[:24] + b"\xff" * 8 + whole[32:], "header makes no sense|holds"),  # n_past
        (whole.replace(b'"ids"', b'"odd"'), "does not say which tokens"),
        (whole.replace(b'"ids": [', b'"ids": [7,').replace(b'"extra": {}', b'"extra":{}'), "damaged"),
    ):
        path.write_bytes(data)
        conversation = Conversation(engine)
        answer(conversation, tokens(5), n=16)
        with pytest.raises((FileError, ContextError), match=sentence) as caught:
            conversation.load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert answer(conversation, tokens(5), n=16) == answer(Conversation(engine), tokens(5), n=16)


def test_a_full_disk(model_path) -> None:
    conversation = Conversation(Engine(model_path("short"), n_ctx=256))
    answer(conversation, tokens(50))
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(FileError, match="cannot be written"):
        conversation.save("/dev/full/chat")
    with pytest.raises(FileError, match="/dev/full: cannot be written: it is no ordinary file"):
        conversation.save("/dev/full")
    assert Path("/dev/full").is_char_device()
