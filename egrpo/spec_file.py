"""Reads a spec file. Free of torch."""

from __future__ import annotations

from pathlib import Path

import yaml

from egrpo.config import TrainSpec, parse_spec
from egrpo.errors import ConfigError


def read_spec(path: Path) -> TrainSpec:
    """Returns the spec of a YAML or JSON file.

    Raises:
        ConfigError: it cannot be read, is no YAML, or is wrong; the message names every field.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    return parse_spec(document)
