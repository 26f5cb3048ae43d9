"""Random pipelines in FLUX.1's layout, built once per test run; those of all families are in `families`."""

from __future__ import annotations

from pathlib import Path

import pytest
from families.flux import build_random_flux


@pytest.fixture(scope="session")
def random_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder in FLUX.1-dev's layout: embedded guidance, dynamic shift."""
    return build_random_flux(tmp_path_factory.mktemp("models") / "random-flux-dev")


@pytest.fixture(scope="session")
def random_flux_schnell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder in FLUX.1-schnell's layout: no embedded guidance, no dynamic shift."""
    return build_random_flux(tmp_path_factory.mktemp("models") / "random-flux-schnell", guidance_embeds=False)
