"""Encoded prompts on disk: the same numbers, no text encoders, and nothing that a bad file or disk can spoil."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from egrpo_runs import Redness, short_spec
from transformers import T5EncoderModel

from egrpo.evaluate import WeightedReward
from egrpo.models.adapter import PromptEmbeds
from egrpo.models.embeds_cache import EmbedsCache, embeds_key
from egrpo.models.flux import FluxAdapter
from egrpo.train import train

PROMPTS = [f"a red circle {number}" for number in range(70)]


def same(a: PromptEmbeds, b: PromptEmbeds) -> bool:
    return a.tensors.keys() == b.tensors.keys() and all(torch.equal(a.tensors[n], b.tensors[n]) for n in a.tensors)


def encoders(model: FluxAdapter) -> list[Any]:
    return [model._pipeline.text_encoder, model._pipeline.text_encoder_2]


def test_what_is_read_is_what_was_encoded_and_loads_no_text_encoders(random_flux: Path, tmp_path: Path) -> None:
    cache = EmbedsCache(tmp_path)
    first, second = FluxAdapter.load(str(random_flux)), FluxAdapter.load(str(random_flux))
    plain = first.encode_prompts(PROMPTS)
    assert same(first.encode_prompts(PROMPTS, cache), plain)
    assert None not in encoders(first)
    assert len(list(tmp_path.iterdir())) == 2
    assert same(second.encode_prompts(PROMPTS, cache), plain)
    assert encoders(second) == [None, None]
    # Only what is new is encoded: the first 64 are one file.
    more = second.encode_prompts([*PROMPTS, "a blue square"], cache)
    assert None not in encoders(second)
    assert len(more) == 71
    assert len(list(tmp_path.iterdir())) == 3
    assert all(tensor.is_inference() is False for tensor in more.tensors.values())


def test_a_run_again_loads_no_text_encoders(random_flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted where the weights would be read, since a run frees the text encoders itself."""
    loads: list[str] = []
    read = T5EncoderModel.from_pretrained.__func__  # type: ignore[attr-defined]

    def counted(kind: type[T5EncoderModel], source: Any, *args: Any, **kwargs: Any) -> Any:
        loads.append(str(source))
        return read(kind, source, *args, **kwargs)

    monkeypatch.setattr(T5EncoderModel, "from_pretrained", classmethod(counted))
    monkeypatch.setenv("EGRPO_CACHE", str(tmp_path / "cache"))
    spec = short_spec(random_flux, training={"steps": 1})
    adapters = []
    for name in ("one", "two"):
        train(spec, tmp_path / name, rewards=[WeightedReward(Redness(), 1.0)])
        adapters.append((tmp_path / name / "adapter" / "pytorch_lora_weights.safetensors").read_bytes())
    assert len(loads) == 1
    assert adapters[0] == adapters[1]


def test_everything_that_decides_the_numbers_is_in_the_key() -> None:
    arguments: dict[str, Any] = {"digest": "d", "family": "flux", "dtypes": [torch.float32], "device_type": "cpu"}
    arguments |= {"length": 12, "prompts": ["a"]}
    others = [
        {"digest": "e"}, {"family": "sd3"}, {"dtypes": [torch.bfloat16]}, {"device_type": "cuda"}, {"length": 13},
        {"prompts": ["b"]}, {"prompts": ["a", "a"]}, {"prompts": ["a, b"]}, {"prompts": ["a", "b"]},
    ]  # fmt: skip
    keys = {embeds_key(**{**arguments, **other}) for other in [{}, *others]}
    assert len(keys) == 1 + len(others)
    assert embeds_key(**arguments) in keys


@pytest.mark.parametrize("damage", [b"", b"\x08\0\0\0\0\0\0\0notjson!", None])
def test_a_corrupt_file_is_made_anew(
    damage: bytes | None, random_flux: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Empty, nonsense, and cut short."""
    cache, model = EmbedsCache(tmp_path), FluxAdapter.load(str(random_flux))
    plain = model.encode_prompts(PROMPTS[:3], cache)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        assert same(model.encode_prompts(PROMPTS[:3], cache), plain)
    assert "are made anew" in caplog.text
    assert file.read_bytes() == whole


def test_the_files_used_longest_ago_go_first(tmp_path: Path) -> None:
    size = 4 * 1000
    cache = EmbedsCache(tmp_path, limit_bytes=3 * (size + 200))
    for index, key in enumerate("abc"):
        cache.put(key, {"x": torch.full((1000,), float(index))})
        os.utime(tmp_path / f"{key}.safetensors", (index, index))
    assert cache.get("a") is not None  # Used now, so younger than b.
    cache.put("d", {"x": torch.zeros(1000)})
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["a", "c", "d"]
    assert cache.get("b") is None


def test_a_folder_that_cannot_be_written_costs_a_warning(
    random_flux: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    model = FluxAdapter.load(str(random_flux))
    with caplog.at_level(logging.WARNING):
        embeds = model.encode_prompts(PROMPTS[:2], EmbedsCache(tmp_path / "file" / "embeds"))
    assert same(embeds, model.encode_prompts(PROMPTS[:2]))
    assert "cannot be kept" in caplog.text


def test_without_a_digest_nothing_is_kept(random_flux: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = FluxAdapter.load(str(random_flux))
    model.digest = None
    with caplog.at_level(logging.WARNING):
        model.encode_prompts(PROMPTS[:2], EmbedsCache(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert "no digest" in caplog.text


def test_the_folder_is_the_users_cache_unless_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EGRPO_CACHE", str(tmp_path))
    assert EmbedsCache.default().folder == tmp_path / "embeds"
    monkeypatch.delenv("EGRPO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert EmbedsCache.default().folder == tmp_path / "egrpo" / "embeds"
