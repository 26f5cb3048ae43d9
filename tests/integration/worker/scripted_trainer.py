"""A trainer of a few lines that speaks the protocol and misbehaves on request: the outer edge of the worker's tests.

    scripted_trainer.py SCENARIO.json SPEC --output RUN --events-fd N [--resume]

SCENARIO: {"steps": 6, "step_seconds": 0.01, "checkpoint_every": 2, "samples": 1, "prints_steps": false,
           "attempts": {"1": {"3": {"signal": 9}}}}     in the first attempt, after step 3, end by SIGKILL
An action is one of {"signal": n}, {"exit": n, "error": {…}, "stderr": "…"}, {"hang": true}, {"raw": "…"}, and before it
{"print": "…"}. {"waits": true} waits until the test lets it go on (`Bench.go_on`), or until it is told to stop.
{"keeps_up": false}: it prunes a checkpoint that the worker has not taken up yet, as a real trainer may whose worker is
stopped.
Its "training" is x ← x + step, kept in the checkpoint; the adapter holds the final x, so that a resumed run must end
with the same bytes as an unbroken one.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
    "53de0000000c4944415408d763f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)


class ScriptedTrainer:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.scenario = json.loads(Path(arguments.scenario).read_text())
        self.run_dir = Path(arguments.output)
        self.events = os.fdopen(arguments.events_fd, "w", buffering=1)
        self.resume = arguments.resume
        self.stopping = False
        self.announced: dict[Path, dict[Path, int]] = {}
        self.x = 0
        self.first_step = 0
        self.may_go_on = Path(arguments.scenario + ".go_on")
        self.attempt = self._count_attempt(Path(arguments.scenario + ".attempts"))

    def _count_attempt(self, path: Path) -> int:
        with path.open("a") as file:
            started = {"pid": os.getpid(), "launcher": os.getppid(), "environ": dict(os.environ), "argv": sys.argv}
            file.write(json.dumps(started) + "\n")
        return len(path.read_text().splitlines())

    def emit(self, type_: str, **fields: object) -> None:
        self.events.write(json.dumps({"type": type_, **fields}) + "\n")

    def load(self) -> None:
        whole = sorted((self.run_dir / "checkpoints").glob("step-*/manifest.json"))
        if self.resume and whole:
            self.x = int((whole[-1].parent / "state.txt").read_text().split()[0])
            self.first_step = json.loads(whole[-1].read_text())["step"]

    def write(self, folder: Path, name: str, body: bytes) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{name}.part"  # A kill leaves a file whole or absent, as the real trainer does.
        part.write_bytes(body)
        part.replace(folder / name)
        return {"path": name, "sha256": hashlib.sha256(body).hexdigest(), "size_bytes": len(body)}

    def checkpoint(self, step: int) -> None:
        name = f"checkpoints/step-{step:06d}"
        padding = b"." * self.scenario.get("checkpoint_bytes", 100)
        files: list[dict[str, Any]] = [self.write(self.run_dir / name, "state.txt", f"{self.x} ".encode() + padding)]
        manifest = json.dumps({"step": step, "spec_digest": "", "files": files}).encode()
        entry = self.write(self.run_dir / name, "manifest.json", manifest)
        files += [entry] if self.scenario.get("lists_manifest", True) else []
        if self.scenario.get("corrupt_checkpoint") == step:
            (self.run_dir / name / "state.txt").write_bytes(b"?" * files[0]["size_bytes"])
        folder = self.run_dir / name
        self.announced[folder] = {path: path.stat().st_ctime_ns for path in folder.iterdir()}
        self.emit(
            "checkpoint",
            step=step,
            kind="state",
            path=name,
            files=files,
            eval_reward=self.scenario.get("eval_rewards", {}).get(str(step), step / 100),
        )
        for old in sorted((self.run_dir / "checkpoints").iterdir())[: -self.scenario.get("keep_last", 2)]:
            while self.scenario.get("keeps_up", True) and not self.is_set_aside(old):
                if self.stopping:  # As when the worker cannot take anything up.
                    return
                time.sleep(0.002)
            shutil.rmtree(old)

    def is_set_aside(self, folder: Path) -> bool:
        """Whether the worker has taken up a checkpoint, as it has, long since, when a real trainer prunes it.

        It links the files, which changes what the file system says of them, also after the links are gone.
        """
        for path, announced_at in self.announced.get(folder, {}).items():
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            if found.st_nlink == 1 and found.st_ctime_ns == announced_at:
                return False
        return True

    def sample(self, step: int) -> None:
        for index in range(self.scenario.get("samples", 0)):
            folder = f"samples/step-{step:06d}"
            self.write(self.run_dir / folder, f"{index:03d}.png", PNG)
            self.emit("sample", step=step, kind="evaluation", path=f"{folder}/{index:03d}.png", prompt=f"p{index}",
                      prompt_index=index, seed=index, rewards={"shapes": 0.5}, passed=True)  # fmt: skip

    def act(self, step: int | str) -> None:
        action = self.scenario.get("attempts", {}).get(str(self.attempt), {}).get(str(step), {})
        if "print" in action:
            print(action["print"], flush=True)
        if "signal" in action:
            os.kill(os.getpid(), action["signal"])
        if "raw" in action:
            self.events.write(action["raw"] + "\n")
        if "exit" in action:
            if "error" in action:
                self.emit("error", **action["error"])
            print(action.get("stderr", ""), file=sys.stderr, flush=True)
            os._exit(action["exit"])
        while "hang" in action:
            time.sleep(3600)
        while "waits" in action and not (self.stopping or self.may_go_on.exists()):
            time.sleep(0.01)

    def train(self) -> int:
        self.load()
        steps = self.scenario.get("steps", 6)
        self.emit("phase", phase="training")
        for step in range(self.first_step + 1, steps + 1):
            time.sleep(self.scenario.get("step_seconds", 0.01))
            self.x += step
            if self.scenario.get("prints_steps"):
                print(f"step {step}", flush=True)
            self.emit("progress", step=step, total_steps=steps, steps_per_second=10.0, eta_seconds=0.1)
            self.emit("metric", step=step, values={"loss": self.x / 10, "epoch_of_x": float(self.attempt)})
            self.sample(step)
            stopping = self.stopping  # Read once: a signal between two readings would end it without its checkpoint.
            if stopping or step % self.scenario.get("checkpoint_every", 2) == 0:
                self.checkpoint(step)
            self.act(step)
            if stopping:
                return 75
        return self.export(steps)

    def export(self, steps: int) -> int:
        adapter = self.write(self.run_dir / "adapter", "pytorch_lora_weights.safetensors", f"x={self.x}".encode())
        self.emit("checkpoint", step=steps, kind="adapter", path="adapter", files=[adapter], eval_reward=None)
        self.write(self.run_dir, "report.json", json.dumps({"x": self.x}).encode())
        self.emit("artifact", path="report.json")
        self.emit("phase", phase="done")
        self.act("exported")
        return 0


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the attempts that were noted; a line that is only half written is none yet."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def accompany(scenario: Path, run_dir: Path) -> int:
    """What a rank does that is not the first: it waits for the others, and may end by a signal after a checkpoint.

    A resumed attempt has a checkpoint from its beginning, and this rank may be there before the first one has written
    its line: a line of another launcher says nothing of this attempt.
    """
    ends = json.loads(scenario.read_text()).get("second_rank", {})
    attempts = Path(f"{scenario}.attempts")
    while not (run_dir / "report.json").exists():
        begun = whole_lines(attempts)
        own = begun and begun[-1]["launcher"] == os.getppid()
        if own and str(len(begun)) in ends and list(run_dir.glob("checkpoints/*/manifest.json")):
            os.kill(os.getpid(), ends[str(len(begun))])
        time.sleep(0.02)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario")
    parser.add_argument("spec")
    parser.add_argument("--output", required=True)
    parser.add_argument("--events-fd", type=int, required=True)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    if os.environ.get("RANK", "0") != "0":
        return accompany(Path(arguments.scenario), Path(arguments.output))
    trainer = ScriptedTrainer(arguments)

    def stop(*_: object) -> None:
        trainer.stopping = trainer.scenario.get("obeys_sigterm", True)

    signal.signal(signal.SIGTERM, stop)
    return trainer.train()


if __name__ == "__main__":
    sys.exit(main())
