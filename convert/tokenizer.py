"""tokenizer.json as the arrays of a GGUF file.

The vocabulary is byte-pair encoding over characters with byte fallback. The arrays are those of published Gemma 4
files: every score -1000, control tokens typed 3, the tokens that structure an answer typed 4, bytes typed 6.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import gguf
from gguf import TokenType

from .jsonfile import Fields, read_fields, read_optional_fields, read_text

SCORE = -1000.0
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
TURN_END = "<turn|>"

# Special to the tokenizer, but text to whoever reads the answer: thoughts, tool calls and their strings.
USER_DEFINED = frozenset(
    ["<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>']
)

# A merge is written "a b", so a space inside a piece needs another character; gguf's own helpers take this one.
SPACE_IN_MERGE = chr(ord(" ") + 256)

# Name in tokenizer_config.json and config.json -> name in the GGUF key.
SPECIAL_IDS = {"bos": "bos", "unk": "unknown", "pad": "padding", "mask": "mask"}


@dataclass(frozen=True)
class Vocabulary:
    """The arrays, one entry for each token id, and the ids with a meaning (GGUF's name -> id)."""

    tokens: list[str] = field(repr=False)
    types: list[int] = field(repr=False)
    merges: list[str] = field(repr=False)
    special_ids: dict[str, int]
    chat_template: str | list[dict[str, str]] | None = field(repr=False)

    def add_to(self, writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("gemma4")
        writer.add_token_list(self.tokens)
        writer.add_token_scores([SCORE] * len(self.tokens))
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        for name, token in self.special_ids.items():
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token)
        writer.add_add_bos_token(True)
        writer.add_add_space_prefix(False)
        if self.chat_template:
            writer.add_chat_template(self.chat_template)


def read_vocabulary(folder: Path, vocab: int, end_tokens: tuple[int, ...]) -> Vocabulary:
    """Read the tokenizer of a checkpoint whose network has ``vocab`` rows of embeddings.

    Ids that no token has become ``[PADn]``. Raises CheckpointError where tokenizer.json is missing, of another kind,
    or larger than the network.
    """
    file = read_fields(folder / "tokenizer.json")
    model = file.object("model")
    if model.text("type") != "BPE":
        model.fail("type", f"is {model.text('type')!r}; only 'BPE' is supported")
    if not model.flag("byte_fallback", default=False):
        model.fail("byte_fallback", "is not true; this is not a Gemma 4 tokenizer")
    added = [_AddedToken.read(file, entry) for entry in file.array("added_tokens")]
    if not model.array("merges"):
        model.fail("merges", "is empty, but GGUF readers need merges to join characters")
    tokens = _tokens(model, added, vocab)
    ids = {token: i for i, token in enumerate(tokens)}
    return Vocabulary(
        tokens=[f"[PAD{i}]" if token is None else token for i, token in enumerate(tokens)],
        types=_types(tokens, added),
        merges=[_merge(model, entry) for entry in model.array("merges")],
        special_ids=_special_ids(folder, ids, end_tokens),
        chat_template=_chat_template(folder),
    )


@dataclass(frozen=True)
class _AddedToken:
    id: int
    content: str
    special: bool

    @classmethod
    def read(cls, file: Fields, entry: object) -> _AddedToken:
        if not isinstance(entry, dict):
            file.fail("added_tokens", f"holds {entry!r}, which is not an object")
        fields = Fields(file.source, entry, "added_tokens: ")
        return cls(fields.integer("id", 0, 2**31), fields.text("content"), fields.flag("special", default=False))


def _tokens(model: Fields, added: Iterable[_AddedToken], vocab: int) -> list[str | None]:
    """Tokens by id, None where there is none."""
    tokens: list[str | None] = [None] * vocab

    def place(token: str, id: object) -> None:
        if type(id) is not int or id < 0:
            model.fail("vocab", f"gives {token!r} the id {id!r}, which is not a whole number")
        if id >= vocab:
            model.fail("vocab", f"gives {token!r} the id {id}, but config.json's vocab_size is {vocab}")
        if tokens[id] not in (None, token):
            model.fail("vocab", f"gives the id {id} to both {tokens[id]!r} and {token!r}")
        tokens[id] = token

    for token, id in model.object("vocab").data.items():
        place(token, id)
    for extra in added:
        place(extra.content, extra.id)
    return tokens


def _types(tokens: list[str | None], added: Iterable[_AddedToken]) -> list[int]:
    special = {token.id: token.special for token in added}

    def kind(id: int, token: str | None) -> TokenType:
        if token is None:
            return TokenType.UNUSED
        if token in USER_DEFINED or special.get(id) is False:
            return TokenType.USER_DEFINED
        if id in special:
            return TokenType.CONTROL
        return TokenType.BYTE if BYTE_TOKEN.fullmatch(token) else TokenType.NORMAL

    return [int(kind(id, token)) for id, token in enumerate(tokens)]


def _merge(model: Fields, entry: object) -> str:
    """A merge as "a b": older files have it so, newer ones as a pair."""
    if isinstance(entry, str) and entry.count(" ") == 1:
        return entry
    if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(piece, str) for piece in entry):
        model.fail("merges", f"holds {entry!r}, which is not a pair of pieces")
    return " ".join(piece.replace(" ", SPACE_IN_MERGE) for piece in entry)


def _special_ids(folder: Path, ids: dict[str | None, int], end_tokens: tuple[int, ...]) -> dict[str, int]:
    """Ids by GGUF's names. tokenizer_config.json names the tokens; where it does not, config.json gives the ids."""
    named = read_optional_fields(folder / "tokenizer_config.json")
    config = read_fields(folder / "config.json")
    text = config.object("text_config")
    special = {}
    for kind, key in SPECIAL_IDS.items():
        token = _named_token(named, f"{kind}_token", ids)
        for fields in (text, config):
            if token is None and fields.has(f"{kind}_token_id"):
                token = fields.integer(f"{kind}_token_id", 0, len(ids) - 1)
        if token is not None:
            special[key] = token
    eos = end_tokens[0] if end_tokens else _named_token(named, "eos_token", ids)
    if eos is None:
        config.fail("eos_token_id", "is missing, in generation_config.json too: nothing would end an answer")
    special["eos"] = eos
    if TURN_END in ids:
        special["eot"] = ids[TURN_END]
    return special


def _named_token(fields: Fields, field: str, ids: dict[str | None, int]) -> int | None:
    """The id of a token that is named as text or as an object with its content; None where it is not named."""
    value = fields.data.get(field)
    content = value.get("content") if isinstance(value, dict) else value
    if content is None:
        return None
    if not isinstance(content, str) or content not in ids:
        fields.fail(field, f"is {content!r}, which is no token of tokenizer.json")
    return ids[content]


def _chat_template(folder: Path) -> str | list[dict[str, str]] | None:
    """The chat template, from the first place that has one; None where there is none."""
    if (folder / "chat_template.jinja").exists():
        return read_text(folder / "chat_template.jinja")
    for name in ("tokenizer_config.json", "chat_template.json"):
        fields = read_optional_fields(folder / name)
        if fields.has("chat_template"):
            return _checked_template(fields)
    return None


def _checked_template(fields: Fields) -> str | list[dict[str, str]]:
    value = fields.get("chat_template")
    if isinstance(value, str):
        return value
    templates = []
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("name", "template")):
            fields.fail("chat_template", "is neither text nor a list of named templates")
        templates.append({"name": entry["name"], "template": entry["template"]})
    return templates
