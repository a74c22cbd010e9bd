"""Models on the hub, with the hub played by a table of files and a folder in its cache's layout."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from dgemma import FileError, RequestError
from dgemma.hub import list_models, pick, resolve

REPO = "unsloth/diffusiongemma-26B-A4B-it-GGUF"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "diffusiongemma-26B-A4B-it"
GB = 10**9

FILES = {
    ".gitattributes": 2_000,
    "README.md": 30_000,
    "config.json": 900,
    f"BF16/{NAME}-BF16-00001-of-00002.gguf": 49 * GB,
    f"BF16/{NAME}-BF16-00002-of-00002.gguf": 2 * GB,
    f"{NAME}-Q8_0.gguf": 27 * GB,
    f"{NAME}-Q6_K.gguf": 22 * GB,
    f"{NAME}-Q5_K_M.gguf": 19 * GB,
    f"{NAME}-UD-Q4_K_M.gguf": 17 * GB,
    f"{NAME}-Q4_K_M.gguf": 16_807_000_000,
    "mmproj-F16.gguf": GB,
    "imatrix_unsloth.gguf": GB // 5,
}


class Hub:
    """A repository of empty files, which lie in a cache as the hub library lays it out once they are asked for."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.files = dict(FILES)
        self.error: Exception | None = None
        self.fetched: list[str] = []
        self.revisions: list[str | None] = []

    @property
    def snapshot(self) -> Path:
        return self.cache / f"models--{REPO.replace('/', '--')}" / "snapshots" / COMMIT

    def model_info(self, repo: str, *, revision: str | None, files_metadata: bool, timeout: float) -> Any:
        assert (repo, files_metadata) == (REPO, True)
        self._answer()
        self.revisions.append(revision)
        siblings = [SimpleNamespace(rfilename=name, size=size) for name, size in self.files.items()]
        return SimpleNamespace(siblings=siblings, sha=COMMIT)

    def hf_hub_download(self, repo: str, name: str, *, revision: str) -> str:
        assert (repo, revision) == (REPO, COMMIT)
        self._answer()
        self.fetched.append(name)
        return str(self.store(name))

    def store(self, name: str, commit: str = COMMIT) -> Path:
        path = self.snapshot.with_name(commit) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    def _answer(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path)
    scan = huggingface_hub.scan_cache_dir
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.hf_hub_download)
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", lambda: scan(tmp_path))
    return hub


def refusal(kind: type[errors.HfHubHTTPError], status: int, words: str = "no\nRequest ID: 7") -> errors.HfHubHTTPError:
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return kind(words, response=response)


@pytest.mark.parametrize("quant", ["Q4_K_M", "q4_k_m", f"{NAME}-Q4_K_M.gguf"])
def test_a_quant_is_its_file(hub: Hub, quant: str) -> None:
    path = resolve(f"{REPO}:{quant}")
    assert path == hub.snapshot / f"{NAME}-Q4_K_M.gguf"
    assert hub.fetched == [path.name]


def test_no_quant_is_q4_k_m(hub: Hub) -> None:
    assert resolve(REPO).name == f"{NAME}-Q4_K_M.gguf"


def test_a_split_set_in_a_folder_is_fetched_whole(hub: Hub) -> None:
    first, second = (f"BF16/{NAME}-BF16-0000{number}-of-00002.gguf" for number in (1, 2))
    assert resolve(f"{REPO}:bf16") == hub.snapshot / first
    assert hub.fetched == [first, second]


def test_a_file_by_its_path_and_a_revision(hub: Hub) -> None:
    assert resolve(REPO, filename=f"{NAME}-Q8_0.gguf", revision="v2").name == f"{NAME}-Q8_0.gguf"
    assert hub.revisions == ["v2"]


def test_models_and_their_labels() -> None:
    labels = [str(files) for files in list_models(FILES)]
    assert labels == [
        "Q4_K_M (16.8 GB)",
        "UD-Q4_K_M (17.0 GB)",
        "Q5_K_M (19.0 GB)",
        "Q6_K (22.0 GB)",
        "Q8_0 (27.0 GB)",
        "BF16 (51.0 GB)",
    ]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("model.IQ2_XXS.gguf", "IQ2_XXS"),
        ("Model-f16.GGUF", "f16"),
        ("Q3_K_M/part-00001-of-00003.gguf", "Q3_K_M"),
        ("26B-A4B-asym-2bitexp.gguf", "26B-A4B-asym-2bitexp"),
        ("model-UD-IQ1_M-00001-of-00002.gguf", "UD-IQ1_M"),
        ("model-Q4_K_M-fixed.gguf", "Q4_K_M"),
    ],
)
def test_what_a_file_name_says(name: str, label: str) -> None:
    assert [files.label for files in list_models({name: 1})] == [label]


def test_the_only_model_needs_no_name() -> None:
    assert pick(REPO, {"a-2bitexp.gguf": 1, "mmproj-a.gguf": 1}, None).names == ("a-2bitexp.gguf",)
    assert pick(REPO, {"a-2bitexp.gguf": 1}, "2bitexp").names == ("a-2bitexp.gguf",)


@pytest.mark.parametrize(
    ("files", "quant", "message"),
    [
        (FILES, "Q3_K_S", f"{REPO} has no Q3_K_S: there is Q4_K_M (16.8 GB), UD-Q4_K_M (17.0 GB), Q5_K_M (19.0 GB), "),
        ({"a-Q8_0.gguf": GB, "a-F16.gguf": 2 * GB}, None, "has no Q4_K_M: say which one, as .*, of Q8_0 .*, F16 "),
        ({"a-Q8_0.gguf": GB, "b/a-Q8_0.gguf": GB}, "q8_0", "more than one q8_0: name the file, .*a-Q8_0.gguf, b/a-Q8_"),
        ({"config.json": 1, "mmproj-a.gguf": 1}, None, "has no GGUF model"),
        ({"a-Q8_0-00002-of-00002.gguf": 1}, "Q8_0", "parts of the split set a-Q8_0 are missing"),
    ],
)
def test_no_such_model(files: dict[str, int], quant: str | None, message: str) -> None:
    with pytest.raises(FileError, match=message.replace("(", r"\(").replace(")", r"\)")):
        pick(REPO, files, quant)


@pytest.mark.parametrize("spec", ["model.gguf", "a/b/c", "a/b:", "../b", "https://huggingface.co/a/b", "a b/c", ""])
def test_specs_that_are_none(hub: Hub, spec: str) -> None:
    with pytest.raises(RequestError, match="is no hub repository: it is written OWNER/NAME"):
        resolve(spec)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refusal(errors.RepositoryNotFoundError, 404), f"the hub has no repository {REPO}, or it is private"),
        (refusal(errors.GatedRepoError, 403), f"{REPO} is gated: accept its terms at https://huggingface.co/"),
        (refusal(errors.RevisionNotFoundError, 404), f"{REPO} has no such revision"),
        (refusal(errors.HfHubHTTPError, 429, "slow down\nRequest ID: 7"), "the hub refused to give .*: slow down$"),
        (OSError(errno.ENOSPC, "No space left on device"), "cannot be stored in the hub's cache: No space left"),
        (ConnectionError("no route"), "is not in the cache, and the hub cannot be reached: no route"),
        (errors.OfflineModeIsEnabled("offline"), "is not in the cache, and the hub cannot be reached: offline"),
        (refusal(errors.HfHubHTTPError, 503, "tired"), "is not in the cache, and the hub cannot be reached: tired"),
    ],
)
def test_refusals_are_one_sentence(hub: Hub, error: Exception, message: str) -> None:
    hub.error = error
    with pytest.raises(FileError, match=message) as caught:
        resolve(f"{REPO}:Q4_K_M")
    assert "\n" not in str(caught.value)


def test_without_network_the_cache_will_do(hub: Hub) -> None:
    path = resolve(f"{REPO}:Q8_0")
    hub.error = ConnectionError("no route")
    assert resolve(f"{REPO}:q8_0") == path
    assert resolve(REPO) == path  # the only one that is here
    with pytest.raises(FileError, match=r"Q4_K_M is not in the cache"):
        resolve(f"{REPO}:Q4_K_M")


def test_half_a_split_set_in_the_cache_is_none(hub: Hub) -> None:
    hub.store(f"BF16/{NAME}-BF16-00001-of-00002.gguf")
    hub.error = ConnectionError("no route")
    with pytest.raises(FileError, match="is not in the cache"):
        resolve(f"{REPO}:BF16")
    second = hub.store(f"BF16/{NAME}-BF16-00002-of-00002.gguf")
    assert resolve(f"{REPO}:BF16").parent == second.parent


def test_a_broken_line_in_the_middle_of_a_download(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> str:
        raise ConnectionError("connection reset")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", broken)
    with pytest.raises(FileError, match="is not in the cache, and the hub cannot be reached: connection reset"):
        resolve(REPO)
