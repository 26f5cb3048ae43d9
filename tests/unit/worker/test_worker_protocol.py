"""The trainer's lines as input: checked, cleaned, and kept inside the run folder."""

import json
from pathlib import Path

import pytest

from jobs.adapters import formats_in
from worker.protocol import CheckpointEvent, LogEvent, MetricEvent, ProtocolError, SampleEvent, parse_event, path_inside


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def test_values_that_are_not_finite_are_left_out() -> None:
    event = parse_event(b'{"type":"metric","step":3,"values":{"a":1,"b":NaN,"c":null,"d":Infinity,"e":0.5,"f":"x"}}')
    assert event == MetricEvent(type="metric", step=3, values={"a": 1.0, "e": 0.5})


def test_new_fields_of_a_newer_trainer_are_ignored() -> None:
    event = parse_event(line(type="log", level="info", message="hello", colour="red"))
    assert event == LogEvent(type="log", level="info", message="hello")


def test_text_that_the_database_cannot_hold_is_replaced() -> None:
    """PostgreSQL takes neither NUL nor half of a surrogate pair; both are legal in JSON."""
    event = parse_event(rb'{"type":"log","level":"info","message":"a\u0000b\ud800c \ud83d\ude00"}')
    assert isinstance(event, LogEvent)
    assert event.message == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c \N{GRINNING FACE}"


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"type":"unknown"}',
        b'{"type":"metric","step":-1,"values":{}}',
        b'{"type":"metric","step":99999999999,"values":{}}',
        line(type="checkpoint", step=1, kind="state", path="x", files=[]),
        line(type="checkpoint", step=1, kind="state", path="x", files=[{"path": "a", "sha256": "0", "size_bytes": 1}]),
        line(type="sample", step=1, kind="evaluation", path="a", prompt="p", seed=2**64),
        line(type="log", message="x" * 2_000_000),
    ],
)
def test_anything_else_is_an_error(bad: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_event(bad)


def test_a_checkpoint_and_a_sample_as_the_trainer_writes_them() -> None:
    files = [{"path": "adapter.safetensors", "sha256": "ab" * 32, "size_bytes": 123}]
    event = parse_event(line(type="checkpoint", step=25, kind="state", path="c", files=files, eval_reward=None))
    assert isinstance(event, CheckpointEvent)
    assert event.files[0].size_bytes == 123
    sample = parse_event(
        line(
            type="sample", step=0, kind="evaluation", path="s", prompt="p", seed=1, rewards={"shapes": 0.5}, passed=True
        )
    )
    assert isinstance(sample, SampleEvent)
    assert sample.rewards == {"shapes": 0.5}


def test_no_path_leads_out_of_the_run_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "secret").write_text("s")
    (run / "link").symlink_to(tmp_path / "secret")
    assert path_inside(run, "samples/a.png") == run / "samples" / "a.png"
    for bad in ["../secret", "/etc/passwd", "link", "a/../../secret", "a/../b", "", "."]:
        with pytest.raises(ProtocolError):
            path_inside(run, bad)


def test_an_adapters_formats_are_seen_by_its_files() -> None:
    assert formats_in(["pytorch_lora_weights.safetensors", "README.md"]) == "diffusers"
    files = ["peft/adapter_config.json", "peft/adapter_model.safetensors", "comfyui_lora.safetensors"]
    assert formats_in(["pytorch_lora_weights.safetensors", *files]) == "diffusers,peft,comfyui"
    assert formats_in(["adapter.safetensors"]) is None
