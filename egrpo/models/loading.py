"""Gets a stock pipeline from a folder or the hub: safetensors only, no code from the model, errors that say what to do.

What is wrong is found before weights are read: `model_index.json` comes first and alone, then the files that it asks
for are looked for. A gated, missing or unreachable repository so ends in seconds.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from egrpo.errors import ModelError, ModelGatedError

INDEX = "model_index.json"
# Seconds until an unreachable hub counts as such; its client takes 10.
_HUB_TIMEOUT_S = 5
_LIBRARIES = ("diffusers", "transformers")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
# Components that have no weights, by the end of their class names.
_WITHOUT_WEIGHTS = ("Tokenizer", "TokenizerFast", "Scheduler", "Processor", "ProcessorFast", "FeatureExtractor")


def read_index(source: str, revision: str | None) -> dict[str, Any]:
    """Returns the `model_index.json` of a folder or repository: its pipeline class and its components.

    Raises:
        ModelGatedError: the repository is gated and this machine has no access.
        ModelError: there is no such file, or it asks for code from outside diffusers and transformers.
    """
    folder = Path(source)
    path = folder / INDEX if folder.is_dir() else _download_index(source, revision)
    if not path.is_file():
        raise _error(source, f"it has no {INDEX}; allowed: a pipeline as diffusers' save_pretrained writes it")
    try:
        index = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _error(source, f"its {INDEX} cannot be read: {error}") from error
    if not isinstance(index, dict):
        raise _error(source, f"its {INDEX} is no JSON object")
    foreign = [name for name, part in _components(index) if part[0] not in _LIBRARIES]
    if isinstance(index.get("_class_name"), list) or foreign:
        what = f"the components {foreign}" if foreign else "its pipeline class"
        raise _error(source, f"{INDEX} asks for code of the model's own ({what}); allowed: {list(_LIBRARIES)}")
    return index


def load_pipeline(
    pipeline_class: type[Any],
    source: str,
    revision: str | None,
    dtype: torch.dtype | dict[str, torch.dtype],
    given: dict[str, Any],
) -> Any:
    """Returns the stock pipeline with the `given` components in place of its own; None leaves one out.

    Raises:
        ModelGatedError: the repository is gated and this machine has no access.
        ModelError: something is missing, or there are weights that are no safetensors.
    """
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    index = read_index(source, revision)
    # A component that the model itself leaves out, such as SD3's T5; diffusers wants to be told.
    given = {name: None for name, part in index.items() if part == [None, None]} | given
    try:
        folder = Path(source) if Path(source).is_dir() else _snapshot(pipeline_class, source, revision, index, given)
        _check_files(source, folder, index, given)
        return pipeline_class.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True, **given)
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise _hub_error(source, revision, error) from error


def _snapshot(
    pipeline_class: type[Any], source: str, revision: str | None, index: dict[str, Any], given: dict[str, Any]
) -> Path:
    """Returns the folder of a repository's files, from the hub's cache if they are all there."""
    arguments = {"revision": revision, "use_safetensors": True, **dict.fromkeys(given)}
    try:
        folder = Path(pipeline_class.download(source, local_files_only=True, **arguments))
        _check_files(source, folder, index, given)
        return folder
    except (OSError, ValueError, ModelError):
        _reach(source, revision)
        return Path(pipeline_class.download(source, **arguments))


def _download_index(source: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source, INDEX, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        _reach(source, revision)
    try:
        return Path(hf_hub_download(source, INDEX, revision=revision))
    except (OSError, ValueError) as error:
        raise _hub_error(source, revision, error) from error


def _reach(source: str, revision: str | None) -> None:
    """Asks the hub for the index once: the downloads themselves try for half a minute before they give up."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        get_hf_file_metadata(hf_hub_url(source, INDEX, revision=revision), timeout=_HUB_TIMEOUT_S)
    except (OSError, ValueError, _http_error()) as error:
        raise _hub_error(source, revision, error) from error


def _components(index: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for name, part in index.items():
        if isinstance(part, list) and len(part) == 2 and part[0] is not None and not name.startswith("_"):
            yield name, part


def _check_files(source: str, folder: Path, index: dict[str, Any], given: Collection[str]) -> None:
    for name, (_, class_name) in _components(index):
        if name in given:
            continue
        part = folder / name
        if not part.is_dir():
            raise _error(source, f"its component {name!r} ({class_name}) is missing: there is no folder {part}")
        if not class_name.endswith(_WITHOUT_WEIGHTS):
            _check_weights(source, part)


def _check_weights(source: str, part: Path) -> None:
    if not any(part.glob("*.safetensors")):
        pickles = sorted(path.name for path in part.iterdir() if path.suffix in _PICKLES)
        if not pickles:
            raise _error(source, f"its component {part.name!r} has no weights: {part} holds no *.safetensors")
        raise _error(
            source,
            f"its component {part.name!r} has weights as pickles ({', '.join(pickles)}), which may run code when they "
            "are read; allowed: *.safetensors. Load the pipeline where you trust it and write it again by "
            "save_pretrained(folder, safe_serialization=True)",
        )
    for shards in part.glob("*.safetensors.index.json"):
        names = set(json.loads(shards.read_text())["weight_map"].values())
        missing = sorted(name for name in names if not (part / name).is_file())
        if missing:
            raise _error(source, f"its component {part.name!r} is not whole: missing {', '.join(missing)} in {part}")


def _hub_error(source: str, revision: str | None, error: Exception) -> ModelError:
    """Returns what an exception of the hub's client or of diffusers means, and what to do."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return ModelGatedError(
            f"base model {source!r} is gated: accept its licence at {constants.ENDPOINT}/{source} and, where the "
            "trainer runs, set HF_TOKEN to a token of that account or run: hf auth login"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return _error(source, f"the repository has no revision {revision!r}; allowed: a commit of 40 hex digits")
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return _error(
            source,
            f"there is no such folder, and no such repository at {constants.ENDPOINT} that this machine may see; check "
            "the name, and set HF_TOKEN or run hf auth login if the repository is private",
        )
    # What the hub answered is an error of both kinds; what is only the HTTP client's never came to an answer.
    unanswered = isinstance(error, _http_error()) and not isinstance(error, errors.HfHubHTTPError)
    if unanswered or isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return _error(
            source,
            f"the hub at {constants.ENDPOINT} cannot be reached and not all files are in the cache "
            f"{constants.HF_HUB_CACHE}; where there is a network run: hf download {source} --revision {revision}, and "
            "bring that folder here (HF_HUB_CACHE)",
        )
    if isinstance(error, errors.EntryNotFoundError):
        return _error(source, f"the repository has no {INDEX} at {revision!r}; allowed: a diffusers pipeline")
    return _error(source, str(error))


def _http_error() -> type[Exception]:
    """Returns the base of the errors of the HTTP client that the hub's client uses, which depends on its version."""
    from huggingface_hub import errors

    base: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    return base


def _error(source: str, reason: str) -> ModelError:
    return ModelError(f"base model {source!r} cannot be loaded: {reason}")
