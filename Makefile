# `make` alone lists the targets. Everything is installed into .venv; nothing need be done before any of them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RANDOM := build/random
# Reinstalling is what makes a new Python file visible and rebuilds the engine; the build folder keeps what is unchanged.
SOURCES := $(shell find cpp bindings convert quantize -name '*.py' -o -name '*.pyi' -o -name '*.json' -o -name '*.cpp' \
             -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cmake' -o -name 'CMakeLists.txt' 2>/dev/null) CMakeLists.txt pyproject.toml
CPP_FILES = $(shell git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

.DEFAULT_GOAL := help
.PHONY: help setup demo quality sudoku test test-reference lint format bench bench-growth bench-quantize cuda-compile gpu-check gpu-pack clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

setup: $(VENV)/installed ## Make .venv and install everything into it (about 7 minutes the first time: ggml is compiled)

# llama-cpp-python comes first: it brings ggml, which the engine's build then finds in this very environment.
$(VENV)/ggml:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet --upgrade pip
	$(BIN)/pip install --disable-pip-version-check "llama-cpp-python==0.3.36" "scikit-build-core>=0.11" "nanobind>=2.4" cmake ninja
	@touch $@

$(VENV)/installed: $(VENV)/ggml $(SOURCES)
	$(BIN)/pip install --disable-pip-version-check --quiet --no-build-isolation --editable ".[dev]"
	@touch $@

$(VENV)/reference: $(VENV)/installed
	$(BIN)/pip install --disable-pip-version-check --quiet torch==2.13.0
	$(BIN)/pip install --disable-pip-version-check --quiet transformers==5.23.0
	@touch $@

$(RANDOM)/random.gguf: $(VENV)/installed examples/random_checkpoint.py
	@rm -rf $(RANDOM) && mkdir -p $(RANDOM)
	$(BIN)/python examples/random_checkpoint.py $(RANDOM)/checkpoint
	$(BIN)/dgemma convert $(RANDOM)/checkpoint -o $@ --type bf16

demo: $(VENV)/installed ## Watch a small trained DiffusionGemma solve a Sudoku
	@$(BIN)/dgemma demo --seed 1

quality: $(VENV)/installed ## Solve 1000 held-out puzzles with every quant of the trained model; rewrites docs/quality.md
	OMP_WAIT_POLICY=passive PYTHONPATH=examples $(BIN)/python -m sudoku.quality docs/quality.md

# Without these glibc gives every tensor back to the system at once, and a training step takes several times as long.
KEEP_MEMORY = MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=1000000000
sudoku: $(VENV)/reference ## Train the Sudoku model again, into build/sudoku (installs torch; about two and a half hours on 2 cores)
	$(KEEP_MEMORY) PYTHONPATH=examples $(BIN)/python -m sudoku.train build/sudoku

# Tiny models spend their time at OpenMP's barriers: threads that wait without spinning leave a busy machine usable.
test: $(VENV)/installed ## Run the tests (no torch needed)
	OMP_WAIT_POLICY=passive $(BIN)/pytest -m "not reference"

test-reference: $(VENV)/reference ## Remake the fixtures with transformers and compare (installs torch)
	OMP_WAIT_POLICY=passive $(BIN)/pytest -m reference

# mypy wants the package as it is installed: the folders below one name.
lint: $(VENV)/installed ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)
	@rm -rf build/types && mkdir -p build/types && cp -r bindings/dgemma build/types/dgemma
	@for part in convert quantize; do rm -rf build/types/dgemma/$$part && cp -r $$part build/types/dgemma/$$part; done
	MYPYPATH=build/types $(BIN)/mypy build/types/dgemma

format: $(VENV)/installed ## Format all sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES)

bench: $(RANDOM)/random.gguf ## Time load, encode and denoising steps; the last line is JSON
	$(BIN)/dgemma bench -m $<

bench-growth: $(VENV)/installed ## Measure and draw how the cost of a step and of encoding grows (build/growth.png); MODEL=FILE: of that file
	OMP_WAIT_POLICY=passive $(BIN)/python examples/bench_growth.py $(if $(MODEL),--model $(MODEL),--threads 1)

REAL ?= build/real-widths
# Order only: a folder that is there already is never made again.
$(REAL)/config.json: | $(VENV)/installed
	$(BIN)/python examples/random_checkpoint.py --real-widths $(REAL)

bench-quantize: $(VENV)/installed $(REAL)/config.json ## Time quantising 4.8 GB of the real widths (made first, or REAL=FOLDER); the last line is JSON
	$(BIN)/python examples/bench_quantize.py --warm --out build $(REAL) Q4_K_M Q5_K_M Q6_K Q8_0

cuda-compile: $(VENV)/installed ## Compile the CUDA kernels (needs nvcc, no GPU) and write what they take into docs/cuda.md
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python docs/make_cuda_table.py

# A ggml with CUDA has an environment of its own: pip's wheel in .venv is for the CPU alone. GPU_PYTHON=PATH names one that is there.
GPU_VENV   := .venv-cuda
GPU_PYTHON ?=
gpu-check: ## Prove the CUDA kernels on this machine's GPU, and time it; writes build/gpu-check (PACK=FOLDER: without network)
	@$(if $(GPU_PYTHON),:,$(PYTHON) examples/gpu_check/environment.py $(GPU_VENV) $(if $(PACK),--pack $(PACK)))
	PYTHONPATH=examples $(or $(GPU_PYTHON),$(GPU_VENV)/bin/python) -m gpu_check build/gpu-check

gpu-pack: ## Pack into build/gpu-pack what gpu-check needs on a machine without network; GGML=ARCHIVE of a ggml with CUDA
	@test -n "$(GGML)" || { echo "make gpu-pack needs GGML=ARCHIVE, a tar of ggml with CUDA (docs/gpu-check.md)" >&2; exit 1; }
	$(PYTHON) examples/gpu_check/pack.py build/gpu-pack --ggml $(GGML)

clean: ## Remove what was built (not .venv)
	rm -rf build
