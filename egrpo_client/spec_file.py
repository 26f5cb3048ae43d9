"""Reading a job spec from a YAML or JSON file."""

from pathlib import Path
from typing import cast

import yaml

from egrpo_client.errors import SpecFileError
from egrpo_client.models import JobSpec


def read_spec(path: Path, *, seed: int | None = None, steps: int | None = None) -> JobSpec:
    """Returns the spec of the file, with the training seed and steps replaced where given.

    What the fields mean is the service's to judge: it names every wrong one at once.

    Raises:
        SpecFileError: no such file, not YAML, or not a mapping.
    """
    try:
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SpecFileError(f"There is no file {path}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpecFileError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise SpecFileError(f"{path} is not YAML: {error}") from error
    if not isinstance(spec, dict):
        raise SpecFileError(f"{path} holds no mapping; a spec starts with `base_model: …`.")
    replaced = {name: value for name, value in (("seed", seed), ("steps", steps)) if value is not None}
    if replaced:
        training = spec.get("training") or {}
        spec["training"] = {**training, **replaced} if isinstance(training, dict) else training
    return cast(JobSpec, spec)
