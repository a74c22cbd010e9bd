"""The chat in process: an engine with scripted canvases, commands, and what happens when something goes wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from scripted import ScriptedEngine, answer, step, vocabulary
from typer.testing import CliRunner, Result

import dgemma
from dgemma import BackendError, ContextError, Error, FileError, RequestError, Tokenizer
from dgemma.chat import Delta
from dgemma.cli import app
from dgemma.cli.chat_commands import COMMANDS, Leave, execute, is_command
from dgemma.cli.chat_state import ChatState
from dgemma.cli.options import Thinking
from dgemma.cli.settings import Settings
from dgemma.conversation import Conversation
from dgemma.events import BlockEvent
from dgemma.template import ChatTemplate


class Chat:
    """A chat without a terminal: what would be printed is kept."""

    def __init__(self, engine: ScriptedEngine | None = None, **settings: Any) -> None:
        self.engine: Any = engine or ScriptedEngine()
        self.tokenizer = Tokenizer.from_metadata(vocabulary(), "toy.gguf")
        template = ChatTemplate.from_tokenizer(self.tokenizer)
        conversation = Conversation(self.engine)
        given = {"seed": 5, **settings}
        self.state = ChatState(self.engine, conversation, self.tokenizer, template, Settings("toy.gguf", **given))
        self.seen = ""

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_bos=False)

    def says(self, *blocks: str, **options: Any) -> None:
        """Add the answer to come."""
        self.engine.scripts.append(answer(*map(self.ids, blocks), **options))

    def show(self, event: object, pieces: Any) -> None:
        self.seen += "".join(piece.text for piece in pieces if isinstance(piece, Delta) and piece.kind == "text")

    def ask(self, text: str) -> str:
        self.seen = ""
        self.state.ask(text, self.show)
        return self.seen

    def command(self, line: str) -> str:
        self.seen = ""
        return execute(line, self.state, self.show)

    @property
    def contents(self) -> list[str]:
        return [message["content"] for message in self.state.messages]


@pytest.fixture
def chat() -> Chat:
    return Chat()


def test_a_conversation_is_encoded_once(chat: Chat) -> None:
    for number in range(5):
        chat.says(f"answer {number}, ", "in two blocks")
        assert chat.ask(f"question {number}") == f"answer {number}, in two blocks"
    assert len(chat.state.messages) == 10
    assert chat.tokenizer.decode(chat.engine.encoded) == chat.tokenizer.decode(chat.state.conversation.ids)
    assert chat.state.conversation.stats.encoded_tokens == len(chat.engine.encoded)
    assert chat.state.conversation.stats.reencodings == 0


def test_a_thought_is_not_put_back(chat: Chat) -> None:
    chat.says("<|channel>thought\nhow, why<channel|>", "because")
    assert chat.ask("why?") == "because"
    chat.says("yes")
    chat.ask("sure?")
    prompt = chat.tokenizer.decode(chat.state.conversation.ids)
    assert "because" in prompt
    assert "how, why" not in prompt


def test_settings_of_an_answer() -> None:
    chat = Chat(max_new_tokens=9, sampler={"entropy_bound": 0.5})
    chat.says("a")
    chat.ask("q")
    [call] = chat.engine.calls
    assert (call["n"], call["seed"], call["config"].entropy_bound) == (9, 5, 0.5)


def test_each_answer_has_the_next_seed(chat: Chat) -> None:
    for text in "abcd":
        chat.says(text)
    chat.ask("one")
    chat.ask("two")
    assert chat.command("/seed") == "the last answer's seed was 6"
    assert "42" in chat.command("/seed 42")
    chat.ask("three")
    chat.command("/regen")
    assert [call["seed"] for call in chat.engine.calls] == [5, 6, 42, 43]


def test_help_names_every_command_and_the_keys(chat: Chat) -> None:
    text = chat.command("/help")
    assert all(name in text for name in COMMANDS)
    assert all(key in text for key in ("Alt-Enter", "backslash", "Ctrl-C", "Ctrl-D"))
    assert max(map(len, text.splitlines())) < 80


def test_clear(chat: Chat) -> None:
    chat.state.change(system="be brief")
    chat.says("a")
    chat.says("b")
    chat.ask("one")
    chat.command("/clear")
    chat.ask("two")
    assert chat.contents == ["two", "b"]
    prompt = chat.tokenizer.decode(chat.state.conversation.ids)
    assert "be brief" in prompt
    assert "one" not in prompt


def test_system(chat: Chat) -> None:
    assert "no system prompt" in chat.command("/system")
    chat.command("/system be brief, please")
    assert chat.command("/system") == "be brief, please"
    chat.says("a")
    chat.ask("q")
    assert "<|turn>system\nbe brief, please<turn|>" in chat.tokenizer.decode(chat.state.conversation.ids)


def test_thinking(chat: Chat) -> None:
    assert chat.command("/thinking") == "thinking is off"
    chat.command("/thinking on")
    chat.says("a")
    chat.ask("q")
    assert chat.tokenizer.decode(chat.state.conversation.ids).endswith("<|turn>model\nthink")
    chat.command("/thinking hide")
    assert chat.state.settings.thinking is Thinking.hide


def test_regen_replaces_the_answer(chat: Chat) -> None:
    chat.says("first")
    chat.says("second")
    chat.ask("q")
    chat.command("/regen")
    assert chat.seen == "second"
    assert chat.contents == ["q", "second"]


def test_stats(chat: Chat) -> None:
    chat.says("four")
    chat.ask("q")
    chat.says("more")
    chat.ask("r")
    rows = dict(re.split(" {2,}", line) for line in chat.command("/stats").splitlines())
    assert rows["tokens encoded"] == str(len(chat.engine.encoded))
    assert int(rows["tokens reused"]) > 0
    assert (rows["re-encodings"], rows["steps"], rows["answers"]) == ("0", "2", "2")
    assert rows["tokens a second"] == "2.00"


def test_save_and_load(chat: Chat, tmp_path: Path) -> None:
    chat.state.change(system="be brief", thinking=Thinking.hide)
    chat.says("a")
    chat.ask("q")
    path = tmp_path / "chat"
    assert chat.command(f"/save {path}") == f"saved as {path}"
    other = Chat(seed=99)
    assert other.command(f"/load {path}") == f"loaded {path}: 2 messages"
    assert other.contents == ["q", "a"]
    assert (other.state.settings.system, other.state.settings.thinking) == ("be brief", Thinking.hide)
    other.says("b")
    other.ask("r")
    assert other.engine.calls[0]["seed"] == 6  # the row of seeds goes on
    assert other.state.conversation.stats.reused_tokens > 10


def test_save_without_a_name_is_the_prompt_cache(tmp_path: Path) -> None:
    chat = Chat(prompt_cache=tmp_path / "cache")
    chat.command("/save")
    assert (tmp_path / "cache").exists()
    with pytest.raises(RequestError, match="name a file"):
        Chat().command("/save")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/foo", "there is no command /foo: /help lists them"),
        ("/", "there is no command /: /help lists them"),
        ("/seed five", "a seed is a whole number, not five"),
        ("/seed -1", "a seed is a whole number, not -1"),
        ("/thinking maybe", "/thinking is off or on or hide or show, not maybe"),
        ("/clear all", "/clear takes nothing after it"),
        ("/regen", "there is no answer yet to make again"),
        ("/load /no/such/file", "is no saved session"),
    ],
)
def test_commands_that_cannot_be_obeyed(chat: Chat, line: str, message: str) -> None:
    with pytest.raises(Error, match=message):
        chat.command(line)


def test_leaving(chat: Chat) -> None:
    with pytest.raises(Leave):
        chat.command("/exit")


@pytest.mark.parametrize(
    ("line", "command"),
    [("/help", True), ("/fooo x", True), ("/", True), ("/usr/bin is a folder", False), ("what is /etc?", False)],
)
def test_what_is_a_command(line: str, command: bool) -> None:
    assert is_command(line) is command


@pytest.mark.parametrize("error", [ContextError("the context is full"), BackendError("out of memory")])
def test_an_error_keeps_the_conversation(chat: Chat, error: Error) -> None:
    chat.says("a")
    chat.ask("q")
    chat.engine.scripts.append([step(0), BlockEvent(0, chat.ids("half ")), error])
    with pytest.raises(type(error)):
        chat.ask("r")
    assert chat.contents == ["q", "a"]
    chat.says("b")
    assert chat.ask("s") == "b"
    assert chat.contents == ["q", "a", "s", "b"]


def test_a_failed_regen_keeps_the_answer(chat: Chat) -> None:
    chat.says("a")
    chat.ask("q")
    chat.engine.scripts.append([BackendError("out of memory")])
    with pytest.raises(BackendError):
        chat.command("/regen")
    assert chat.contents == ["q", "a"]


def test_ctrl_c_keeps_what_has_arrived(chat: Chat) -> None:
    chat.engine.scripts.append([step(0), BlockEvent(0, chat.ids("half ")), step(1), KeyboardInterrupt()])
    assert chat.ask("q") == "half "
    assert chat.contents == ["q", "half "]
    assert chat.state.interrupted
    chat.says("b")
    assert chat.ask("r") == "b"


def test_ctrl_c_before_anything_came_takes_the_turn_back(chat: Chat) -> None:
    chat.engine.scripts.append([step(0), KeyboardInterrupt()])
    chat.ask("q")
    assert chat.contents == []


def test_a_full_disk_keeps_the_conversation(chat: Chat, tmp_path: Path) -> None:
    chat.says("a")
    chat.ask("q")
    chat.engine.full_disk = True
    with pytest.raises(FileError, match="No space left on device"):
        chat.command(f"/save {tmp_path / 'chat'}")
    assert chat.contents == ["q", "a"]


def test_a_session_of_another_model_keeps_the_conversation(chat: Chat, tmp_path: Path) -> None:
    stranger = Chat(ScriptedEngine(name="stranger"))
    stranger.command(f"/save {tmp_path / 'chat'}")
    chat.says("a")
    chat.ask("q")
    with pytest.raises(FileError, match="another model"):
        chat.command(f"/load {tmp_path / 'chat'}")
    assert chat.contents == ["q", "a"]


@pytest.mark.parametrize("extra", [{}, {"messages": 5}, {"messages": [{"role": "user", "content": 7}]}])
def test_a_session_that_is_no_chat(chat: Chat, tmp_path: Path, extra: dict[str, Any]) -> None:
    whole = {"messages": [], "system": None, "thinking": "on", "seed": 1, "seeds_used": 0}
    chat.state.conversation.save(tmp_path / "x", {**whole, **extra} if extra else {})
    with pytest.raises(FileError, match="holds a cache but no chat"):
        chat.command(f"/load {tmp_path / 'x'}")
    assert chat.state.settings.thinking is Thinking.off


# The same through the command line, with the turns on a pipe.


def piped(monkeypatch: pytest.MonkeyPatch, engine: ScriptedEngine, turns: str, *flags: str) -> Result:
    monkeypatch.setattr(Tokenizer, "from_gguf", lambda path: Tokenizer.from_metadata(vocabulary(), path))
    monkeypatch.setitem(dgemma.__dict__, "Engine", lambda *_, **__: engine)
    return CliRunner().invoke(app, ["run", "-m", "toy.gguf", "-cnv", "-s", "1", *flags], input=turns)


def scripts(*texts: str) -> list[Any]:
    tokenizer = Tokenizer.from_metadata(vocabulary(), "toy.gguf")
    return [answer(tokenizer.encode(text, add_bos=False)) for text in texts]


def test_a_line_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedEngine(*scripts("one", "two", "three"))
    result = piped(monkeypatch, engine, "a\n\nb\\\nc\n/foo\n/exit\nnever\n", "-p", "/first")
    assert result.stdout == "one\ntwo\nthree\n"
    assert "dgemma: there is no command /foo: /help lists them\n" in result.stderr
    assert result.exit_code == 1
    tokenizer = Tokenizer.from_metadata(vocabulary(), "toy.gguf")
    prompt = tokenizer.decode(engine.encoded)
    assert "user\n/first<turn|>" in prompt  # -p is no command
    assert "user\nb\nc<turn|>" in prompt


def test_no_turns_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    result = piped(monkeypatch, ScriptedEngine(), "")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_an_answer_that_fails_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedEngine([ContextError("the context is full")], *scripts("two"))
    result = piped(monkeypatch, engine, "a\nb\n")
    assert (result.exit_code, result.stdout) == (1, "two\n")
    assert result.stderr.startswith("dgemma: the context is full\n")


def test_ctrl_c_in_a_pipe_ends_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine = ScriptedEngine([step(0), KeyboardInterrupt()])
    result = piped(monkeypatch, engine, "a\nb\n", "--prompt-cache", str(tmp_path / "cache"))
    assert (result.exit_code, result.stdout) == (130, "")
    assert (tmp_path / "cache").exists()


def test_prompt_cache_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache = ["--prompt-cache", str(tmp_path / "cache")]
    assert piped(monkeypatch, ScriptedEngine(*scripts("one")), "a\n", *cache).exit_code == 0
    engine = ScriptedEngine(*scripts("two"))
    result = piped(monkeypatch, engine, "b\n/stats\n", *cache)
    assert (result.exit_code, result.stdout) == (0, "two\n")
    assert "2 messages" in result.stderr
    tokenizer = Tokenizer.from_metadata(vocabulary(), "toy.gguf")
    assert tokenizer.decode(engine.encoded) == "one<turn|><|turn>user\nb<turn|><|turn>model\n"
    refused = piped(monkeypatch, ScriptedEngine(name="stranger"), "b\n", *cache)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.endswith("was saved with another model\n")


def test_thoughts_and_tool_calls_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    text = '<|channel>thought\nhm<channel|>Let me look.<|tool_call>call:find{name:<|"|>x<|"|>,n:2}<tool_call|>'
    seen = 'Let me look.\ntool call: find {"name": "x", "n": 2}\n'
    assert piped(monkeypatch, ScriptedEngine(*scripts(text)), "a\n", "--thinking", "on").stdout == seen
    shown = piped(monkeypatch, ScriptedEngine(*scripts(text)), "a\n", "--thinking", "show")
    assert shown.stdout == f"hm\n{seen}"


def test_thoughts_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # which rich takes for a terminal
    monkeypatch.setenv("TERM", "xterm")
    text = "<|channel>thought\nhm<channel|>yes\x1b"
    dimmed = piped(monkeypatch, ScriptedEngine(*scripts(text)), "a\n", "--thinking", "on")
    assert dimmed.stdout == "\x1b[2mhm\x1b[0m\nyes\ufffd\n"  # what a terminal would obey never reaches it
    assert piped(monkeypatch, ScriptedEngine(*scripts(text)), "a\n", "--thinking", "hide").stdout == "yes\ufffd\n"


def test_an_unclosed_thought_is_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedEngine(*scripts("<|channel>thought\nthe answer"))
    assert piped(monkeypatch, engine, "a\n", "--thinking", "on").stdout == "the answer\n"


def test_one_answer_keeps_its_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Tokenizer, "from_gguf", lambda path: Tokenizer.from_metadata(vocabulary(), path))
    cache = tmp_path / "cache"

    def ask(text: str) -> tuple[str, ScriptedEngine]:
        engine = ScriptedEngine(*scripts(f"about {text}"))
        engine.ring = 100
        monkeypatch.setitem(dgemma.__dict__, "Engine", lambda *_, **__: engine)
        arguments = ["run", "-m", "toy.gguf", "-sys", "a long rule", "-p", text, "--prompt-cache", str(cache)]
        return CliRunner().invoke(app, arguments).stdout, engine

    first, engine = ask("x")
    assert (first, len(engine.encoded) > 30) == ("about x\n", True)
    second, engine = ask("y")
    tokenizer = Tokenizer.from_metadata(vocabulary(), "toy.gguf")
    assert second == "about y\n"
    assert tokenizer.decode(engine.encoded) == "y<turn|><|turn>model\n"  # the rest was in the cache
    result = piped(monkeypatch, ScriptedEngine(*scripts("z")), "/stats\n", "--prompt-cache", str(cache))
    assert "2 messages" in result.stderr  # a chat goes on where the last answer ended
