"""Repositories of the model hub, or of a mirror of it (HF_ENDPOINT): only the files that a stage needs.

These are the configuration, the tokenizer and the safetensors files of the top folder; pickles and Python files are
never fetched, since loading them runs code. `http_get` is called for each file, because `snapshot_download` of
huggingface_hub 2.4 does not resume a file that another process began.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.base import WeightsMissing
from models.weights.downloads import Advance, File
from strata.core import StageSettings

TEXTS = (".json", ".txt", ".model", ".jinja")  # configuration, vocabularies, chat templates
HUB = "https://huggingface.co"


def needed(names: Iterable[str], backend: str) -> list[str]:
    """The files of a repository that a back end loads, sorted. They include no weights if none are in safetensors.

    transformers prefers `model.safetensors` to the numbered files; open_clip uses other names.
    """
    # only the top folder: subfolders hold other formats (onnx, gguf)
    names = {name for name in names if "/" not in name}
    stem = "open_clip_model" if backend == "open_clip" else "model"
    whole = f"{stem}.safetensors"
    numbered = {name for name in names if re.fullmatch(rf"{stem}-\d+-of-\d+\.safetensors", name)}
    return sorted({name for name in names if name.endswith(TEXTS)} | ({whole} if whole in names else numbered))


class Hub:
    """The model hub, configured by the environment: HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE."""

    def __init__(self) -> None:
        self.endpoint = os.environ.get("HF_ENDPOINT") or HUB

    def origin(self, settings: StageSettings) -> str:
        """The hub's address."""
        return self.endpoint

    def commit(self, settings: StageSettings) -> str:
        """The commit that a branch, a tag or an empty revision names now. Raises WeightsMissing."""
        return str(self._info(settings).sha)

    def files(self, settings: StageSettings) -> list[File]:
        """The files that a stage needs, with the hub's sizes and hashes. Raises WeightsMissing."""
        siblings = {sibling.rfilename: sibling for sibling in self._info(settings).siblings or ()}
        chosen = needed(siblings, settings.backend)
        if not any(name.endswith(".safetensors") for name in chosen):
            at = f"{_repository(settings)} at {settings.revision[:12]}"
            raise WeightsMissing(f"{at} has no weights as safetensors; pickles are not loaded")
        return [_file(siblings[name]) for name in chosen]

    def _info(self, settings: StageSettings) -> Any:
        from huggingface_hub import HfApi

        with _one_line_errors(settings):
            api = HfApi(endpoint=self.endpoint)
            return api.model_info(_repository(settings), revision=settings.revision or None, files_metadata=True)

    def fetch_file(self, settings: StageSettings, file: File, target: Path, advance: Advance) -> None:
        """Append the missing rest of a file to the target by an HTTP range request. Raises WeightsMissing."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        url = hf_hub_url(_repository(settings), file.name, revision=settings.revision, endpoint=self.endpoint)
        # a part that is longer than the file cannot be its beginning
        if target.is_file() and target.stat().st_size > file.size:
            target.unlink()
        with _one_line_errors(settings), target.open("ab") as sink:
            bar: Any = functools.partial(_Bar, advance)
            http_get(
                url,
                sink,
                resume_size=sink.tell(),
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.name,
                tqdm_class=bar,
            )


class _Bar:
    """A replacement for the tqdm class that `http_get` expects; it passes the byte counts on to `advance`."""

    def __init__(self, advance: Advance, **_: object) -> None:
        self.update = advance

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _repository(settings: StageSettings) -> str:
    return settings.model.partition(":")[2]


def _file(sibling: Any) -> File:
    """A file of the hub's answer. Only large files (LFS) come with a SHA-256, the others with a git blob hash."""
    size = sibling.lfs.size if sibling.lfs else sibling.size
    return File(sibling.rfilename, size, sibling.lfs.sha256 if sibling.lfs else "", sibling.blob_id or "")


@contextmanager
def _one_line_errors(settings: StageSettings) -> Iterator[None]:
    """Turn the hub's errors, and those of the connection, into WeightsMissing with a message of one line."""
    import httpx2
    from huggingface_hub import errors

    # the most specific errors first: a gated repository is also a RepositoryNotFoundError
    name = _repository(settings)
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise WeightsMissing(f"{name} is not on this machine, and HF_HUB_OFFLINE is set") from error
    except errors.GatedRepoError as error:
        raise WeightsMissing(f"{name} is gated: accept its terms on the hub and set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise WeightsMissing(f"{name} has no revision {settings.revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsMissing(f"{name} does not exist, or is private: set HF_TOKEN") from error
    except httpx2.ConnectError as error:
        hub = os.environ.get("HF_ENDPOINT") or HUB
        raise WeightsMissing(f"{name} cannot be downloaded: {hub} cannot be reached ({error})") from error
    except (httpx2.HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsMissing(f"{name} cannot be downloaded: {reason}") from error
