"""Which device each layer goes to: plans for cards that are not there, from headers alone."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dgemma import Engine, RequestError, list_devices, plan_devices
from dgemma._core import DevicePlan, plan_memory
from dgemma.cli import app
from released import RELEASED, hollow_gguf

RESERVE = 500_000_000
GB = 10**9
PLENTY = 1 << 40
N_LAYER = RELEASED.layers


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Q4_K_M of the released shapes, without its weights."""
    return hollow_gguf(tmp_path_factory.mktemp("released") / "q4_k_m.gguf", "Q4_K_M")


def total(plan: DevicePlan, device: str) -> int:
    return sum(plan.memory[device].values())


def units(plan: DevicePlan) -> list[str]:
    return [*(layer.device for layer in plan.layers), plan.head]


def experts_on_cpu(plan: DevicePlan) -> int:
    """How many; those of the first layers, or the plan is wrong."""
    on_cpu = [layer.experts == "CPU" for layer in plan.layers]
    assert on_cpu == sorted(on_cpu, reverse=True)
    return sum(on_cpu)


@pytest.fixture(scope="module")
def sizes(released: Path) -> dict[str, Any]:
    """Bytes of each layer without its experts, of its experts, of the head, from plans that differ in one thing."""

    def weights(**request: Any) -> int:
        plan = plan_devices(released, device_memory=[PLENTY], **request)
        uses = plan.memory.get("GPU0", {})
        return sum(uses.get(purpose, 0) for purpose in ("weights", "kv", "sampler"))

    all_experts = [weights(n_cpu_moe=n) for n in range(N_LAYER + 1)]
    from_last = [weights(n_gpu_layers=n, n_cpu_moe=-1) for n in range(N_LAYER + 2)]
    steps = [after - before for before, after in itertools.pairwise(from_last)]
    passes = plan_devices(released, device_memory=[PLENTY]).memory["GPU0"]["compute"]
    return {
        "head": steps[0],
        "dense": steps[:0:-1],
        "experts": [before - after for before, after in itertools.pairwise(all_experts)],
        "passes": passes,
    }


# ------------------------------------------------------------------------------------------------ one card


def test_the_promise_of_18_gb(released: Path) -> None:
    """At most 18.0 GB on the card with an 8192 context: what is ours leaves 0.39 GB for the driver and its kernels."""
    plan = plan_devices(released, 8192, device_memory=[24 * GB])
    uses = plan.memory["GPU0"]
    assert set(units(plan)) == {"GPU0"}
    assert experts_on_cpu(plan) == 0
    assert set(uses) == {"weights", "kv", "compute", "sampler", "reserve"}
    assert uses["kv"] == 8192 * 20 * 1024 + 1280 * 200 * 1024
    assert uses["sampler"] == 4 * 256 * 262144
    assert 17.5 * GB < total(plan, "GPU0") - uses["reserve"] < 17.61 * GB
    assert uses["reserve"] == RESERVE


def test_experts_make_room_first(released: Path) -> None:
    """The smaller the card, the more layers' experts stay on the CPU; the least number that fits, and never a whole
    layer while that is enough."""
    before = 0
    for memory in (24, 18, 16, 12, 8, 6):
        plan = plan_devices(released, device_memory=[memory * GB])
        moved = experts_on_cpu(plan)
        assert set(units(plan)) == {"GPU0"}
        assert moved >= before
        assert total(plan, "GPU0") <= memory * GB
        if moved > 0:
            with pytest.raises(RequestError, match=f"n_cpu_moe={moved}$"):
                plan_devices(released, device_memory=[memory * GB], n_gpu_layers=N_LAYER + 1, n_cpu_moe=moved - 1)
        before = moved
    assert before > 20


def test_then_layers_from_the_first_on(released: Path, sizes: dict[str, Any]) -> None:
    fixed = RESERVE + sizes["passes"] + sizes["head"]
    for n in (0, 1, 7, N_LAYER - 1):
        room = fixed + sum(sizes["dense"][N_LAYER - n :])
        plan = plan_devices(released, device_memory=[room])
        assert units(plan) == ["CPU"] * (N_LAYER - n) + ["GPU0"] * (n + 1)
        assert experts_on_cpu(plan) == N_LAYER
        assert total(plan, "GPU0") == room
    nothing = plan_devices(released, device_memory=[fixed - 1])
    assert set(units(nothing)) == {"CPU"}
    assert list(nothing.memory) == ["CPU"]
    assert nothing.notes == ["not even the head fits on a GPU: everything runs on the CPU"]


def test_layers_are_counted_as_llama_cpp_does(released: Path) -> None:
    for n in (0, 1, 2, N_LAYER, N_LAYER + 1, 999):
        plan = plan_devices(released, device_memory=[PLENTY], n_gpu_layers=n)
        on_card = min(n, N_LAYER + 1)
        assert units(plan) == ["CPU"] * (N_LAYER + 1 - on_card) + ["GPU0"] * on_card
        assert [layer.experts for layer in plan.layers] == units(plan)[:-1]


def test_experts_of_the_first_layers(released: Path) -> None:
    for n in (0, 1, 12, N_LAYER, 99, -1):
        plan = plan_devices(released, device_memory=[PLENTY], n_cpu_moe=n)
        assert experts_on_cpu(plan) == (min(n, N_LAYER) if n >= 0 else N_LAYER)
        assert set(units(plan)) == {"GPU0"}


def test_bytes_add_up_whatever_is_asked_for(released: Path) -> None:
    """Each tensor lies somewhere once; the embedding a second time where the head is not with it."""
    whole = plan_memory(str(released), 8192, "f16", 256)["CPU"]  # with the chunk that a card gets
    embedding = 262144 * 2816 // 256 * 210
    rope_freqs = 256 * 4
    for request in (
        {},
        {"n_gpu_layers": 5},
        {"n_cpu_moe": 7},
        {"override_tensor": "attn_q=CPU"},
        {"tensor_split": [1, 3]},
    ):
        plan = plan_devices(released, device_memory=[PLENTY, PLENTY], **request)
        weights = sum(uses["weights"] for uses in plan.memory.values())
        assert (weights - embedding - whole["weights"]) in {0, rope_freqs, 2 * rope_freqs}
        assert sum(uses.get("kv", 0) for uses in plan.memory.values()) == whole["kv"]


# ------------------------------------------------------------------------------------------------ several cards


def fullest(cuts: tuple[int, ...], bytes_: list[int], room: list[int]) -> float:
    """The share of its room that the fullest card takes, where card i gets the units from cuts[i] to cuts[i + 1]."""
    parts = [sum(bytes_[a:b]) for a, b in itertools.pairwise(cuts)]
    return max(part / there if there > 0 else float(part > 0) * 9 for part, there in zip(parts, room, strict=True))


@pytest.mark.parametrize("memory", [[12, 12], [24, 12], [8, 16], [10, 10, 4], [1, 24]])
def test_cards_are_filled_alike(released: Path, sizes: dict[str, Any], memory: list[int]) -> None:
    """As well as any cut into ranges would do: all of them are tried here."""
    plan = plan_devices(released, device_memory=[size * GB for size in memory])
    assert experts_on_cpu(plan) == 0
    names = [f"GPU{card}" for card in range(len(memory))]
    order = [names.index(unit) for unit in units(plan)]
    assert order == sorted(order)
    passes = plan.memory[plan.head]["compute"]
    room = [max(0, size * GB - RESERVE - passes) for size in memory]
    bytes_ = [d + e for d, e in zip(sizes["dense"], sizes["experts"], strict=True)] + [sizes["head"]]
    last = len(bytes_)
    inner = itertools.combinations_with_replacement(range(last + 1), len(memory) - 1)
    best = min(fullest((0, *cut, last), bytes_, room) for cut in inner)
    chosen = (0, *(sum(card < edge for card in order) for edge in range(1, len(memory))), last)
    assert fullest(chosen, bytes_, room) <= best * 1.000001


def test_proportions_are_of_layers_as_in_llama_cpp(released: Path) -> None:
    plan = plan_devices(released, device_memory=[PLENTY, PLENTY], tensor_split=[3, 1])
    on_first = units(plan).count("GPU0")
    assert on_first == 24  # ceil(31 * 3 / 4)
    assert units(plan) == ["GPU0"] * 24 + ["GPU1"] * 7
    plan = plan_devices(released, device_memory=[PLENTY, PLENTY], tensor_split=[1, 1], n_gpu_layers=11)
    assert units(plan) == ["CPU"] * 20 + ["GPU0"] * 6 + ["GPU1"] * 5
    assert set(units(plan_devices(released, device_memory=[PLENTY, PLENTY], tensor_split=[0, 1]))) == {"GPU1"}
    assert set(units(plan_devices(released, device_memory=[PLENTY, PLENTY], tensor_split=[1]))) == {"GPU0"}


def test_proportions_still_have_to_fit(released: Path) -> None:
    plan = plan_devices(released, device_memory=[12 * GB, 24 * GB], tensor_split=[1, 1])
    assert 0 < units(plan).count("GPU0") == 16
    assert total(plan, "GPU0") <= 12 * GB
    tight = plan_devices(released, device_memory=[6 * GB, 24 * GB], tensor_split=[1, 1])
    assert units(tight).count("GPU0") == 16
    assert 0 < experts_on_cpu(tight) <= 16
    assert total(tight, "GPU0") <= 6 * GB


def test_proportions_that_a_smaller_gpu_cannot_hold(released: Path) -> None:
    """They are kept to, and what that costs is said; an n_gpu_layers that would fit without them is refused."""
    sizes = [6 * GB, 24 * GB]
    [note] = plan_devices(released, device_memory=sizes, tensor_split=[1, 1]).notes
    assert re.fullmatch(
        r"tensor_split gives a GPU more than it holds, so that \d\.\d GB of weights stay on the CPU; without it, "
        r"shared by free memory, none would",
        note,
    )
    for split in ([1, 4], ()):
        assert plan_devices(released, device_memory=sizes, tensor_split=split).notes == []
    with pytest.raises(RequestError) as refused:
        plan_devices(released, device_memory=sizes, tensor_split=[1, 1], n_gpu_layers=N_LAYER + 1)
    assert str(refused.value) == (
        "tensor_split gives a GPU more of n_gpu_layers=31 than it holds; without it, shared by free memory, they fit"
    )
    with pytest.raises(RequestError, match=r"^n_gpu_layers=31 does not fit: it needs"):
        plan_devices(released, device_memory=[6 * GB, 8 * GB], tensor_split=[1, 1], n_gpu_layers=N_LAYER + 1)


def test_one_gpu_of_several(released: Path) -> None:
    plan = plan_devices(released, device_memory=[24 * GB, 24 * GB], main_gpu=1)
    assert set(units(plan)) == {"GPU1"}
    assert "GPU0" not in plan.memory


# ------------------------------------------------------------------------------------------------ patterns


def test_patterns(released: Path) -> None:
    plan = plan_devices(released, device_memory=[PLENTY], override_tensor="exps=CPU")
    assert experts_on_cpu(plan) == N_LAYER
    same = plan_devices(released, device_memory=[PLENTY], n_cpu_moe=-1)
    assert plan.memory == same.memory

    first = plan_devices(
        released, device_memory=[PLENTY, PLENTY], override_tensor=[r"blk\.[0-4]\..*exps=GPU1", "exps=CPU"]
    )
    assert [layer.experts for layer in first.layers] == ["GPU1"] * 5 + ["CPU"] * (N_LAYER - 5)

    head = plan_devices(released, device_memory=[PLENTY], override_tensor="token_embd=CPU")
    assert (head.head, set(units(head)[:-1])) == ("CPU", {"GPU0"})
    assert "sampler" not in head.memory["GPU0"]


def test_what_patterns_take_is_not_there_for_layers(released: Path) -> None:
    alone = plan_devices(released, device_memory=[12 * GB])
    beside = plan_devices(released, device_memory=[12 * GB], override_tensor=r"blk\.[0-3]\.ffn_down_exps=GPU0")
    assert experts_on_cpu(beside) > experts_on_cpu(alone)
    assert total(beside, "GPU0") <= 12 * GB


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"n_gpu_layers": -2}, "n_gpu_layers must be -1 (what fits) or a number of layers"),
        ({"n_cpu_moe": -2}, "n_cpu_moe must be -1 (all layers) or a number of layers"),
        ({"override_tensor": "exps"}, "override_tensor: exps: must be PATTERN=DEVICE, like exps=CPU"),
        ({"override_tensor": "exqs=CPU"}, "override_tensor: exqs=CPU: the pattern matches no matrix of the model"),
        ({"override_tensor": "norm=CPU"}, "override_tensor: norm=CPU: the pattern matches no matrix of the model"),
        ({"override_tensor": "a(=CPU"}, "override_tensor: a(=CPU: the pattern is not a regular expression"),
        ({"override_tensor": "exps=GPU7"}, "override_tensor: exps=GPU7: there is no device GPU7, only GPU0, GPU1, CPU"),
        ({"tensor_split": [1, 1, 1]}, "tensor_split has 3 entries, and there are 2 GPUs"),
        ({"tensor_split": [0, 0]}, "tensor_split must be proportions, none below 0 and one above"),
        ({"tensor_split": [1, -1]}, "tensor_split must be proportions, none below 0 and one above"),
        ({"main_gpu": 2}, "main_gpu is 2, and there are 2 GPUs, counted from 0"),
        ({"main_gpu": -1}, "main_gpu must be a GPU's number, from 0 on, not -1"),
        (
            {"main_gpu": 0, "tensor_split": [1]},
            "main_gpu names the one GPU to use, and tensor_split shares out several",
        ),
    ],
)
def test_refusals(released: Path, request_: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError) as refused:
        plan_devices(released, device_memory=[24 * GB, 24 * GB], **request_)
    assert str(refused.value) == sentence


def test_too_many_layers_name_what_fits(released: Path) -> None:
    """And it does fit."""
    with pytest.raises(RequestError) as refused:
        plan_devices(released, device_memory=[12 * GB], n_gpu_layers=N_LAYER + 1)
    words = str(refused.value)
    assert words.startswith("n_gpu_layers=31 does not fit: it needs 17.5 GB on the GPU beside the passes' buffers and")
    fewer, more = (int(part.split(";")[0].split(",")[0].split()[0]) for part in words.split("=")[2:])
    for fits, request in (
        (True, {"n_gpu_layers": fewer}),
        (False, {"n_gpu_layers": fewer + 1}),
        (True, {"n_gpu_layers": N_LAYER + 1, "n_cpu_moe": more}),
        (False, {"n_gpu_layers": N_LAYER + 1, "n_cpu_moe": more - 1}),
    ):
        try:
            plan_devices(released, device_memory=[12 * GB], **request)
        except RequestError:
            assert not fits, request
        else:
            assert fits, request


def test_too_much_for_a_card_by_pattern(released: Path) -> None:
    with pytest.raises(RequestError, match=r"override_tensor puts 15.2 GB on GPU0, which with the passes' buffers"):
        plan_devices(released, device_memory=[8 * GB], override_tensor="exps=GPU0")


def test_no_gpu_is_said_and_gone_on_without(tiny: Path) -> None:
    if len(list_devices()) > 1:
        pytest.skip("this machine has a GPU")
    with pytest.warns(UserWarning, match="n_gpu_layers") as warned, Engine(tiny, n_ctx=64, n_gpu_layers=3) as engine:
        assert list(engine.memory) == ["CPU"]
    assert [str(warning.message) for warning in warned] == [
        "n_gpu_layers asks for a GPU, but everything runs on the CPU: this ggml is built for the CPU alone; "
        'CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall --no-cache-dir llama-cpp-python==0.3.36 builds one '
        "for NVIDIA's cards"
    ]


# ------------------------------------------------------------------------------------------------ the command line


def inspect(file: Path, *flags: str) -> Any:
    result = CliRunner().invoke(app, ["inspect", str(file), "--plan", "--json", *flags])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["memory"]


def test_flags(released: Path) -> None:
    plan = inspect(released, "--device-memory", "24G,12GB", "-ts", "3,1", "-ncmoe", "4", "-ngl", "all")
    assert [layer["experts"] for layer in plan["layers"][:5]] == ["CPU"] * 4 + ["GPU0"]
    assert [layer["device"] for layer in plan["layers"]] == ["GPU0"] * 24 + ["GPU1"] * 6
    assert inspect(released, "--device-memory", "24", "-cmoe")["layers"][-1] == {"device": "GPU0", "experts": "CPU"}
    assert inspect(released, "--device-memory", "24G", "-ngl", "0")["head"] == "CPU"
    by_pattern = inspect(released, "--device-memory", "24G,24G", "-mg", "0", "-ot", r"blk\.0\..*exps=GPU1,exps=CPU")
    assert [layer["experts"] for layer in by_pattern["layers"][:2]] == ["GPU1", "CPU"]


def test_the_plan_for_people(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shown = CliRunner().invoke(app, ["inspect", str(released), "--plan", "--device-memory", "12G"]).stdout
    assert "reserve" in shown
    assert "layers 0 to 12: GPU0, experts on CPU\nlayers 13 to 29: GPU0\nhead: GPU0\n" in shown
    alone = CliRunner().invoke(app, ["inspect", str(released), "--plan", "-ngl", "0"]).stdout
    assert "reserve" not in alone
    assert "head:" not in alone


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-ngl", "many"], "'many' is no number of layers"),
        (["-ngl", "-3"], "'-3' is no number of layers"),
        (["-ts", "1,x"], "'1,x' is no list of proportions"),
        (["--device-memory", "big"], "no size"),
    ],
)
def test_flags_that_make_no_sense(flags: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["inspect", "none.gguf", *flags])
    assert result.exit_code == 2
    assert words.replace(" ", "") in "".join(result.stderr.replace("│", "").split())


def test_devices_are_listed() -> None:
    devices = list_devices()
    assert [device.is_gpu for device in devices] == [True] * (len(devices) - 1) + [False]
    assert devices[-1].name == "CPU"
    result = CliRunner().invoke(app, ["run", "--list-devices"])
    assert result.exit_code == 0
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [device.name for device in devices]
