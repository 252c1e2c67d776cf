"""Several processes: they end with one set of weights, that of steps on all of their data, and one of them saves it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wherein.training.processes import Processes
from wherein.training.trainer import TrainConfig, checkpoints, fit

CONFIG = TrainConfig(steps=6, learning_rate=1e-2, warmup=2, weight_decay=0.1, evaluate_every=3, save_every=3)
COUNT = 2


class Line:
    """Fit a line; number i has its own points. `together`: a step takes the points of so many numbers at once."""

    def __init__(self, together: int = 1, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.module = nn.Linear(3, 2)
        self.module.register_parameter("unused", nn.Parameter(torch.ones(2)))  # nothing reaches it
        self.together = together
        self.evaluated = 0

    def loss(self, step: int, steps: int) -> Tensor:
        assert step < steps
        losses = []
        for number in range(step * self.together, (step + 1) * self.together):
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(number))
            losses.append((self.module(x) - x[:, :2] * 2 + 1).square().mean())
        return torch.stack(losses).mean()

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        self.evaluated += 1
        return {"error": 0.5}


def run_one(out: Path) -> None:
    """What each of the processes does; they begin from different weights."""
    processes = Processes()
    assert processes.agree(7) and not processes.agree(processes.rank)
    task = Line(seed=processes.rank)
    with processes.first_alone():
        seen = (out.parent / "made").exists()
        assert seen != processes.first
        (out.parent / "made").touch()
    figures = fit(task, CONFIG, out)
    assert ("error" in figures) == processes.first and task.evaluated == (2 if processes.first else 0)
    torch.save(task.module.state_dict(), out.parent / f"{processes.rank}.pt")


def test_one_process_is_the_first_of_one() -> None:
    alone = Processes()
    assert alone.first and alone.count == 1 and alone.agree(3)
    with alone.first_alone():
        alone.wait()
    value = torch.ones(2)
    assert alone.mean(value) is value


def test_two_processes_step_as_one_on_the_data_of_both(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, str(tmp_path / "out")]
    common = {**os.environ, "WORLD_SIZE": str(COUNT), "LOCAL_WORLD_SIZE": str(COUNT), "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(command, env={**common, "RANK": str(i), "LOCAL_RANK": str(i)}, stderr=subprocess.PIPE)
        for i in range(COUNT)
    ]
    try:
        said = [process.communicate(timeout=120)[1].decode() for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * COUNT, said
    ours, theirs = (torch.load(tmp_path / f"{i}.pt", weights_only=True) for i in range(COUNT))
    whole = Line(together=COUNT)
    fit(whole, CONFIG, tmp_path / "whole")
    for name, value in whole.module.state_dict().items():
        assert torch.equal(ours[name], theirs[name])
        torch.testing.assert_close(ours[name], value)
    saved = load_file(checkpoints(tmp_path / "out")[-1] / "state.safetensors")
    assert torch.equal(saved["module.weight"], ours["weight"]) and "adam.step.unused" not in saved
    assert len((tmp_path / "out" / "log.jsonl").read_text().splitlines()) == 2
    assert len(list((tmp_path / "out" / "tensorboard").iterdir())) == 1


if __name__ == "__main__":
    run_one(Path(sys.argv[1]))
