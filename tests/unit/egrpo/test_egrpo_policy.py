"""What the spec says of optimizer, learning rate, precision and of what is trained."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from egrpo_runs import Redness, short_spec
from safetensors.torch import load_file

from egrpo.config import TrainingSpec, parse
from egrpo.errors import ConfigError, NonFiniteError
from egrpo.evaluate import WeightedReward
from egrpo.optimizer import check_optimizer, learning_rates, load_optimizer, make_optimizer, optimizer_tensors
from egrpo.precision import LossScale, Precision, choose_precision
from egrpo.train import train

REWARDS = [WeightedReward(Redness(), 1.0)]
CPU = torch.device("cpu")


def rates(**training: Any) -> list[float]:
    spec = parse(TrainingSpec, {"steps": 20, "learning_rate": 0.5, **training})
    return [learning_rates(spec)(step) for step in range(20)]


@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize("name", ["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts"])
def test_learning_rates_follow_their_closed_forms(name: str, warmup: int) -> None:
    """Step s of a warm-up of W has (s + 1)/W; then d = (s - W)/(N - W) of the rest is done."""
    after = {
        "constant": lambda d: 1.0,
        "constant_with_warmup": lambda d: 1.0,
        "linear": lambda d: 1 - d,
        "cosine": lambda d: (1 + math.cos(math.pi * d)) / 2,
        "cosine_with_restarts": lambda d: (1 + math.cos(math.pi * (3 * d % 1))) / 2,
    }[name]
    expected = [(step + 1) / warmup if step < warmup else after((step - warmup) / (20 - warmup)) for step in range(20)]
    assert rates(lr_schedule=name, warmup_steps=warmup, lr_cycles=3) == pytest.approx([r / 2 for r in expected], 1e-14)


def test_learning_rates_with_numbers_of_their_own() -> None:
    squares = rates(lr_schedule="polynomial", lr_power=2, warmup_steps=4)
    assert squares == pytest.approx(
        [0.125, 0.25, 0.375, 0.5] + [(0.5 - 1e-7) * (1 - s / 16) ** 2 + 1e-7 for s in range(16)]
    )
    assert rates(lr_schedule="piecewise_constant", lr_step_rules="1:3,0.1:5,0.02")[1:7] == pytest.approx(
        [0.5, 0.5, 0.05, 0.05, 0.01, 0.01]
    )


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"mode": "full", "lora": {"rank": 4}}, "/lora: mode 'full' trains the transformer itself"),
        ({"mode": "full", "kl_weight": 0.1}, "/kl_weight: the KL term compares with the base model"),
        ({"sharding": "fsdp2"}, "/sharding: sharding 'fsdp2' goes with mode 'full'; allowed: 'none'"),
        (
            {"mode": "full", "optimizer": "adamw_8bit", "sharding": "fsdp2"},
            "/sharding: .* not 'adamw_8bit'; allowed: 'none'",
        ),
        ({"lora": None}, "/lora: mode 'lora' needs the section lora"),
        ({"lr_step_rules": "1:2,0.5"}, "/lr_schedule: .* need each other"),
        ({"lr_schedule": "piecewise_constant"}, "/lr_schedule: .* need each other"),
        ({"lr_schedule": "piecewise_constant", "lr_step_rules": "0.1:x"}, "/lr_step_rules"),
        ({"lr_schedule": "polynomial", "learning_rate": 1e-8}, "learning_rate must be above"),
        ({"lr_schedule": "polynomial", "steps": 5, "warmup_steps": 5}, "warmup_steps below steps"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(training: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse(TrainingSpec, training)
    assert "default factory" not in str(caught.value)


def test_a_full_fine_tune_has_one_format() -> None:
    with pytest.raises(ConfigError, match=r"/export/formats/0: .*'peft' is a format of adapters.*'diffusers'"):
        short_spec(Path("/"), training={"mode": "full", "lora": None}, export={"formats": ["peft"]})


def test_defaults_go_with_the_mode() -> None:
    lora, full = parse(TrainingSpec, {}), parse(TrainingSpec, {"mode": "full"})
    assert (lora.learning_rate, lora.lora is not None) == (2e-4, True)
    assert (full.learning_rate, full.lora) == (2e-6, None)
    assert parse(TrainingSpec, full.model_dump(mode="json")) == full


def test_8bit_adam_is_refused_before_the_model_is_loaded(random_flux: Path, tmp_path: Path) -> None:
    spec = short_spec(random_flux, training={"optimizer": "adamw_8bit"})
    with pytest.raises(ConfigError, match="needs a CUDA device, here is cpu; allowed: 'adamw'"):
        train(spec, tmp_path, rewards=REWARDS)
    with pytest.raises(ConfigError, match="needs the package bitsandbytes"):
        check_optimizer(spec.training, torch.device("cuda"))


def test_adamw_by_hand() -> None:
    """Two steps with the gradients 1 and -3: decayed moments without bias, and decay of the weight itself."""
    parameter = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    spec = TrainingSpec(learning_rate=0.1, weight_decay=0.5, adam_beta1=0.8, adam_beta2=0.6)
    optimizer = make_optimizer([("weight", parameter)], spec)
    expected, first, second = 2.0, 0.0, 0.0
    for step, gradient in enumerate((1.0, -3.0), start=1):
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        first, second = 0.8 * first + 0.2 * gradient, 0.6 * second + 0.4 * gradient**2
        moved = (first / (1 - 0.8**step)) / ((second / (1 - 0.6**step)) ** 0.5 + 1e-8)
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * moved
        assert parameter.item() == pytest.approx(expected, rel=1e-9)


def test_optimizer_state_with_integers_and_bytes_comes_back() -> None:
    """The state as bitsandbytes keeps it: a Python integer, uint8 blocks and their scales."""
    parameter = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.AdamW([parameter])
    state = {"step": 7, "state1": torch.arange(4, dtype=torch.uint8), "absmax1": torch.tensor([0.5])}
    optimizer.state[parameter] = dict(state)
    tensors = optimizer_tensors(optimizer, [("w", parameter)])
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    load_optimizer(optimizer, [("w", parameter)], tensors)
    back = optimizer.state[parameter]
    assert back["step"] == 7
    assert isinstance(back["step"], int)
    assert torch.equal(back["state1"], state["state1"])
    assert back["state1"].dtype == torch.uint8


def test_auto_precision_on_a_cpu_is_float32() -> None:
    assert choose_precision("auto", CPU) == Precision(torch.float32, "on cpu nothing else is faster")
    assert choose_precision("bfloat16", CPU) == Precision(torch.bfloat16, "the spec names it")


def test_a_step_whose_float16_gradients_overflow_is_skipped() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scale = LossScale(Precision(torch.float16, ""), CPU)

    def step(gradient: float) -> bool:
        parameter.grad = torch.full_like(parameter, gradient) * scale.scale(torch.tensor(1.0))
        scale.unscale(optimizer)
        return scale.step(optimizer)

    assert step(0.25)
    assert torch.equal(parameter.detach(), torch.full((2,), 0.75))
    assert not step(math.inf)
    assert torch.equal(parameter.detach(), torch.full((2,), 0.75))
    saved = scale.tensors()
    assert float(saved["scale"]) == 2**15
    for _ in range(15):
        step(math.inf)
    with pytest.raises(NonFiniteError, match="loss scale below 1"):
        step(math.inf)
    scale.load(saved)
    assert float(scale.tensors()["scale"]) == 2**15


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # torch's slower kernel under autocast
def test_a_full_fine_tune_leaves_a_transformer_that_diffusers_loads(random_flux: Path, tmp_path: Path) -> None:
    training = {"mode": "full", "lora": None, "learning_rate": 1e-4, "steps": 2, "precision": "bfloat16"}
    spec = short_spec(random_flux, training={**training, "ema_decay": 0.5})
    train(spec, tmp_path, rewards=REWARDS)
    exported = FluxTransformer2DModel.from_pretrained(tmp_path / "adapter").state_dict()
    base = FluxTransformer2DModel.from_pretrained(random_flux / "transformer").state_dict()
    assert exported.keys() == base.keys()
    # Below what bfloat16 resolves of most weights: they were kept, and moved, in float32.
    moved = [float((exported[name] - base[name]).abs().max()) for name in base]
    assert 0 < max(moved) < 1e-3
    assert sum(m > 0 for m in moved) > len(moved) / 2
    checkpoint = tmp_path / "checkpoints" / "step-000002"
    assert load_file(checkpoint / "transformer.safetensors").keys() == base.keys()
    assert not (checkpoint / "adapter.safetensors").exists()
    # The average, not the trained weights, is what is exported.
    averages = load_file(checkpoint / "ema.safetensors")
    assert all(torch.equal(exported[name], averages[name]) for name in averages)


def test_a_resumed_full_fine_tune_redraws_the_base_images(random_flux: Path, tmp_path: Path) -> None:
    training = {"mode": "full", "lora": None, "learning_rate": 1e-3, "steps": 2}
    spec = short_spec(random_flux, training=training)
    train(spec, tmp_path, rewards=REWARDS)
    sheet = (tmp_path / "contact_sheet.png").read_bytes()
    for path in (tmp_path / "samples" / "step-000000").iterdir():
        path.unlink()
    train(spec, tmp_path, rewards=REWARDS, resume=True)
    assert (tmp_path / "contact_sheet.png").read_bytes() == sheet


def test_float16_trains_a_float32_adapter(random_flux: Path, tmp_path: Path) -> None:
    spec = short_spec(random_flux, training={"steps": 2, "precision": "float16"})
    train(spec, tmp_path, rewards=REWARDS)
    adapter = load_file(tmp_path / "checkpoints" / "step-000002" / "adapter.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}
    assert any(float(tensor.abs().max()) > 1e-5 for name, tensor in adapter.items() if "lora_B" in name)
    assert (tmp_path / "checkpoints" / "step-000002" / "loss_scale.safetensors").exists()
