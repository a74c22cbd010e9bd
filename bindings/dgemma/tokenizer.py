"""Text to token ids and back, from the arrays that a GGUF file carries.

The vocabulary (``tokenizer.ggml.model`` = ``gemma4``) is byte-pair encoding over characters: every space becomes "▁",
no space is put in front, pieces merge by rank, and a character that no piece covers is spelled in bytes, ``<0xNN>``.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable, Mapping

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import AddedToken, models, normalizers

from .errors import RequestError
from .metadata import Metadata

# Values of tokenizer.ggml.token_type.
CONTROL, USER_DEFINED, BYTE = 3, 4, 6

# Published files carry one scalar end token; the checkpoint's generation_config lists these three.
_END_SPELLINGS = ("<eos>", "<turn|>", "<|tool_response>")
_SPACE = "▁"
# gguf writes a space inside a piece of a merge as chr(ord(" ") + 256), since a space parts the two pieces.
_SPACE_IN_MERGE = chr(ord(" ") + 256)


class Tokenizer:
    """The tokenizer of one model file. Made with ``from_gguf``; safe to share between threads.

    Attributes: ``source`` (the file, for messages), ``vocab_size``, ``bos_id``, ``eos_id`` (None where the file names
    none), ``eos_ids`` (every id that ends an answer), ``chat_template`` (None where the file has none).
    """

    def __init__(self, metadata: Metadata) -> None:
        model = metadata.text("tokenizer.ggml.model")
        if model != "gemma4":
            metadata.fail("tokenizer.ggml.model", f"is {model!r}, but DiffusionGemma files have 'gemma4'")
        self.source = metadata.source
        self._tokens = metadata.strings("tokenizer.ggml.tokens")
        self._ids = {token: id for id, token in enumerate(self._tokens)}
        self._types = _token_types(metadata, self.vocab_size)
        self._bytes = _byte_tokens(metadata, self._tokens, self._types)
        self.bos_id = _token_id(metadata, "tokenizer.ggml.bos_token_id", self.vocab_size)
        self.eos_id = _optional_id(metadata, "tokenizer.ggml.eos_token_id", self.vocab_size)
        self.eos_ids = self._end_ids(metadata)
        self.chat_template = _optional_text(metadata, "tokenizer.chat_template")
        self._plain, self._special = self._encoders(metadata)

    @classmethod
    def from_gguf(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read the tokenizer of the GGUF file at ``path``; about a second for the real vocabulary.

        Raises ``ModelFileError`` where the file is no GGUF file or its tokenizer is missing, foreign or damaged.
        """
        from ._native import core  # here, so that a Tokenizer from metadata needs no compiled engine

        return cls.from_metadata(core.read_gguf(os.fspath(path)).metadata, os.fspath(path))

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object], source: str) -> Tokenizer:
        """The same from metadata already read; ``source`` names it in error messages."""
        return cls(Metadata(metadata, source))

    @property
    def vocab_size(self) -> int:
        return len(self._tokens)

    def encode(self, text: str, add_bos: bool = True, parse_special: bool = True) -> list[int]:
        """The ids of ``text``.

        ``add_bos`` makes the ids begin with exactly one BOS: a text that already begins with it (a rendered chat
        template does) gets no second one, as when llama.cpp encodes a rendered chat. What the file's
        ``add_bos_token`` says is not asked: llama.cpp overrides it for this vocabulary too.
        ``parse_special`` turns special tokens spelled in the text ("<bos>", "<|turn>") into their ids; without it they
        are ordinary text, user-defined tokens included, so that text from strangers cannot end a turn or call a tool.
        Raises ``RequestError`` where the text is not valid Unicode.
        """
        encoder = self._special if parse_special else self._plain
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RequestError(f"the text is not valid Unicode at character {error.start}: it is not UTF-8") from None
        ids = encoder.encode(text, add_special_tokens=False).ids
        if add_bos and ids[:1] != [self.bos_id]:
            ids.insert(0, self.bos_id)
        return ids

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of ``ids``. ``skip_special`` leaves control tokens out; user-defined tokens stay.

        Bytes that form no valid UTF-8 become U+FFFD. Raises ``RequestError`` for an id outside the vocabulary.
        """
        return self.decode_bytes(ids, skip_special).decode(errors="replace")

    def decode_bytes(self, ids: Iterable[int], skip_special: bool = False) -> bytes:
        """The bytes of ``ids``, which may begin or end inside a character (see ``TextStream``)."""
        return b"".join(self._piece(id, skip_special) for id in ids)

    def id_to_token(self, id: int) -> str:
        """The vocabulary's own spelling, "▁the" or "<0x0A>"; ``RequestError`` for an id outside the vocabulary."""
        self._check(id)
        return self._tokens[id]

    def token_to_id(self, token: str) -> int | None:
        """The id of a token spelled as the vocabulary spells it, or None."""
        return self._ids.get(token)

    def _check(self, id: int) -> None:
        if not 0 <= id < self.vocab_size:
            raise RequestError(f"token id {id} is outside the vocabulary of {self.vocab_size} tokens")

    def _piece(self, id: int, skip_special: bool) -> bytes:
        self._check(id)
        kind = self._types[id]
        if kind == BYTE:
            return self._bytes[int(id)]
        if kind == CONTROL and skip_special:
            return b""
        token = self._tokens[id]
        return (token if kind in (CONTROL, USER_DEFINED) else token.replace(_SPACE, " ")).encode()

    def _end_ids(self, metadata: Metadata) -> tuple[int, ...]:
        """The file's own list where it has one; otherwise its end-of-text and end-of-turn ids and the known names."""
        key = "diffusion.eos_token_ids"
        if key in metadata:
            ids = [int(id) for id in metadata.integers(key)]
            if not all(0 <= id < self.vocab_size for id in ids):
                metadata.fail(key, f"is {ids}, which leaves the vocabulary of {self.vocab_size} tokens")
            return tuple(ids)
        named = (self._ids[token] for token in _END_SPELLINGS if token in self._ids)
        found = {id for id in named if self._types[id] in (CONTROL, USER_DEFINED)}
        end_of_turn = _optional_id(metadata, "tokenizer.ggml.eot_token_id", self.vocab_size)
        found.update(id for id in (self.eos_id, end_of_turn) if id is not None)
        return tuple(sorted(found))

    def _encoders(self, metadata: Metadata) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer]:
        """Two encoders over one merge table: blind to special tokens, and splitting the text at them."""
        bpe = _merge_table(metadata, self._ids, unknown=self._unknown(metadata))
        plain, special = tokenizers.Tokenizer(bpe), tokenizers.Tokenizer(bpe)
        plain.normalizer = special.normalizer = normalizers.Replace(" ", _SPACE)
        ids = np.flatnonzero((self._types == CONTROL) | (self._types == USER_DEFINED))
        special.add_special_tokens([AddedToken(self._tokens[id], special=True, normalized=False) for id in ids])
        return plain, special

    def _unknown(self, metadata: Metadata) -> str | None:
        id = _optional_id(metadata, "tokenizer.ggml.unknown_token_id", self.vocab_size)
        if id is None and len(set(self._bytes.values())) < 256:
            # The library would drop characters without a word.
            metadata.fail("tokenizer.ggml.tokens", "spells neither all 256 bytes nor an unknown token")
        return None if id is None else self._tokens[id]


class TextStream:
    """Text from ids that come a block at a time: a character cut by a block's border waits for its other bytes.

    The pieces joined are ``tokenizer.decode`` of all the ids together.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, ids: Iterable[int]) -> str:
        return self._utf8.decode(self._tokenizer.decode_bytes(ids, self._skip_special))

    def finish(self) -> str:
        """What was still waiting, as U+FFFD; empty where the text ended with a whole character."""
        return self._utf8.decode(b"", final=True)


def _token_types(metadata: Metadata, vocab_size: int) -> NDArray[np.int32]:
    types = metadata.integers("tokenizer.ggml.token_type")
    if len(types) != vocab_size:
        metadata.fail("tokenizer.ggml.token_type", f"has {len(types)} entries for {vocab_size} tokens")
    return types.astype(np.int32)


def _byte_tokens(metadata: Metadata, tokens: list[str], types: NDArray[np.int32]) -> dict[int, bytes]:
    found = {}
    for id in np.flatnonzero(types == BYTE).tolist():
        match = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", tokens[id])
        if match is None:
            metadata.fail("tokenizer.ggml.tokens", f"spells the byte token {id} as {tokens[id]!r:.40}, not as <0xNN>")
        found[id] = bytes.fromhex(match[1])
    return found


def _merge_table(metadata: Metadata, ids: dict[str, int], unknown: str | None) -> models.BPE:
    key = "tokenizer.ggml.merges"
    pairs = [_pieces(line, ids) for line in metadata.strings(key)]
    try:
        return models.BPE(vocab=ids, merges=pairs, unk_token=unknown, byte_fallback=True)
    except Exception as error:  # the library raises a bare Exception
        metadata.fail(key, f"does not fit tokenizer.ggml.tokens: {error}")


def _pieces(line: str, ids: dict[str, int]) -> tuple[str, str]:
    """The two pieces of one merge."""
    left, _, right = line.partition(" ")
    if _SPACE_IN_MERGE in line:
        # The letter is a token of the real vocabulary, so it stands for a space only where it makes no token itself.
        left, right = (piece if piece in ids else piece.replace(_SPACE_IN_MERGE, " ") for piece in (left, right))
    return left, right


def _token_id(metadata: Metadata, key: str, vocab_size: int) -> int:
    id = metadata.integer(key)
    if not 0 <= id < vocab_size:
        metadata.fail(key, f"is {id}, outside the vocabulary of {vocab_size} tokens")
    return id


def _optional_id(metadata: Metadata, key: str, vocab_size: int) -> int | None:
    return _token_id(metadata, key, vocab_size) if key in metadata else None


def _optional_text(metadata: Metadata, key: str) -> str | None:
    return metadata.text(key) if key in metadata else None
