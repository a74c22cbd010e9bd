"""``dgemma run`` with an engine that only pretends: what goes in, what is shown, how it ends."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

import dgemma
from dgemma import BlockEvent, ContextError, DoneEvent, GenerationConfig, GenerationStats, StepEvent, Tokenizer
from dgemma.cli import app
from dgemma.cli.prompt import read_prompt
from dgemma.cli.refused import SENTENCES
from dgemma.events import Event


class FakeEngine:
    """Yields the class's ``script``, raising where it holds an exception; remembers how it was called."""

    config = GenerationConfig(confidence_threshold=0.25)
    plan = SimpleNamespace(memory={"CPU": {"weights": 1}}, layers=[], head="CPU")
    script: list[Event | BaseException]
    calls: dict[str, Any]

    def __init__(self, path: str, **options: object) -> None:
        FakeEngine.calls = {"path": path, **options}

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.calls["closed"] = True

    def generate(self, tokens: list[int], **options: object) -> Generator[Event, None, None]:
        self.calls.update(options, tokens=tokens)
        for event in self.script:
            if isinstance(event, BaseException):
                raise event
            yield event


def step(block: int, number: int) -> StepEvent:
    canvas, accepted, entropy = np.zeros(4, np.int32), np.zeros(4, np.bool_), np.zeros(4, np.float32)
    return StepEvent(block, number, 0.8, canvas, accepted, entropy, canvas)


@pytest.fixture
def tokenizer(metadata: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Tokenizer:
    """The small vocabulary, and an engine that answers "hello é hello" in two blocks, cut inside the "é"."""
    tokenizer = Tokenizer.from_metadata(metadata, "small.gguf")
    monkeypatch.setattr(Tokenizer, "from_gguf", lambda path: Tokenizer.from_metadata(metadata, path))
    monkeypatch.setitem(dgemma.__dict__, "Engine", FakeEngine)
    ids = tokenizer.encode("hello é hello", add_bos=False)
    blocks = [BlockEvent(0, ids[:3]), BlockEvent(1, ids[3:])]
    stats = GenerationStats(4, len(ids), 2, 3, encode_seconds=0.5, denoise_seconds=0.3, wall_seconds=1.25)
    done = DoneEvent("stop", 1, stats)
    FakeEngine.script = [step(0, 1), step(0, 2), blocks[0], step(1, 1), blocks[1], done]
    return tokenizer


def invoke(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["run", "-m", "small.gguf", *arguments], input=stdin)


def test_answer_on_stdout_and_summary_on_stderr(tokenizer: Tokenizer) -> None:
    result = invoke("-p", "hello", "-s", "7")
    assert (result.exit_code, result.stdout) == (0, "hello é hello\n")
    assert result.stderr == "5 tokens, 3 steps, 100.0 ms a step, 4.00 tokens/s, seed 7\n"
    assert FakeEngine.calls == {
        "path": "small.gguf",
        "n_gpu_layers": -1,
        "n_threads": None,
        "tokens": tokenizer.encode("[user]hello"),
        "max_new_tokens": 512,
        "seed": 7,
        "config": None,
        "closed": True,
    }


@pytest.mark.usefixtures("tokenizer")
def test_flags_of_llama_diffusion_cli() -> None:
    result = invoke(*["-p", "hi", "-n", "5", "-ngl", "3", "-t", "2", "-c", "99", "--seed", "8"])
    assert result.exit_code == 0
    expected = {"max_new_tokens": 5, "n_gpu_layers": 3, "n_threads": 2, "n_ctx": 99, "seed": 8}
    assert FakeEngine.calls.items() >= expected.items()
    assert invoke("-p", "hi", "-n9", "-ngl", "-1").exit_code == 0
    assert FakeEngine.calls.items() >= {"max_new_tokens": 9, "n_gpu_layers": -1}.items()


@pytest.mark.usefixtures("tokenizer")
def test_flags_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    result = invoke(
        "-p", "hi", "-ngl", "all", "-ncmoe", "3", "-ot", "a=CPU,b=GPU1", "-ot", "c=CPU", "-ts", "3/1", "-mg", "0"
    )
    assert result.exit_code == 0, result.output
    places = {"n_cpu_moe": 3, "override_tensor": ["a=CPU", "b=GPU1", "c=CPU"], "tensor_split": [3, 1], "main_gpu": 0}
    assert FakeEngine.calls.items() >= {"n_gpu_layers": 2**31 - 1, **places}.items()
    assert "card_layers" not in FakeEngine.calls
    assert invoke("-p", "hi", "-cmoe", "--gpu-layers", "auto", "--card-layers", "own").exit_code == 0
    assert FakeEngine.calls.items() >= {"n_gpu_layers": -1, "n_cpu_moe": -1, "card_layers": "own"}.items()

    monkeypatch.setattr(FakeEngine, "plan", SimpleNamespace(
        memory={"CPU": {"weights": 10**9}, "GPU0": {"weights": 2 * 10**9, "kv": 10**9}},
        layers=[SimpleNamespace(device="GPU0", experts="CPU")] * 2,
        head="GPU0",
    ))  # fmt: skip
    said = invoke("-p", "hi").stderr
    assert "layers 0 to 1: GPU0, experts on CPU; head: GPU0 (CPU 1.0 GB, GPU0 3.0 GB)\n" in said


@pytest.mark.usefixtures("tokenizer")
def test_warnings_are_lines_like_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = FakeEngine.__init__

    def warn(self: FakeEngine, path: str, **options: object) -> None:
        for said in ("there is no GPU", "there is no GPU", "and no time"):  # the same words once
            warnings.warn(said, stacklevel=2)
        begin(self, path, **options)

    monkeypatch.setattr(FakeEngine, "__init__", warn)
    assert invoke("-p", "hi").stderr.startswith("dgemma: there is no GPU\ndgemma: and no time\n5 tokens")


def test_system_prompt_and_raw(tokenizer: Tokenizer) -> None:
    assert invoke("-p", "hi", "-sys", "be brief").exit_code == 0
    assert tokenizer.decode(FakeEngine.calls["tokens"]) == "<bos>[system]be brief[user]hi"
    assert invoke("-p", "hi <|turn>", "--raw").exit_code == 0
    assert tokenizer.decode(FakeEngine.calls["tokens"]) == "<bos>hi <|turn>"
    assert FakeEngine.calls["tokens"][-1] == tokenizer.token_to_id("<|turn>")


def test_thinking_reaches_the_template(tokenizer: Tokenizer, metadata: dict[str, Any]) -> None:
    metadata["tokenizer.chat_template"] = "{{ 'think' if enable_thinking else 'answer' }}"
    for flags, prompt in ((["--thinking", "on"], "<bos>think"), ([], "<bos>answer")):
        assert invoke("-p", "hi", *flags).exit_code == 0
        assert tokenizer.decode(FakeEngine.calls["tokens"]) == prompt


@pytest.mark.usefixtures("tokenizer")
def test_numbers_of_the_sampler() -> None:
    numbers = {"max-steps": 9, "t-min": 0.1, "t-max": 0.9, "entropy-bound": 0.3, "stability": 2, "confidence": 0.01}
    flags = [part for name, value in numbers.items() for part in (f"--diffusion-eb-{name}", str(value))]
    assert invoke("-p", "hi", *flags).exit_code == 0
    assert FakeEngine.calls["config"] == GenerationConfig(9, 0.1, 0.9, 0.3, 2, 0.01)
    assert invoke("-p", "hi", "--diffusion-steps", "7").exit_code == 0
    assert FakeEngine.calls["config"] == GenerationConfig(max_denoising_steps=7, confidence_threshold=0.25)
    refused = invoke("-p", "hi", "--diffusion-eb-t-max", "0.2")
    assert (refused.exit_code, refused.stderr) == (1, "dgemma: t_min must be at most t_max (0.2), not 0.4\n")


@pytest.mark.parametrize("flag", sorted(SENTENCES))
def test_flags_of_other_runners_name_the_one_to_use(flag: str) -> None:
    result = invoke("-p", "hi", f"{flag}=1" if flag.startswith("--") else flag)
    assert result.exit_code == 2
    words = "".join(result.stderr.replace("│", "").split())
    assert f"Invalid value for {flag}: {SENTENCES[flag]}".replace(" ", "") in words


@pytest.mark.usefixtures("tokenizer")
@pytest.mark.parametrize("flag", ["--top-k=5", "--temp"])
def test_a_question_may_be_about_a_flag(flag: str) -> None:
    assert invoke("-p", flag).exit_code == 0


@pytest.mark.usefixtures("tokenizer")
@pytest.mark.parametrize("flags", [["--diffusion-visual"], ["--no-color"], ["--thinking", "hide"]])
def test_a_pipe_gets_plain_text(flags: list[str]) -> None:
    result = invoke("-p", "hi", "-s", "7", *flags)
    assert (result.exit_code, result.stdout) == (0, "hello é hello\n")
    assert "\x1b" not in result.stderr


def test_help_fits_two_screens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = CliRunner().invoke(app, ["run", "--help"]).stdout.splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 80
    for group in ("Model", "Prompt", "Answer", "Devices", "Denoising", "Output"):
        assert any(line.startswith(f"╭─ {group}") for line in lines)
    names = [line.split()[1] for line in lines if line.startswith("│ --")]
    assert len(names) == 33
    assert not any(name.endswith("…") for name in names)  # none is cut short


def test_model_from_the_hub(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgemma.hub.resolve", lambda spec: Path("fetched") / spec.partition(":")[2])
    assert CliRunner().invoke(app, ["run", "-hf", "owner/name:Q4_K_M", "-p", "hi"]).exit_code == 0
    assert FakeEngine.calls["path"] == str(Path("fetched/Q4_K_M"))


def test_prompt_file_and_pipe_are_joined(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("from a file\n")
    assert invoke("--raw", "-p", "sum up", "-f", str(tmp_path / "notes.txt"), stdin="piped\n").exit_code == 0
    assert tokenizer.decode(FakeEngine.calls["tokens"]) == "<bos>sum up\n\nfrom a file\n\npiped"
    assert invoke("--raw", "-p", "alone", stdin="").exit_code == 0
    assert tokenizer.decode(FakeEngine.calls["tokens"]) == "<bos>alone"
    missing = invoke("-f", str(tmp_path / "none.txt"))
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)
    assert "none.txt cannot be read: No such file or directory" in missing.stderr


def test_prompt_from_stdin(tokenizer: Tokenizer) -> None:
    assert invoke("--raw", stdin="hello\n\n").exit_code == 0
    assert tokenizer.decode(FakeEngine.calls["tokens"]) == "<bos>hello\n"


def test_no_prompt_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    with pytest.raises(typer.BadParameter, match="give a prompt with -p or -f, or pipe one in"):
        read_prompt(None, None, chat=False)
    assert read_prompt(None, None, chat=True) is None


@pytest.mark.usefixtures("tokenizer")
@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        ([], "", "dgemma: the prompt is empty"),
        (["-p", " \n"], None, "dgemma: the prompt is empty"),
        ([], b"a\xff", "dgemma: the prompt on stdin is not UTF-8"),
    ],
)
def test_prompts_that_cannot_be_used(arguments: list[str], stdin: str | bytes | None, message: str) -> None:
    result = invoke(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("tokenizer")
@pytest.mark.parametrize(
    "arguments",
    [
        "-p hi -n 0",
        "-p hi -n five",
        "-p hi -s -2",
        "-p hi --raw -sys x",
        "-p hi --raw --thinking on",
        "-p hi --thinking maybe",
        "-p hi --diffusion-eb-t-min -1",
        "-p hi --diffusion-visual-interval 0",
        "-p hi -hf owner/name",
        "--raw -cnv",
        "-cnv --json",
        "-q",
    ],
)
def test_wrong_command_lines(arguments: str) -> None:
    assert invoke(*arguments.split()).exit_code == 2


@pytest.mark.usefixtures("tokenizer")
def test_no_model_is_a_wrong_command_line() -> None:
    assert CliRunner().invoke(app, ["run", "-p", "hi"]).exit_code == 2


def test_json(tokenizer: Tokenizer) -> None:
    result = invoke("-p", "hi", "--json", "-s", "7")
    report = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert report["text"] == "hello é hello"
    assert report["tokens"] == tokenizer.encode("hello é hello", add_bos=False)
    assert (report["reason"], report["seed"]) == ("stop", 7)
    assert report["stats"] == {
        "prompt_tokens": 4,
        "new_tokens": 5,
        "blocks": 2,
        "steps": 3,
        "encode_seconds": 0.5,
        "denoise_seconds": 0.3,
        "wall_seconds": 1.25,
        "ms_per_step": 100.0,
        "tokens_per_second": 4.0,
    }


@pytest.mark.usefixtures("tokenizer")
def test_seeds_differ_unless_given() -> None:
    seeds = {json.loads(invoke("-p", "hi", "--json").stdout)["seed"] for _ in range(3)}
    assert len(seeds) == 3
    assert min(seeds) >= 0


@pytest.mark.usefixtures("tokenizer")
@pytest.mark.parametrize(("reason", "words"), [("length", "token limit (-n)"), ("context", "context is full (-c)")])
def test_why_an_answer_stopped_early(reason: Any, words: str) -> None:
    FakeEngine.script[-1] = DoneEvent(reason, None, GenerationStats(4, 5, 2, 3, 0.5, 0.3, 1.25))
    assert words in invoke("-p", "hi").stderr


@pytest.mark.usefixtures("tokenizer")
@pytest.mark.parametrize("stop", [KeyboardInterrupt(), dgemma.Cancelled("stopped")])
def test_interrupted_answers_keep_what_has_arrived(stop: BaseException) -> None:
    FakeEngine.script[3:] = [step(1, 1), stop]
    result = invoke("-p", "hi", "-s", "7")
    assert (result.exit_code, result.stdout) == (130, "hello \ufffd\n")
    assert result.stderr == "3 tokens, 3 steps, interrupted, seed 7\n"
    assert FakeEngine.calls["closed"]
    report = json.loads(invoke("-p", "hi", "--json").stdout)
    assert report["reason"] == "cancelled"
    assert report["stats"] == {"prompt_tokens": 9, "new_tokens": 3, "blocks": 1, "steps": 3}


@pytest.mark.usefixtures("tokenizer")
def test_an_error_in_the_middle_is_one_line() -> None:
    FakeEngine.script[0] = ContextError("the prompt has 9000 tokens, more than the 8192 of the context")
    result = invoke("-p", "hi")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "dgemma: the prompt has 9000 tokens, more than the 8192 of the context\n"


@pytest.mark.usefixtures("tokenizer")
def test_an_empty_answer() -> None:
    FakeEngine.script = [step(0, 1), BlockEvent(0, []), DoneEvent("stop", 1, GenerationStats(4, 0, 1, 1, 0, 0, 0))]
    result = invoke("-p", "hi", "-s", "1")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "0 tokens, 1 step, 0.0 ms a step, 0.00 tokens/s, seed 1\n"


def test_a_file_without_a_template(tokenizer: Tokenizer, metadata: dict[str, Any]) -> None:
    del metadata["tokenizer.chat_template"]
    result = invoke("-p", "hi")
    assert result.exit_code == 1
    assert "small.gguf: tokenizer.chat_template is missing" in result.stderr
    assert invoke("-p", "hi", "--raw").exit_code == 0
