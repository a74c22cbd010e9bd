#!/usr/bin/env python3
"""Makes the environment of ``make gpu-check``: dgemma with its CUDA kernels, beside a ggml that has CUDA.

    python3 examples/gpu_check/environment.py VENV                 # with network: ggml is compiled by pip, 10 to 30 min
    python3 examples/gpu_check/environment.py VENV --pack FOLDER   # without: all from FOLDER (make gpu-pack) and this
                                                                   # Python's own packages

Runs under a Python that has nothing of dgemma's. Needs nvcc on PATH; builds for the card that is there, or for
``--architecture``. Exits with 1 and one sentence where that cannot be.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GGML = "llama-cpp-python==0.3.36"
BUILD_TOOLS = ("scikit-build-core>=0.11", "nanobind>=2.4", "cmake", "ninja")
ARCHIVES = "ggml-*.tar.xz"
RUNTIME = ("libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13")  # what a CUDA 13 ggml asks the loader for


def card_architecture() -> str:
    """ "90" for an H100, as the driver says of the first card."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader", "--id=0"]
    if shutil.which(command[0]) is None:
        raise SystemExit("gpu-check needs an NVIDIA GPU: there is no nvidia-smi on this machine")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"gpu-check needs an NVIDIA GPU: {done.stdout.strip() or done.stderr.strip()}")
    return done.stdout.strip().replace(".", "")


def find_archive(pack: Path) -> Path:
    """The one archive of ggml in a pack."""
    found = sorted(pack.glob(ARCHIVES))
    if len(found) != 1:
        raise SystemExit(
            f"{pack} holds {len(found)} archives {ARCHIVES}, and one is needed: make gpu-pack GGML=ARCHIVE"
        )
    return found[0]


def run(*command: str | Path, **variables: str) -> None:
    """A command whose failure ends this one; its output goes to stderr."""
    text = [str(part) for part in command]
    print("+", *text, file=sys.stderr, flush=True)
    done = subprocess.run(text, cwd=ROOT, stdout=sys.stderr, env={**os.environ, **variables})
    if done.returncode:
        raise SystemExit(f"gpu-check: {' '.join(text[:6])} … failed; its own words are above")


def site_packages(venv: Path) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return venv / "lib" / version / "site-packages"


def unpack_ggml(archive: Path, site: Path) -> None:
    """Lays ggml out as llama-cpp-python's wheel does, so that CMake and the package find it as they find that one."""
    with tarfile.open(archive) as tar:
        tar.extractall(site)
    libraries = site / "llama_cpp" / "lib"
    libraries.parent.mkdir()
    libraries.symlink_to(Path("..", "lib"))
    for name, path in runtime_libraries().items():
        (site / "lib" / name).symlink_to(path)


def runtime_libraries() -> dict[str, Path]:
    """CUDA's libraries in pip's packages or beside nvcc; what is in neither, the loader must know."""
    folders = [folder for entry in sys.path if entry for folder in Path(entry).glob("nvidia/*/lib")]
    if nvcc := shutil.which("nvcc"):
        folders += [Path(nvcc).resolve().parents[1] / name for name in ("lib64", "lib")]
    found = {}
    for name in RUNTIME:
        if path := next((folder / name for folder in folders if (folder / name).exists()), None):
            found[name] = path
    return found


def make_offline(venv: Path, pack: Path) -> None:
    """From the pack and this Python's packages, which may themselves be those of an environment."""
    archive = find_archive(pack)
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    site = site_packages(venv)
    ours = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "parent.pth").write_text("\n".join(ours) + "\n")
    wheels = sorted(pack.glob("*.whl"))
    run(venv / "bin" / "python", "-m", "pip", "install", "-q", "--no-index", "--no-deps", *wheels)
    unpack_ggml(archive, site)


def make_online(venv: Path, architecture: str) -> None:
    """ggml is compiled here: a wheel that pip has at hand, or finds, would be the one without CUDA."""
    run(sys.executable, "-m", "venv", venv)
    pip = [venv / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"]
    flags = f"-DGGML_CUDA=on -DCMAKE_CUDA_ARCHITECTURES={architecture}"
    run(*pip, "--no-cache-dir", "--no-binary", "llama-cpp-python", GGML, CMAKE_ARGS=flags)
    run(*pip, *BUILD_TOOLS)


def build(venv: Path, architecture: str, *, offline: bool) -> None:
    """dgemma itself, in a build folder of its own: another environment's holds the paths of another ggml."""
    pip = [venv / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    what = ["--no-index", "--no-deps", "--editable", "."] if offline else ["--editable", ".[dev]"]
    settings = [
        f"-Ccmake.define.CMAKE_CUDA_ARCHITECTURES={architecture}",
        "-Ccmake.define.DGEMMA_CUDA=ON",
        "-Cbuild-dir=build/cuda-{wheel_tag}",
    ]
    run(*pip, "--no-build-isolation", *settings, *what)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("venv", type=Path, metavar="VENV", help="where to make it; one that is there is built anew")
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help="what make gpu-pack made: no network is used")
    parser.add_argument("--architecture", metavar="NN", help="90 for an H100; what the driver says if absent")
    args = parser.parse_args(arguments)
    architecture = args.architecture or card_architecture()
    if shutil.which("nvcc") is None:
        raise SystemExit("gpu-check needs nvcc, CUDA's compiler, on PATH")
    ready = args.venv / "ggml"
    if not ready.exists():
        if args.venv.exists():
            shutil.rmtree(args.venv)
        if args.pack:
            make_offline(args.venv.resolve(), args.pack.resolve())
        else:
            make_online(args.venv.resolve(), architecture)
        ready.touch()
    build(args.venv.resolve(), architecture, offline=args.pack is not None)


if __name__ == "__main__":
    main()
