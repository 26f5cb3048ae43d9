"""`python -m egrpo plan`: the plan of a method, or of a spec file, as a table, as JSON and as a picture. Free of torch.

An option of the command is the field of `egrpo.methods` with that name; which of them a method has, its class says.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from egrpo import schedule
from egrpo.config import parse
from egrpo.errors import ConfigError
from egrpo.methods import METHODS, MethodSpec
from egrpo.own_schedule import sigmas_of
from egrpo.spec_file import read_spec

# The paper's shift; the schedule of a model is a matter of a spec file.
_SHIFT = 3.0
# Fields that are no part of a plan.
_NOT_OPTIONS = {"type", "guidance_scale"}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command; without a spec file, every option that is left out has its method's default."""
    parser = commands.add_parser("plan", help="which steps are stochastic and how far each reaches")
    parser.add_argument("spec", type=Path, nargs="?", metavar="SPEC.yaml", help="take method and schedule from a spec")
    parser.add_argument("--method", choices=list(METHODS), default=None, help="default: egrpo")
    fields = parser.add_argument_group("the method's", "options that the chosen method does not have are refused")
    fields.add_argument("--steps", dest="sampling_steps", type=int, help="sampling steps T, default 16")
    fields.add_argument("--shift", type=float, help="of the schedule, default 3")
    fields.add_argument("--kernel", choices=["flow_sde", "cps"])
    fields.add_argument("--eta", type=float, help="noise scale, default 0.7")
    fields.add_argument("--group-size", type=int)
    fields.add_argument("--dispersion-limit", type=float)
    fields.add_argument("--active-steps", type=_active_steps, help="leading fraction, 0.5, or indices, 0,1,2")
    fields.add_argument("--active-steps-per-update", type=int)
    fields.add_argument("--merging", choices=["adaptive", "fixed", "none"])
    fields.add_argument("--entropy-threshold", type=float)
    fields.add_argument("--fixed-length", type=int)
    fields.add_argument("--granularities", type=_integers, help="strides of the tails, 1,2")
    fields.add_argument("--trained-fraction", type=float)
    fields.add_argument("--window-size", type=int)
    fields.add_argument("--window-range", type=float)
    fields.add_argument("--window-stride", type=int)
    fields.add_argument("--updates-per-window", type=int)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--draw", type=Path, metavar="PLAN.png", help="draw it, with the groups of some updates")
    parser.add_argument(
        "--beside", type=_methods, default=[], metavar="METHOD,METHOD", help="draw these below it, on its schedule"
    )
    parser.set_defaults(command=plan)


def plan(options: argparse.Namespace) -> int:
    """Prints a plan as a table or JSON, and draws it if asked to."""
    try:
        if options.beside and options.draw is None:
            raise ConfigError(f"--beside {','.join(options.beside)} goes with --draw PLAN.png")
        method, sigmas = _of_spec(options) if options.spec else _of_options(options)
        merged = method.plan(sigmas)
        others = [parse(METHODS[name], {**_shared(method), "type": name}) for name in options.beside]
        _draw(options.draw, [method, *others], sigmas)
    except ConfigError as error:
        print(f"egrpo: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps({"method": method.type, **merged.to_dict()}) if options.json else _table(method, merged))
    return 0


def _of_options(options: argparse.Namespace) -> tuple[MethodSpec, list[float]]:
    name = options.method or "egrpo"
    kind, given = METHODS[name], _given(options)
    if unknown := [field for field in given if field not in kind.model_fields]:
        allowed = ", ".join(_flag(field) for field in kind.model_fields if field not in _NOT_OPTIONS)
        raise ConfigError(f"{_flag(unknown[0])}: the method {name!r} has no such option; allowed: {allowed}")
    method = parse(kind, {"type": name, "shift": _SHIFT, **given})
    assert method.shift is not None
    return method, schedule.shifted_sigmas(method.sampling_steps, method.shift)


def _of_spec(options: argparse.Namespace) -> tuple[MethodSpec, list[float]]:
    given = [*(["method"] if options.method else []), *_given(options)]
    if given:
        raise ConfigError(f"{_flag(given[0])}: the spec file says it; allowed beside one: --json, --draw, --beside")
    spec = read_spec(options.spec)
    sigmas = sigmas_of(spec)
    if sigmas is None:
        raise ConfigError(
            f"the schedule of base model {spec.base_model!r} is known when it is loaded; allowed here: method.shift, "
            "tiny-flux-shapes, or a folder of FLUX.1's with height and width in the spec"
        )
    return spec.method, sigmas


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the fields of methods that the command line names."""
    fields = {field for kind in METHODS.values() for field in kind.model_fields} - _NOT_OPTIONS
    return {name: value for name, value in vars(options).items() if name in fields and value is not None}


def _shared(method: MethodSpec) -> dict[str, Any]:
    """Returns the fields that every method has."""
    return {name: getattr(method, name) for name in MethodSpec.model_fields}


def _flag(field: str) -> str:
    return "--steps" if field == "sampling_steps" else "--" + field.replace("_", "-")


def _draw(path: Path | None, methods: list[MethodSpec], sigmas: list[float]) -> None:
    if path is None:
        return
    from egrpo.draw_plan import draw_plans

    try:
        draw_plans(path, methods, sigmas)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--draw {path} cannot be written: {error}") from error


def _table(method: MethodSpec, merged: schedule.MergePlan) -> str:
    rows = [f"{'step':>8} {'time':>15} {'length':>6} {'entropy':>8} {'dispersion':>10}"]
    for step in merged.steps:
        times = f"{merged.sigmas[step.start]:.4f}->{merged.sigmas[step.end]:.4f}"
        path = f"{step.start}->{step.end}"
        rows.append(f"{path:>8} {times:>15} {step.length:>6} {step.entropy:>8.3f} {step.dispersion:>10.3f}")
    fewest, most = method.network_evaluations(merged)
    count = str(most) if fewest == most else f"{fewest} to {most}"
    rows.append(f"{count} network evaluations per prompt with groups of {method.group_size}")
    return "\n".join(rows)


def _active_steps(text: str) -> float | list[int]:
    return _integers(text) if "," in text or text.isdigit() else float(text)


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _methods(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in METHODS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no method; allowed: {', '.join(METHODS)}")
    return names
