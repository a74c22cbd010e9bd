"""A small tokenizer of Gemma 4's kind, and the real one rebuilt from a GGUF vocabulary.

Both are byte-pair encodings over characters: spaces become ▁, an unknown character becomes its UTF-8 bytes, special
tokens have the official ids. The small one learns its merges from the few sentences below.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

SPACE = "▁"
CONTROL, USER_DEFINED = 3, 4  # types of special tokens in GGUF
GGUF_STRING, GGUF_ARRAY = 8, 9
GGUF_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
FIRST_BYTE = 238  # the official place of <0x00>
NEWLINE = 107
MINIMUM = 512  # below this the bytes, the printable characters and some merges do not fit
SPECIAL = {
    0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 4: "<mask>",
    46: "<|tool>", 47: "<tool|>", 48: "<|tool_call>", 49: "<tool_call|>",
    50: "<|tool_response>", 51: "<tool_response|>", 52: '<|"|>',
    98: "<|think|>", 100: "<|channel>", 101: "<channel|>", 105: "<|turn>", 106: "<turn|>",
}  # fmt: skip

TEXT = """The canvas starts as noise, and every step the model reads the whole of it at once. What it is sure of stays
for the next step, and the rest is thrown away and drawn again. After some steps the words stop changing, the canvas is
finished, and the next one begins where it ended. A small model with random weights has nothing to say, but it says it
through the same layers, the same experts and the same sampler as the large one, which is what the tests are here for.
When the numbers agree with the reference, the text will be as good as the weights that were trained. There are three
things to remember about the machine that reads this: it counts from nothing, it never tires, and it does not know
whether the sentence in front of it makes sense. The people who wrote the sentence hope that it does."""

CHAT_TEMPLATE = """{{- bos_token -}}
{%- for message in messages -%}
{{- '<|turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' -}}
{{- message['content'] | trim -}}
{{- '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|turn>model\\n' -}}
{%- endif -%}
"""

Merges = list[tuple[str, str]]


def learn_merges(text: str, most: int) -> Merges:
    """Byte-pair encoding by the book: join the most frequent neighbours (ties: alphabetical), again and again."""
    words = Counter(re.findall(r" ?[^\s]+", " ".join(text.split())))
    split = {word: list(word.replace(" ", SPACE)) for word in words}
    merges: Merges = []
    while len(merges) < most:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in split.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        best, count = min(pairs.items(), key=lambda item: (-item[1], item[0]), default=(("", ""), 0))
        if count < 2:
            break
        merges.append(best)
        split = {word: _join(parts, best) for word, parts in split.items()}
    return merges


def _join(parts: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for part in parts:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def toy_vocabulary(size: int, text: str = TEXT) -> tuple[list[str], Merges]:
    """``size`` tokens by id, and the merges, learned from ``text``. Ids that nothing claims are <unusedN>, as in the
    official vocabulary."""
    if size < MINIMUM:
        raise ValueError(f"vocabulary of {size}: the special tokens, bytes and characters need {MINIMUM}")
    fixed = {**SPECIAL, NEWLINE: "\n", **{FIRST_BYTE + byte: f"<0x{byte:02X}>" for byte in range(256)}}
    free = [i for i in range(NEWLINE, size) if i not in fixed]
    characters = [SPACE, *(chr(code) for code in range(ord("!"), ord("~") + 1))]
    merges = learn_merges(text, len(free) - len(characters))
    learned = dict(zip(free, characters + [a + b for a, b in merges], strict=False))
    names = fixed | learned
    unused = (i for i in range(size) if i not in names)
    names |= {i: f"<unused{n}>" for n, i in enumerate(unused)}
    return [names[i] for i in range(size)], merges


def real_vocabulary(path: Path) -> tuple[list[str], Merges, list[int], str]:
    """Tokens, merges, ids of special tokens and chat template of a GGUF vocabulary."""
    metadata = gguf_metadata(path)
    special = [i for i, kind in enumerate(metadata["tokenizer.ggml.token_type"]) if kind in (CONTROL, USER_DEFINED)]
    merges = []
    for merge in metadata["tokenizer.ggml.merges"]:
        left, right = merge.split(" ")  # no token holds a space: it is written ▁
        merges.append((left, right))
    return metadata["tokenizer.ggml.tokens"], merges, special, metadata["tokenizer.chat_template"]


def gguf_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a GGUF file. (gguf.GGUFReader needs half a minute and 1.4 GB for the real vocabulary.)"""
    with path.open("rb") as file:

        def number(form: str) -> Any:
            return struct.unpack("<" + form, file.read(struct.calcsize(form)))[0]

        def value(kind: int) -> Any:
            if kind == GGUF_STRING:
                return file.read(number("Q")).decode("utf-8")
            if kind == GGUF_ARRAY:
                element, count = number("I"), number("Q")
                return [value(element) for _ in range(count)]
            return number(GGUF_NUMBERS[kind])

        if file.read(4) != b"GGUF":
            raise ValueError(f"{path}: not a GGUF file")
        _version, _tensors, pairs = number("I"), number("Q"), number("Q")
        return {value(GGUF_STRING): value(number("I")) for _ in range(pairs)}


def tokenizer_json(tokens: list[str], merges: Merges, special: list[int]) -> dict[str, Any]:
    """tokenizer.json in the form that the ``tokenizers`` library reads."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": kind}} for kind, name in enumerate("AB"))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": tokens[i], **flags} for i in special],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, first],
            "pair": [bos, first, second],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [list(pair) for pair in merges],
        },
    }


TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "add_bos_token": True,
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 262144,
}
