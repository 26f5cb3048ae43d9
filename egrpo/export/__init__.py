"""What a finished run hands out: the adapter in the formats that others load, full weights, the model card.

`adapter` writes the formats, a module for each; `comfyui_keys` says how each family's layers are named there, and
which families have no such names; `card` writes the model card. Torch is imported only where something is written: the
spec is checked against `comfyui_keys` where there is no torch.

The same adapter is the same file, byte for byte, in every process: no time, nothing in the order of a hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from egrpo.export.base_model import BaseModel
    from egrpo.models.adapter import ModelAdapter


def export_adapter(
    model: ModelAdapter, folder: Path, formats: Sequence[str] = ("diffusers",), base: BaseModel | None = None
) -> list[str]:
    """Writes the adapter that is in place in each of the formats; returns the names of the files in `folder`.

    Args:
        model: the base with its adapter.
        folder: made if it is not there.
        formats: of `ExportSpec.formats`; the family must have them (`comfyui_keys.check_formats`).
        base: named in the formats that say what the adapter belongs to.
    """
    from egrpo.export.adapter import write_formats

    return write_formats(model, folder, formats, base)
