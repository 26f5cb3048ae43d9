"""`python -m egrpo.tiny`: build the model, or list captions to train and to evaluate on."""

import argparse
import os
import random
import sys
from pathlib import Path

from egrpo.tiny.captions import all_captions, is_held_out


def main() -> None:
    """Parses the command line and runs one of the two commands."""
    parser = argparse.ArgumentParser(prog="python -m egrpo.tiny", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="train tiny-flux-shapes from nothing (about two hours on two cores)")
    build.add_argument("--output", type=Path, default=Path(__file__).parent / "weights")
    build.add_argument("--seed", type=int, default=0)
    build.add_argument("--scale", type=float, default=1.0, help="shortens every stage, for trying the command out")
    build.add_argument("--resume", action="store_true", help="use the stages that are finished in the output folder")
    captions = commands.add_parser("captions", help="print random two-thing captions that pretraining may see")
    captions.add_argument("--num", type=int, default=16)
    captions.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.command == "captions":
        seen = [str(caption) for caption in all_captions(2) if not is_held_out(caption)]
        print("\n".join(random.Random(options.seed).sample(seen, options.num)))
        return
    _keep_freed_memory()
    from egrpo.tiny.build import build as run_build  # torch is imported only where it is needed

    run_build(options.output, options.seed, options.scale, options.resume)


def _keep_freed_memory() -> None:
    """Restarts the process with glibc keeping freed memory: page faults otherwise cost up to half of the time."""
    settings = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(4 << 30)}
    if any(name not in os.environ for name in settings):
        os.execve(sys.executable, [sys.executable, "-m", "egrpo.tiny", *sys.argv[1:]], {**os.environ, **settings})


if __name__ == "__main__":
    main()
