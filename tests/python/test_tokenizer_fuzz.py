"""Byte-exact round trips of the tokenizer, on the real vocabulary and on the small one."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dgemma import Tokenizer
from dgemma.tokenizer import TextStream

deterministic = settings(
    derandomize=True, deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
odd = st.sampled_from(
    ["<bos>", "<|turn>", "▁", "  ", "\n\n\n", "\0", "\ufffd", "🦙", "<0x0A>", "Ġ", "\u202e", "é", "e\u0301"]
)
texts = st.lists(st.text(max_size=12) | odd, max_size=8).map("".join)


@pytest.fixture(params=["real_tokenizer", "toy"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)


@deterministic
@given(text=texts)
def test_texts_come_back_byte_for_byte(tokenizer: Tokenizer, text: str) -> None:
    """All but U+2581, which the vocabulary writes for a space and so reads back as one."""
    ids = tokenizer.encode(text, add_bos=False, parse_special=False)
    assert tokenizer.decode_bytes(ids) == text.replace("▁", " ").encode()
    assert not {tokenizer.bos_id, *tokenizer.eos_ids} & set(ids)
    special = tokenizer.encode(text)
    assert special[0] == tokenizer.bos_id
    whole = text if text.startswith("<bos>") else f"<bos>{text}"
    assert tokenizer.decode(special) == whole.replace("▁", " ")


@deterministic
@given(ids=st.lists(st.integers(0, 511), max_size=40), data=st.data())  # half of these are bytes
def test_streams_show_whole_characters_only(tokenizer: Tokenizer, ids: list[int], data: st.DataObject) -> None:
    stream, shown, place = TextStream(tokenizer, skip_special=False), "", 0
    while place < len(ids):
        end = data.draw(st.integers(place + 1, len(ids)))
        shown += stream.feed(ids[place:end])
        # What is shown stays as it is, whatever comes: it begins the whole text.
        assert tokenizer.decode(ids).startswith(shown)
        place = end
    assert shown + stream.finish() == tokenizer.decode(ids)
