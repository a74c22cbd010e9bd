"""tokenizer.json, the chat template and the model card, as the file's keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import edit_json, leftovers, read_gguf

from dgemma import CheckpointError, Tokenizer
from dgemma.convert import convert

Json = dict[str, Any]
KEY = "tokenizer.ggml."


def converted(folder: Path, out: Path) -> Json:
    convert(folder, out, force=True)
    return read_gguf(out)[0]


def test_arrays(pristine: Path, out: Path) -> None:
    metadata = converted(pristine, out)
    source = json.loads((pristine / "tokenizer.json").read_text())
    tokens = metadata[KEY + "tokens"]
    assert {token: i for i, token in enumerate(tokens)} == source["model"]["vocab"]
    assert metadata[KEY + "model"] == "gemma4"
    assert metadata[KEY + "scores"] == [-1000.0] * 512
    assert metadata[KEY + "merges"] == [f"{a} {b}" for a, b in source["model"]["merges"]]
    types = dict(zip(tokens, metadata[KEY + "token_type"], strict=True))
    # as in the published vocabulary: <unk> is a control token, and the marks of thoughts and tools are not
    assert {t for t, kind in types.items() if kind == 3} == {
        "<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|tool>", "<tool|>", "<|think|>", "<|turn>", "<turn|>",
    }  # fmt: skip
    assert {t for t, kind in types.items() if kind == 4} == {
        "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>', "<|channel>", "<channel|>",
    }  # fmt: skip
    assert {t for t, kind in types.items() if kind == 6} == {f"<0x{byte:02X}>" for byte in range(256)}
    assert set(types.values()) == {1, 3, 4, 6}
    ids = {key: metadata[f"{KEY}{key}_token_id"] for key in ("bos", "eos", "eot", "unknown", "padding", "mask")}
    assert ids == {"bos": 2, "eos": 1, "eot": 106, "unknown": 3, "padding": 0, "mask": 4}
    assert (metadata[KEY + "add_bos_token"], metadata[KEY + "add_space_prefix"]) == (True, False)


def test_the_runtime_tokenizer_reads_what_the_converter_writes(pristine: Path, out: Path) -> None:
    metadata = converted(pristine, out)
    # as the engine hands out arrays of numbers
    arrays = {key: np.array(metadata[key]) for key in (KEY + "token_type", "diffusion.eos_token_ids")}
    tokenizer = Tokenizer.from_metadata({**metadata, **arrays}, str(out))
    text = "<|turn>user\nthe canvas é\n<turn|>"
    ids = tokenizer.encode(text)
    assert ids[:2] == [2, 105]
    assert ids[-1] == 106
    assert tokenizer.decode(ids[1:]) == text
    assert set(tokenizer.eos_ids) == {1, 106, 50}


def test_ids_without_a_token_are_padding(checkpoint: Path, out: Path) -> None:
    edit_json(checkpoint / "tokenizer.json", lambda file: file["model"]["vocab"].pop("<unused0>"))
    metadata = converted(checkpoint, out)
    assert metadata[KEY + "tokens"][5] == "[PAD5]"
    assert metadata[KEY + "token_type"][5] == 5


def test_a_token_that_is_added_only(checkpoint: Path, out: Path) -> None:
    def move(file: Json) -> None:
        del file["model"]["vocab"]["<unused0>"]
        file["added_tokens"].append({"id": 5, "content": "[extra]", "special": False})

    edit_json(checkpoint / "tokenizer.json", move)
    metadata = converted(checkpoint, out)
    assert (metadata[KEY + "tokens"][5], metadata[KEY + "token_type"][5]) == ("[extra]", 4)


def test_merges_in_either_form(checkpoint: Path, out: Path) -> None:
    first = converted(checkpoint, out)[KEY + "merges"]
    edit_json(checkpoint / "tokenizer.json", lambda file: file["model"].update(merges=first))
    assert converted(checkpoint, out)[KEY + "merges"] == first
    edit_json(checkpoint / "tokenizer.json", lambda file: file["model"].update(merges=[["a b", " "], ["c", "d"]]))
    assert converted(checkpoint, out)[KEY + "merges"] == ["a\u0120b \u0120", "c d"]


def test_special_tokens_named_as_objects_or_by_the_config(checkpoint: Path, out: Path) -> None:
    edit_json(checkpoint / "tokenizer_config.json", lambda file: file.update(bos_token={"content": "<mask>"}))
    assert converted(checkpoint, out)[KEY + "bos_token_id"] == 4
    (checkpoint / "tokenizer_config.json").unlink()
    metadata = converted(checkpoint, out)
    assert (metadata[KEY + "bos_token_id"], metadata[KEY + "padding_token_id"]) == (2, 0)
    assert KEY + "mask_token_id" not in metadata


BAD: list[tuple[Callable[[Json], object], str]] = [
    (lambda f: f["model"].update(type="Unigram"), "model.type is 'Unigram'"),
    (lambda f: f["model"].update(byte_fallback=False), "model.byte_fallback"),
    (lambda f: f["model"]["vocab"].update(more=512), "'more' the id 512, but config.json's vocab_size is 512"),
    (lambda f: f["model"]["vocab"].update(more=-1), "'more' the id -1"),
    (lambda f: f["model"]["vocab"].update(more="5"), "'more' the id '5'"),
    (lambda f: f["model"]["vocab"].update(more=5), "the id 5 to both '<unused0>' and 'more'"),
    (lambda f: f["model"].update(vocab=[]), "model.vocab must be an object"),
    (lambda f: f["model"].update(merges=[]), "model.merges is empty"),
    (lambda f: f["model"].update(merges=["abc"]), "model.merges holds 'abc'"),
    (lambda f: f["model"].update(merges=[["a", 1]]), "model.merges holds ['a', 1]"),
    (lambda f: f.pop("added_tokens"), "added_tokens is missing"),
    (lambda f: f.update(added_tokens=["x"]), "added_tokens holds 'x'"),
    (lambda f: f.update(added_tokens=[{"id": "x", "content": "y"}]), "added_tokens: id is 'x'"),
    (lambda f: f.update(added_tokens=[{"id": 0, "content": "y"}]), "the id 0 to both '<pad>' and 'y'"),
]


@pytest.mark.parametrize(("edit", "cause"), BAD)
def test_bad_tokenizer(checkpoint: Path, out: Path, edit: Callable[[Json], object], cause: str) -> None:
    edit_json(checkpoint / "tokenizer.json", edit)
    with pytest.raises(CheckpointError) as error:
        convert(checkpoint, out)
    assert str(error.value).startswith(f"{checkpoint / 'tokenizer.json'}: ")
    assert cause in str(error.value)
    assert leftovers(out.parent) == []


def test_half_of_a_surrogate_pair(checkpoint: Path, out: Path) -> None:
    edit_json(checkpoint / "tokenizer.json", lambda file: file["model"]["vocab"].update({"\U0001f600": 5}))
    with pytest.raises(CheckpointError, match="the id 5 to both"):  # a whole pair is text
        convert(checkpoint, out)
    edit_json(checkpoint / "tokenizer.json", lambda file: file["model"]["vocab"].update({"\ud83d": 5}))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not valid JSON"):
        convert(checkpoint, out)
    assert leftovers(out.parent) == []


def test_a_special_token_that_is_no_token(checkpoint: Path, out: Path) -> None:
    edit_json(checkpoint / "tokenizer_config.json", lambda file: file.update(unk_token="<what>"))
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: unk_token is '<what>'"):
        convert(checkpoint, out)


def test_no_end_token_anywhere(checkpoint: Path, out: Path) -> None:
    edit_json(checkpoint / "generation_config.json", lambda file: file.pop("eos_token_id"))
    edit_json(
        checkpoint / "config.json", lambda file: (file.pop("eos_token_id"), file["text_config"].pop("eos_token_id"))
    )
    metadata = converted(checkpoint, out)  # the tokenizer's own is left
    assert (metadata[KEY + "eos_token_id"], metadata["diffusion.eos_token_ids"]) == (1, [1])
    (checkpoint / "tokenizer_config.json").unlink()
    out.unlink()
    with pytest.raises(CheckpointError, match=r"eos_token_id is missing, in generation_config\.json too"):
        convert(checkpoint, out)
    assert leftovers(out.parent) == []


def test_chat_template_from_the_first_place_that_has_one(checkpoint: Path, out: Path) -> None:
    template = (checkpoint / "chat_template.jinja").read_text()
    (checkpoint / "chat_template.json").write_text(json.dumps({"chat_template": "third"}))
    edit_json(checkpoint / "tokenizer_config.json", lambda file: file.update(chat_template="second"))
    assert converted(checkpoint, out)["tokenizer.chat_template"] == template
    (checkpoint / "chat_template.jinja").unlink()
    assert converted(checkpoint, out)["tokenizer.chat_template"] == "second"
    edit_json(checkpoint / "tokenizer_config.json", lambda file: file.pop("chat_template"))
    assert converted(checkpoint, out)["tokenizer.chat_template"] == "third"
    (checkpoint / "chat_template.json").unlink()
    assert "tokenizer.chat_template" not in converted(checkpoint, out)


def test_named_chat_templates(checkpoint: Path, out: Path) -> None:
    (checkpoint / "chat_template.jinja").unlink()
    templates = [{"name": "default", "template": "one"}, {"name": "tool_use", "template": "two"}]
    edit_json(checkpoint / "tokenizer_config.json", lambda file: file.update(chat_template=templates))
    metadata = converted(checkpoint, out)
    assert metadata["tokenizer.chat_template"] == "one"
    assert metadata["tokenizer.chat_template.tool_use"] == "two"
    edit_json(checkpoint / "tokenizer_config.json", lambda file: file.update(chat_template=[{"name": "x"}]))
    with pytest.raises(CheckpointError, match=r"chat_template is neither text nor a list"):
        convert(checkpoint, out, force=True)


@pytest.mark.parametrize(
    "front", ["name: [unclosed", "name: [a, b]", "license: {a: 1}", "base_model: [{name: {a: 1}}]"]
)
def test_a_model_card_that_cannot_be_used(checkpoint: Path, out: Path, front: str) -> None:
    (checkpoint / "README.md").write_text(f"---\n{front}\n---\n")
    with pytest.raises(CheckpointError) as error:
        convert(checkpoint, out)
    assert str(error.value).startswith(f"{checkpoint / 'README.md'}: the front matter cannot be read (")
    assert "\n" not in str(error.value)
    assert leftovers(out.parent) == []


def test_a_model_card_of_a_fine_tune(checkpoint: Path, out: Path) -> None:
    front = (
        "version: 1.5\nbase_model: owner/diffusion-base-26B\nlanguage: [en, no]\ntags: [x, 2]\ndatasets: [owner/texts]"
    )
    (checkpoint / "README.md").write_text(f"---\n{front}\n---\n")
    metadata = converted(checkpoint, out)
    assert metadata["general.version"] == "1.5"
    assert metadata["general.tags"] == ["x", "2"]
    assert metadata["general.base_model.0.repo_url"] == "https://huggingface.co/owner/diffusion-base-26B"
    assert metadata["general.dataset.0.repo_url"] == "https://huggingface.co/owner/texts"


def test_a_checkpoint_without_model_card_is_named_after_its_folder(checkpoint: Path, out: Path) -> None:
    (checkpoint / "README.md").unlink()
    assert converted(checkpoint, out)["general.name"] == "Model"
