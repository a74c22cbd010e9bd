"""GGUF models on the Hugging Face hub: ``OWNER/NAME[:QUANT]`` to a file on this disk, fetched when it is not there yet.

Files lie in the hub library's own cache, and its token is used (``HF_TOKEN``, or what ``hf auth login`` stored). Where
the hub cannot be reached, what the cache holds will do.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

from .errors import FileError, RequestError

DEFAULT_QUANT = "Q4_K_M"
_SECONDS = 10.0  # for the list of files; a download has the hub library's own patience

_ENDING = ".gguf"
_SPEC = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<quant>.+))?")
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})$")
# How file names spell the types of ggml, with Unsloth's prefix for the mixtures it calls dynamic.
_QUANT = re.compile(
    r"(?<![^\W_])((?:UD-)?(?:I?Q\d(?:_[0-9A-Z]+)*|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4|BF16|F16|F32))(?![^\W_])", re.IGNORECASE
)
_NO_MODEL = ("mmproj", "imatrix")  # companions of a model that are GGUF files too

T = TypeVar("T")


class _Unreachable(Exception):
    """No answer came from the hub; the message is the reason."""


@dataclass(frozen=True)
class ModelFiles:
    """A model in a repository: one GGUF file, or all the files of a split set in their order."""

    names: tuple[str, ...]  # paths inside the repository
    bytes: int

    @property
    def stem(self) -> str:
        """The path without the ending and without the number of a split."""
        return _SPLIT.sub("", self.names[0][: -len(_ENDING)])

    @property
    def complete(self) -> bool:
        split = _SPLIT.search(self.names[0][: -len(_ENDING)])
        return split is None or len(self.names) == int(split[2])

    @property
    def label(self) -> str:
        """What a person asks for: the type that the path names, or else the file's name."""
        found = _QUANT.findall(self.stem)
        return str(found[-1]) if found else self.stem.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.label} ({_size(self.bytes)})"


def resolve(spec: str, filename: str | None = None, revision: str | None = None) -> Path:
    """The local path of a model on the hub, downloaded first where the cache lacks it, with the hub's progress bar.

    ``spec`` is "OWNER/NAME" or "OWNER/NAME:QUANT", as in "unsloth/diffusiongemma-26B-A4B-it-GGUF:Q4_K_M"; without a
    quant it is Q4_K_M, or the only model there is. In place of the quant a file's name may stand, and ``filename``
    gives a file's whole path in the repository. Of a split set every file is fetched and the first one's path returned.

    Raises ``RequestError`` for a spec that is none, ``FileError`` where the hub or the cache has no such model.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise RequestError(f"{spec!r} is no hub repository: it is written OWNER/NAME or OWNER/NAME:QUANT")
    repo, quant = match["repo"], filename or match["quant"]
    try:
        sizes, commit = _asked(repo, partial(_files_on_hub, repo, revision))
        names = pick(repo, sizes, quant).names
        paths = [_asked(repo, partial(_fetch, repo, name, commit)) for name in names]
        return paths[0]
    except _Unreachable as error:
        cached = _in_cache(repo, quant, revision)
        if cached is None:
            what = repo if quant is None else f"{repo}:{quant}"
            raise FileError(f"{what} is not in the cache, and the hub cannot be reached: {error}") from None
        return cached


def pick(repo: str, sizes: Mapping[str, int], quant: str | None) -> ModelFiles:
    """The model called ``quant`` among the files of a repository, which come with their sizes.

    Raises ``FileError`` with a list of what there is where no model, or more than one, is called so.
    """
    models = list_models(sizes)
    if not models:
        raise FileError(f"{repo} has no GGUF model: dgemma convert makes one of a checkpoint")
    found = _called(quant or DEFAULT_QUANT, models)
    if quant is None and not found:
        found = models
    if len(found) == 1:
        if not found[0].complete:
            raise FileError(f"{repo}: parts of the split set {found[0].stem} are missing: it has {len(found[0].names)}")
        return found[0]
    if quant is None:
        raise FileError(f"{repo} has no {DEFAULT_QUANT}: say which one, as {repo}:QUANT, of {_listed(models)}")
    if not found:
        raise FileError(f"{repo} has no {quant}: there is {_listed(models)}")
    names = ", ".join(files.names[0] for files in found)
    raise FileError(f"{repo} has more than one {quant}: name the file, as {repo}:FILE, of {names}")


def list_models(sizes: Mapping[str, int]) -> list[ModelFiles]:
    """All models among a repository's files, the smallest first."""
    sets: dict[str, dict[int, str]] = {}
    for name in sizes:
        if not name.lower().endswith(_ENDING) or any(word in name.lower() for word in _NO_MODEL):
            continue
        split = _SPLIT.search(name[: -len(_ENDING)])
        # Parts of one set share what is before the number; the count keeps apart two ways of splitting one model.
        key, number = (name, 1) if split is None else (f"{name[: split.start()]} of {split[2]}", int(split[1]))
        sets.setdefault(key, {})[number] = name
    models = []
    for parts in sets.values():
        names = tuple(parts[number] for number in sorted(parts))
        models.append(ModelFiles(names, sum(sizes[name] for name in names)))
    return sorted(models, key=lambda files: (files.bytes, files.names))


def _called(name: str, models: Sequence[ModelFiles]) -> list[ModelFiles]:
    """Models by the way they might be asked for; the first way that fits any decides."""
    wanted = name.lower()
    ways: tuple[Callable[[ModelFiles], bool], ...] = (
        lambda files: wanted in [path.lower() for path in files.names],
        lambda files: wanted in [path.lower().rpartition("/")[2] for path in files.names],
        lambda files: wanted == files.label.lower(),
        # "asym-2bit", which is no type of ggml; and Q4_K_M where all there is is UD-Q4_K_M.
        lambda files: re.search(rf"[-._/]{re.escape(wanted)}$", files.stem.lower()) is not None,
    )
    for way in ways:
        if found := [files for files in models if way(files)]:
            return found
    return []


def _files_on_hub(repo: str, revision: str | None) -> tuple[dict[str, int], str]:
    """Every file with its size, and the commit that has them: all parts of a set must come from one."""
    import huggingface_hub  # slow to import, and only -hf needs it

    info = huggingface_hub.HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=_SECONDS)
    return {file.rfilename: file.size or 0 for file in info.siblings or []}, info.sha or revision or "main"


def _fetch(repo: str, name: str, commit: str) -> Path:
    import huggingface_hub

    return Path(huggingface_hub.hf_hub_download(repo, name, revision=commit))


def _asked(repo: str, question: Callable[[], T]) -> T:
    """The hub's answer, with any refusal as one sentence, and silence as ``_Unreachable``."""
    from huggingface_hub import errors

    try:
        return question()
    except errors.GatedRepoError:
        _refuse(f"{repo} is gated: accept its terms at https://huggingface.co/{repo} and give a token (HF_TOKEN)")
    except errors.RepositoryNotFoundError:
        _refuse(f"the hub has no repository {repo}, or it is private and asks for a token (HF_TOKEN)")
    except errors.RevisionNotFoundError:
        _refuse(f"{repo} has no such revision")
    except errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code < 500:
            _refuse(f"the hub refused to give {repo}: {_first_line(error)}")
        raise _Unreachable(_first_line(error)) from None
    except Exception as error:  # a broken line raises what the HTTP library at hand raises, and that varies
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            _refuse(f"{repo} cannot be stored in the hub's cache: {error.strerror}")
        raise _Unreachable(_first_line(error)) from None


def _in_cache(repo: str, quant: str | None, revision: str | None) -> Path | None:
    """The first file of a model that is wholly in the cache; the newest where there are several versions."""
    from huggingface_hub import errors, scan_cache_dir

    try:
        repos = scan_cache_dir().repos
    except errors.CacheNotFound:
        return None
    cached = next((cached for cached in repos if (cached.repo_type, cached.repo_id) == ("model", repo)), None)
    for version in sorted(cached.revisions if cached else (), key=lambda version: -version.last_modified):
        if revision is not None and revision != version.commit_hash and revision not in version.refs:
            continue
        paths = {file.file_path.relative_to(version.snapshot_path).as_posix(): file for file in version.files}
        try:
            files = pick(repo, {name: file.size_on_disk for name, file in paths.items()}, quant)
        except FileError:
            continue  # an older version may have it
        return paths[files.names[0]].file_path
    return None


def _refuse(message: str) -> NoReturn:
    raise FileError(message) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _listed(models: Iterable[ModelFiles]) -> str:
    return ", ".join(map(str, models))


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
