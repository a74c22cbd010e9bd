"""Finds a checkpoint's files and reads the headers of its weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError, RequestError
from .jsonfile import Fields, read_fields
from .safetensors_file import StoredTensor, read_header

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"

Headers = Callable[[str], Mapping[str, StoredTensor]]  # file name -> its tensors


@dataclass(frozen=True)
class Checkpoint:
    """A folder with the small files, and the tensors that the weight files hold, by name."""

    folder: Path
    tensors: Mapping[str, StoredTensor]


def open_checkpoint(src: str | os.PathLike[str], revision: str | None, *, weights: bool) -> Checkpoint:
    """Open a local folder, or a hub repository ``owner/name`` at ``revision``.

    weights: whether the tensors will be read. If not, only the headers of a hub repository's weights are fetched.
    Raises CheckpointError where there is no such checkpoint or its files do not fit together.
    """
    folder = Path(src)
    if os.path.isdir(folder):  # unlike Path's, this answers no to a name that no file can have
        if revision is not None:
            raise RequestError(f"{src}: is a folder here; a revision can be chosen for a hub repository only")
        folder = folder.resolve()
        return Checkpoint(folder, _tensors(folder, lambda name: read_header(folder / name)))
    if os.path.exists(folder):
        raise CheckpointError(f"{src}: is a file; give the folder that holds config.json and the weights")

    from . import hub  # its import takes long, and local folders do without

    repo_id = str(src)
    if not hub.is_repo_id(repo_id):
        raise CheckpointError(f"{src}: no such folder, nor a hub repository's owner/name")
    snapshot = hub.fetch_small_files(repo_id, revision)
    if not weights:
        return Checkpoint(snapshot, _tensors(snapshot, lambda name: hub.fetch_header(repo_id, snapshot, name)))
    hub.fetch_weights(repo_id, snapshot, weight_files(snapshot))
    return Checkpoint(snapshot, _tensors(snapshot, lambda name: read_header(snapshot / name)))


def weight_files(folder: Path) -> Sequence[str]:
    """Names of the weight files: those that the index names, or the single one."""
    index = folder / INDEX
    return sorted(set(_weight_map(read_fields(index)).values())) if index.exists() else [SINGLE]


def _tensors(folder: Path, headers: Headers) -> dict[str, StoredTensor]:
    index = folder / INDEX
    if not index.exists():
        return dict(headers(SINGLE))
    named = _weight_map(read_fields(index))
    shards = {file: headers(file) for file in sorted(set(named.values()))}
    found: dict[str, StoredTensor] = {}
    for file, tensors in shards.items():
        for name, tensor in tensors.items():
            if named.get(name) != file:
                raise CheckpointError(f"{tensor.file}: holds tensor {name!r}, which {index} does not place there")
            found[name] = tensor
    for name, file in named.items():
        if name not in found:
            raise CheckpointError(f"{folder / file}: lacks tensor {name!r}, which {index} places there")
    return found


def _weight_map(index: Fields) -> dict[str, str]:
    """Tensor name -> file name, with file names that stay within the folder."""
    places: dict[str, str] = {}
    weight_map = index.object("weight_map")
    for name in weight_map.data:
        file = weight_map.text(name)
        if not file.endswith(".safetensors") or Path(file).name != file or "\\" in file:
            weight_map.fail(name, f"is {file!r}, which is not the name of a safetensors file beside the index")
        places[name] = file
    if not places:
        index.fail("weight_map", "is empty")
    return places
