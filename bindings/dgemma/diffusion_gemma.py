"""The face that scripts know from ``llama-cpp-python``: a model object with completions in OpenAI's shapes.

from dgemma import DiffusionGemma

with DiffusionGemma.from_pretrained("unsloth/diffusiongemma-26B-A4B-it-GGUF", "*Q4_K_M*") as model:
    answer = model.create_chat_completion([{"role": "user", "content": "Why is the sky blue?"}], seed=7)
    print(answer["choices"][0]["message"]["content"])
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, overload

from .answering import Answering, PlainText, Request
from .arguments import sampler_config, stop_strings
from .chat import AnswerMemory, MessageParser, history_ids, settled_length, tool_use
from .conversation import Conversation
from .engine import CardLayers, Engine, KvType
from .errors import RequestError
from .events import Event
from .responses import ChatCompletion, Completion, Response
from .template import ChatTemplate
from .tokenizer import Tokenizer

Messages = Sequence[Mapping[str, Any]]


class DiffusionGemma:
    """A DiffusionGemma GGUF that answers prompts and messages, one at a time.

    ``model_path``, ``n_ctx``, ``n_threads``, ``kv_type``, and ``n_gpu_layers``, ``n_cpu_moe``, ``override_tensor``,
    ``tensor_split``, ``main_gpu`` and ``card_layers`` are as for ``Engine``. ``seed`` is for
    every answer that is given none; None = a new one each time. ``enable_thinking`` lets the model think before it
    answers messages. ``sampler`` are fields of ``GenerationConfig`` in place of the file's: ``max_denoising_steps``,
    ``t_min``, ``t_max``, ``entropy_bound``, ``stability_threshold``, ``confidence_threshold``; every completion takes
    them, too.

    The model keeps the last conversation's cache: a prompt that begins like the one before is encoded from where they
    differ. Raises what ``Engine`` raises, and ``RequestError`` for an argument that it does not have.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        *,
        n_ctx: int | None = None,
        n_gpu_layers: int = -1,
        n_threads: int | None = None,
        kv_type: KvType = "f16",
        n_cpu_moe: int = 0,
        override_tensor: str | Sequence[str] = (),
        tensor_split: Sequence[float] = (),
        main_gpu: int | None = None,
        card_layers: CardLayers = "ggml",
        seed: int | None = None,
        enable_thinking: bool = False,
        **sampler: Any,
    ) -> None:
        self.model_path = os.fspath(model_path)
        self._seed = seed
        self._enable_thinking = enable_thinking
        self._tokenizer = Tokenizer.from_gguf(Path(model_path).expanduser())
        self._engine = Engine(
            model_path,
            n_ctx=n_ctx,
            n_gpu_layers=n_gpu_layers,
            n_threads=n_threads,
            kv_type=kv_type,
            n_cpu_moe=n_cpu_moe,
            override_tensor=override_tensor,
            tensor_split=tensor_split,
            main_gpu=main_gpu,
            card_layers=card_layers,
        )
        self._config = sampler_config(self._engine.config, sampler, type(self).__name__)
        self._conversation: Conversation | None = None
        self._memory = AnswerMemory()
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls, repo_id: str, filename: str | None = None, *, revision: str | None = None, **options: Any
    ) -> DiffusionGemma:
        """A model from the Hugging Face hub, downloaded into its cache where it is not there yet.

        ``filename`` is a file of the repository, or a pattern as in "*Q4_K_M*"; ``repo_id`` may have the quant, too, as
        in "OWNER/NAME:Q4_K_M". ``options`` are those of the class. Raises what ``dgemma.hub.resolve`` raises, too.
        """
        from . import hub  # the hub's library is slow to import

        if filename is not None and "*" in filename:  # the quant is what stands between the stars
            filename = filename.replace("*", "").removesuffix(".gguf").strip("-._/") or None
        return cls(hub.resolve(repo_id, filename, revision), **options)

    @overload
    def create_completion(
        self, prompt: str | Sequence[int], *, stream: Literal[False] = False, **options: Any
    ) -> Response: ...
    @overload
    def create_completion(
        self, prompt: str | Sequence[int], *, stream: Literal[True], **options: Any
    ) -> Iterator[Response]: ...
    def create_completion(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        stream: bool = False,
        echo: bool = False,
        on_event: Callable[[Event], object] | None = None,
        **sampler: Any,
    ) -> Response | Iterator[Response]:
        """Writes on from a prompt as it is: special tokens spelled in its text are special tokens; BOS is put in front.

        ``max_tokens``: None = until the model ends its answer or the context is full. ``stop``: the answer ends before
        the first of these strings. ``echo`` puts the prompt in front of the answer. ``on_event`` sees every denoising
        step (see ``dgemma.visual`` for pictures of them). Returns a dict with "choices", or with ``stream`` an
        iterator of such dicts, block by block.

        Raises ``RequestError`` for an argument that cannot be honoured, before anything is computed.
        """
        ids = self._prompt_ids(prompt)
        shown = (prompt if isinstance(prompt, str) else self._tokenizer.decode(ids)) if echo else ""
        request = self._request(ids, "create_completion", max_tokens, stop, seed, on_event, sampler)
        answering = Answering(self._conversation_at_hand(), self._lock, request, PlainText(self._tokenizer))
        completion = Completion(answering, self.model_path, shown)
        return completion.chunks() if stream else completion.whole()

    @overload
    def create_chat_completion(
        self, messages: Messages, *, stream: Literal[False] = False, **options: Any
    ) -> Response: ...
    @overload
    def create_chat_completion(
        self, messages: Messages, *, stream: Literal[True], **options: Any
    ) -> Iterator[Response]: ...
    def create_chat_completion(
        self,
        messages: Messages,
        *,
        tools: Messages | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        stream: bool = False,
        enable_thinking: bool | None = None,
        on_event: Callable[[Event], object] | None = None,
        **sampler: Any,
    ) -> Response | Iterator[Response]:
        """Answers a conversation. Other arguments, results and errors are as in ``create_completion``.

        ``messages``, ``tools`` and what comes back are in OpenAI's shapes; tool results go back as messages of the role
        "tool". Thoughts come as "reasoning_content" and are left out when the answer is sent back. ``tool_choice``:
        "auto", "none", "required" or a function, with which the answer begins as a call of it. ``enable_thinking``:
        None = as the model was opened with.
        """
        thinking = self._enable_thinking if enable_thinking is None else enable_thinking
        use = tool_use(tools, tool_choice)
        if use.opening and thinking:
            raise RequestError("tool_choice makes the answer begin as a call, so that no thought can stand before it")
        told = self._memory.recall(messages)
        shared: dict[str, Any] = {"tools": use.offered, "enable_thinking": thinking}
        prompt = history_ids(self._template, self._tokenizer, told, **shared)
        settled = settled_length(self._template, self._tokenizer, told, prompt, **shared)
        opening = self._tokenizer.encode(use.opening, add_bos=False)
        parser = MessageParser(self._tokenizer, tool_calls=use.calls)
        parser.feed(opening)
        prompt += opening
        request = self._request(prompt, "create_chat_completion", max_tokens, stop, seed, on_event, sampler, settled)
        answering = Answering(self._conversation_at_hand(), self._lock, request, parser)
        completion = ChatCompletion(answering, parser, self._memory, self.model_path)
        return completion.chunks() if stream else completion.whole()

    __call__ = create_completion

    def tokenize(self, text: str | bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """The ids of a text; ``special`` makes special tokens of those spelled in it."""
        if isinstance(text, bytes):
            try:
                text = text.decode()
            except UnicodeDecodeError as error:
                raise RequestError(f"the text is not UTF-8: byte {error.start} is no part of it") from None
        return self._tokenizer.encode(text, add_bos, special)

    def detokenize(self, tokens: Sequence[int], special: bool = False) -> bytes:
        """The bytes of ids; without ``special`` control tokens are left out."""
        return self._tokenizer.decode_bytes(tokens, skip_special=not special)

    def n_ctx(self) -> int:
        """How many tokens prompt and answer may have together."""
        return self._engine.n_ctx

    def n_vocab(self) -> int:
        return self._tokenizer.vocab_size

    def token_bos(self) -> int:
        return self._tokenizer.bos_id

    def token_eos(self) -> int | None:
        return self._tokenizer.eos_id

    def close(self) -> None:
        """Lets go of the model and its cache. Closing twice is fine."""
        self._conversation = None
        self._engine.close()

    def __enter__(self) -> DiffusionGemma:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate.from_tokenizer(self._tokenizer)

    def _prompt_ids(self, prompt: str | Sequence[int]) -> list[int]:
        if isinstance(prompt, str):
            return self._tokenizer.encode(prompt)
        try:
            return [int(token) for token in prompt]
        except (TypeError, ValueError):
            raise RequestError(f"prompt must be text or a list of token ids, not {prompt!r:.80}") from None

    def _request(
        self,
        prompt: list[int],
        function: str,
        max_tokens: int | None,
        stop: str | Sequence[str] | None,
        seed: int | None,
        on_event: Callable[[Event], object] | None,
        sampler: Mapping[str, Any],
        settled: int | None = None,
    ) -> Request:
        """The arguments of ``function``, checked; what was left out has its default."""
        config = sampler_config(self._config, sampler, function)
        if max_tokens is None:
            max_tokens = max(1, self.n_ctx() - len(prompt))
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
            raise RequestError(f"max_tokens must be at least 1, or None for as many as fit, not {max_tokens!r}")
        if seed is None:
            seed = secrets.randbits(32) if self._seed is None else self._seed
        return Request(prompt, max_tokens, seed, config, stop_strings(stop), on_event, settled)

    def _conversation_at_hand(self) -> Conversation:
        if self._conversation is None:
            self._conversation = Conversation(self._engine)
        return self._conversation
