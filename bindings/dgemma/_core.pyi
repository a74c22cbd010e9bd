"""The engine of dgemma. Use it through the dgemma package."""

from collections.abc import Sequence
import os
from typing import Annotated, Any, Literal

import numpy
from numpy.typing import NDArray


def ggml_built_version() -> str:
    """The ggml this module was compiled against."""

def ggml_found_version() -> str:
    """The ggml found at run time."""

def load_backends(backend_dir: str) -> None:
    """
    Finds ggml's devices; plug-in backends are looked for in ``backend_dir`` only.
    """

class GgufTensor:
    """One tensor of a GGUF file."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> str:
        """ggml's name of the type, "f32" or "q4_K"."""

    @property
    def shape(self) -> tuple[int, ...]:
        """GGUF's order: columns first."""

    @property
    def n_bytes(self) -> int: ...

class GgufInfo:
    """The header of a GGUF file or of a split set."""

    @property
    def version(self) -> int: ...

    @property
    def n_bytes(self) -> int:
        """Of all files of the set."""

    @property
    def paths(self) -> list[str]:
        """One file, or the split set in order."""

    @property
    def metadata(self) -> dict[str, object]:
        """
        Scalars as int, float, bool or str; arrays of numbers as numpy arrays, of bool and str as lists.
        """

    @property
    def tensors(self) -> list[GgufTensor]: ...

def read_gguf(path: str | os.PathLike) -> GgufInfo:
    """
    Reads the header of a GGUF file or of the split set that it belongs to.

    Raises ModelFileError for a file that is missing, damaged or not GGUF.
    """

def plan_memory(path: str | os.PathLike, n_ctx: int, kv_type: str, n_batch: int) -> dict[str, dict[str, int]]:
    """
    device -> purpose (weights, kv, compute, sampler) -> bytes, for an engine with one session on the CPU. n_batch: 0 for the engine's own choice.
    """

class DeviceInfo:
    """One of ggml's devices."""

    @property
    def name(self) -> str:
        """"CUDA0" or "CPU"."""

    @property
    def description(self) -> str: ...

    @property
    def free_bytes(self) -> int:
        """0 where the device does not say."""

    @property
    def total_bytes(self) -> int: ...

    @property
    def is_gpu(self) -> bool: ...

def usable_cores(sysfs: str = '/sys', processors: Sequence[int] = []) -> int:
    """The threads that an engine computes with unless told otherwise."""

def use_numa(strategy: str) -> None:
    """Binds threads on machines with several memory nodes."""

def list_devices() -> list[DeviceInfo]:
    """
    The GPUs in ggml's order (integrated ones only where there is no other), then the CPU.
    """

def why_no_gpu() -> str:
    """
    Why no GPU is among them, and what would help: one sentence; empty where there is one.
    """

class DeviceRequest:
    """Which weights go where; see Engine."""

    def __init__(self, *, n_gpu_layers: int = -1, n_cpu_moe: int = 0, override_tensor: Sequence[str] = [], tensor_split: Sequence[float] = [], main_gpu: int = -1) -> None: ...

class DevicePlan:
    """Where an engine with one session puts the model."""

    class Layer:
        @property
        def device(self) -> str:
            """Of its vectors and its keys and values."""

        @property
        def experts(self) -> str:
            """Of its mixture."""

    @property
    def devices(self) -> list[DeviceInfo]: ...

    @property
    def memory(self) -> dict[str, dict[str, int]]:
        """device -> purpose (weights, kv, compute, sampler, reserve) -> bytes."""

    @property
    def layers(self) -> list[DevicePlan.Layer]: ...

    @property
    def head(self) -> str: ...

    @property
    def own_card_layers(self) -> bool:
        """Whether our CUDA kernels compute the layers but for their attention."""

    @property
    def notes(self) -> list[str]:
        """What was asked for and cannot be had, a sentence each."""

def plan_devices(path: str | os.PathLike, n_ctx: int, kv_type: str, n_batch: int, devices: DeviceRequest, cards: Sequence[int] | None = None) -> DevicePlan:
    """
    The plan from the file's header alone; ``cards``: free bytes of GPUs to plan for in place of the machine's.
    """

def convert_rows(rows: NDArray[numpy.uint8], from_type: str, to_type: str, n_cols: int, importance: NDArray[numpy.float32] | None, n_threads: int) -> tuple[NDArray[numpy.uint8], tuple[int, int, float] | None]:
    """
    Rows [n, bytes] of one ggml type as rows of another, and the first value that cannot be stored: row, column, value.

    importance: float32 [n_cols]. Raises RequestError for types that do not fit.
    """

def row_bytes(type: str, n_cols: int) -> int:
    """Bytes of a row of n_cols values."""

def needs_importance(type: str) -> bool:
    """Whether ggml quantises to this type with an importance matrix only."""

def gguf_places(path: str | os.PathLike[str]) -> tuple[list[tuple[str, int, int]], list[tuple[int, int]]]:
    """
    Byte places of what read_gguf names: of each metadata entry (name, begin, end) in the first file, and of each tensor's data (index into paths, begin).
    """

def time_copy(device: str, n_bytes: int, n_nodes: int) -> list[float]:
    """
    Seconds of a copy of n_bytes on one of ggml's devices, of a few runs of a graph of n_nodes of them.
    """

def time_product(device: str, weights: NDArray[numpy.uint8], type: str, columns: NDArray[numpy.float32], n_nodes: int) -> list[float]:
    """
    The same of ggml's product of weights [rows, bytes] with columns [n, n_cols].
    """

def has_own_product(type: str) -> bool:
    """
    Whether this processor has a kernel of ours for products with weights of a type.
    """

def product_kernels() -> list[str]:
    """
    The kernels for such products that this processor can run, the fastest first, which the engine uses.
    """

def multiply_rows(weights: NDArray[numpy.uint8], type: str, columns: NDArray[numpy.float32], kernel: str = '') -> NDArray[numpy.float32]:
    """
    Rows [m, bytes] of weights times columns [n, k] rounded to 8 bits: [n, m], by one of product_kernels(), or the first. Raises RequestError where there is no kernel.
    """

def norm_rows(x: NDArray[numpy.float32], weight: NDArray[numpy.float32], eps: float, n_threads: int) -> NDArray[numpy.float32]:
    """
    RMS norms of rows [n, k] times a weight [k], as the engine has them on the CPU: [n, k].
    """

def multiply_soft(z: NDArray[numpy.float32], embedding: NDArray[numpy.uint8], type: str, n_cols: int, dropped_mass: float, n_threads: int) -> NDArray[numpy.float32]:
    """
    softmax(z) [n, rows] times the embedding's rows [rows, bytes] times sqrt(n_cols), as self-conditioning has it: [n, n_cols].
    """

def has_own_attention() -> bool:
    """
    Whether this processor has a kernel of ours for attention over an F16 cache.
    """

def attend_rows(q: NDArray[numpy.float32], k: NDArray[numpy.float32], v: NDArray[numpy.float32], mask: NDArray[numpy.float32], n_threads: int) -> NDArray[numpy.float32]:
    """
    softmax(k q + mask) v for queries [n, heads, width] over keys and values [keys, kv_heads, width] as an F16 cache holds them: [n, heads, width]. Raises RequestError where there is no kernel.
    """

class SamplerStep:
    """What one step of the sampler decided; arrays of [C]."""

    @property
    def argmax(self) -> Annotated[NDArray[numpy.int32], dict(shape=(None,))]: ...

    @property
    def sampled(self) -> Annotated[NDArray[numpy.int32], dict(shape=(None,))]: ...

    @property
    def entropy(self) -> Annotated[NDArray[numpy.float32], dict(shape=(None,))]: ...

    @property
    def accepted(self) -> Annotated[NDArray[numpy.bool_], dict(shape=(None,))]: ...

    @property
    def next_canvas(self) -> Annotated[NDArray[numpy.int32], dict(shape=(None,))]: ...

def entropy_bound_step(logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], temperature: float, entropy_bound: float, u: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu', writable=False)], noise: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> SamplerStep:
    """
    The sampler's step on [C, V] logits. Shapes are the caller's to check (dgemma.entropy_bound_step does).
    """

class ModelInfo:
    @property
    def n_layer(self) -> int: ...

    @property
    def n_embd(self) -> int: ...

    @property
    def n_vocab(self) -> int: ...

    @property
    def n_head(self) -> int: ...

    @property
    def n_expert(self) -> int: ...

    @property
    def n_expert_used(self) -> int: ...

    @property
    def canvas_length(self) -> int: ...

    @property
    def sliding_window(self) -> int: ...

    @property
    def context_length(self) -> int: ...

    @property
    def eos_ids(self) -> list[int]: ...

    @property
    def file_type(self) -> int:
        """general.file_type, -1 if the file does not say."""

    @property
    def name(self) -> str: ...

    @property
    def n_params(self) -> int: ...

    @property
    def n_bytes(self) -> int: ...

class Snapshot:
    """A point of a session that can be gone back to; host memory."""

    @property
    def n_past(self) -> int: ...

    @property
    def n_bytes(self) -> int: ...

class Session:
    @property
    def n_past(self) -> int: ...

    def prefill(self, tokens: Sequence[int]) -> None: ...

    def denoise(self, canvas: Sequence[int], n_vocab: int, previous: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None = None) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]: ...

    def truncate(self, n: int) -> None: ...

    def snapshot(self) -> Snapshot: ...

    def restore(self, snapshot: Snapshot) -> None: ...

    def save(self, path: str | os.PathLike, note: str) -> None: ...

    def load(self, path: str | os.PathLike) -> str: ...

    def time_parts(self) -> None: ...

    def take_parts(self) -> dict[str, float]: ...

    def collect_inputs(self) -> None: ...

    def take_inputs(self) -> dict[str, tuple[NDArray[numpy.float64], NDArray[numpy.int64]]]: ...

class Engine:
    def __init__(self, path: str | os.PathLike, *, n_ctx: int, n_threads: int, n_batch: int, kv_f32: bool, exact: bool, own_card_layers: bool, devices: DeviceRequest) -> None: ...

    @property
    def info(self) -> ModelInfo: ...

    @property
    def n_ctx(self) -> int: ...

    @property
    def n_threads(self) -> int: ...

    @property
    def n_batch(self) -> int: ...

    def memory(self) -> dict[str, dict[str, int]]: ...

    def plan(self) -> DevicePlan: ...

    def session(self) -> Session: ...

class StepEvent:
    @property
    def block(self) -> int: ...

    @property
    def step(self) -> int: ...

    @property
    def temperature(self) -> float: ...

    @property
    def canvas(self) -> Annotated[NDArray[numpy.int32], dict(shape=(None,))]: ...

    @property
    def argmax(self) -> Annotated[NDArray[numpy.int32], dict(shape=(None,))]: ...

    @property
    def accepted(self) -> Annotated[NDArray[numpy.bool_], dict(shape=(None,))]: ...

    @property
    def entropy(self) -> Annotated[NDArray[numpy.float32], dict(shape=(None,))]: ...

class BlockEvent:
    @property
    def block(self) -> int: ...

    @property
    def tokens(self) -> list[int]: ...

class GenerationStats:
    @property
    def prompt_tokens(self) -> int: ...

    @property
    def new_tokens(self) -> int: ...

    @property
    def blocks(self) -> int: ...

    @property
    def steps(self) -> int: ...

    @property
    def encode_seconds(self) -> float: ...

    @property
    def denoise_seconds(self) -> float: ...

    @property
    def wall_seconds(self) -> float: ...

class DoneEvent:
    @property
    def reason(self) -> Literal['stop', 'length', 'context']: ...

    @property
    def end_token(self) -> int | None: ...

    @property
    def stats(self) -> GenerationStats: ...

class SamplerConfig:
    def __init__(self, *, max_denoising_steps: int, t_min: float, t_max: float, entropy_bound: float, stability_threshold: int, confidence_threshold: float) -> None: ...

class Generation:
    """An answer in the making: pull one event at a time."""

    def __init__(self, session: Session, prompt: Sequence[int], *, max_new_tokens: int, seed: int, sampler: SamplerConfig) -> None: ...

    def next(self) -> StepEvent | BlockEvent | DoneEvent | None:
        """The next event, or None after the DoneEvent."""

def cuda_unavailable() -> str:
    """
    Empty where dgemma's CUDA kernels can run; otherwise the sentence that says why not.
    """

def run_on_card(logits: NDArray[numpy.float32], before: NDArray[numpy.float32] | None, soft_cap: float, temperature: float, entropy_bound: float, seed: int, step: int, block: int, embedding: NDArray[numpy.uint8], type: str, n_cols: int, dropped_mass: float, max_kept: int, tokens: Sequence[int], is_buffered: bool) -> dict[str, Any]:
    """
    The sampler's step and the next self-conditioning [C, n_cols] of raw logits [C, V] as the CUDA kernels compute them, and the embedding's rows of `tokens`, or of the step's next canvas without any. Raises BackendError where they cannot run.
    """

def run_experts_on_card(logits: NDArray[numpy.float32], n_used: int, expert_scale: NDArray[numpy.float32], x: NDArray[numpy.float32], gate_up: NDArray[numpy.uint8], gate_up_type: str, down: NDArray[numpy.uint8], down_type: str, is_bf16: bool = False) -> dict[str, Any]:
    """
    One layer's experts as the CUDA kernels compute them: the chosen experts and their weights [n, n_used], the pairs in the experts' order, the tiles of work [tiles, 3] and the weighted sums [n, hidden]; activations of 8 bits, or BF16. Raises BackendError where they cannot run.
    """

def define_experts(logits: NDArray[numpy.float32], n_used: int, expert_scale: NDArray[numpy.float32], x: NDArray[numpy.float32], gate_up: NDArray[numpy.uint8], gate_up_type: str, down: NDArray[numpy.uint8], down_type: str, is_bf16: bool = False) -> dict[str, Any]:
    """What run_experts_on_card computes, in plain C++."""

def time_experts(logits: NDArray[numpy.float32], n_used: int, expert_scale: NDArray[numpy.float32], x: NDArray[numpy.float32], gate_up: NDArray[numpy.uint8], gate_up_type: str, down: NDArray[numpy.uint8], down_type: str, n_runs: int, is_bf16: bool = False) -> dict[str, Any]:
    """
    One layer's experts by the CUDA kernels and by ggml's graph on the first card: milliseconds a layer of a few batches of n_runs, and how far apart their results are.
    """

def run_dense_on_card(x: NDArray[numpy.float32], weights: Sequence[tuple[NDArray[numpy.uint8], str]], is_gated: bool, is_bf16: bool, gated_is_bf16: bool, is_shared: bool = False) -> list[NDArray[numpy.float32]]:
    """
    Products [n, rows] of x [n, k] and each of the weights as the CUDA kernels compute them, or the one gelu(gate x) * (up x) as the next product takes it; of x and of that either 8 bits or BF16. Raises BackendError where they cannot run.
    """

def time_dense(x: NDArray[numpy.float32], weights: Sequence[tuple[NDArray[numpy.uint8], str]], is_gated: bool, n_runs: int) -> dict[str, Any]:
    """
    Those products by ggml's graph and by the CUDA kernels in 8 bits and in BF16, on the first card: milliseconds of a few batches of n_runs, and how far apart the results are.
    """

def run_layer_rows_on_card(name: str, n: int, hidden: int, inputs: dict[str, Sequence[float]], eps: float, is_bf16: bool, experts: int = 1, used: int = 1, scale: float = 1.0) -> dict[str, Any]:
    """
    One of the functions between a layer's products as its CUDA kernel computes it: all of its arrays by name, flat; of rows for products, the values' bytes NAME_bytes and each group's d and d_sum NAME_scales. Raises BackendError where it cannot run.
    """

def run_mask_on_card(n_past: int, n: int, padded: int, keys: int, cells: int, window: int, is_causal: bool) -> NDArray[numpy.uint16]:
    """
    A mask of attention [padded, keys], flat, F16 as bits, as the CUDA kernel writes it. Raises BackendError where it cannot run.
    """

def run_heads_on_card(q: NDArray[numpy.float32], k: NDArray[numpy.float32], v: NDArray[numpy.float32], q_norm: NDArray[numpy.float32], k_norm: NDArray[numpy.float32], keys: NDArray[numpy.uint16], values: NDArray[numpy.uint16], position: int, base: float, factors: Sequence[float], eps: float) -> dict[str, Any]:
    """
    Queries [n, heads, hd] normed and rotated, and the F16 cache [cells, kv_heads, hd] with keys and values [n, kv_heads, hd] written, all flat, as the CUDA kernel computes them. Raises BackendError where it cannot run.
    """
