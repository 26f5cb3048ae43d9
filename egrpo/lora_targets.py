"""Which layers `training.lora.targets` means, by their names alone. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from egrpo.errors import ConfigError


def targeted(layers: Sequence[str], targets: str | Sequence[str], target_sets: Mapping[str, str]) -> list[str]:
    """Returns which of a transformer's linear layers are of a named set, or end in one of the given names.

    `target_sets` is the family's: regular expressions over full names.

    Raises:
        ConfigError: a name fits no layer; the message lists the kinds of layers there are.
    """
    if isinstance(targets, str):
        return [name for name in layers if re.search(target_sets[targets], name)]
    chosen = []
    for target in targets:
        matches = [name for name in layers if name == target or name.endswith(f".{target}")]
        if not matches:
            kinds = sorted({re.sub(r"^.*\.\d+\.(?=[a-z])", "", name) for name in layers})
            raise ConfigError(f"/training/lora/targets: {target!r} fits no linear layer; allowed: {kinds}")
        chosen += matches
    return sorted(set(chosen))
