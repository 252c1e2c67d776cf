"""The trainer: a run that is interrupted, in whatever way, ends as one that was not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wherein.errors import InputError
from wherein.journal import locked
from wherein.training import trainer
from wherein.training.trainer import KEPT, STATE, TENSORS, TrainConfig, checkpoints, fit

CONFIG = TrainConfig(steps=12, learning_rate=1e-2, warmup=3, evaluate_every=4, save_every=3)


class Line:
    """Fit a line; step i has its own points. `stop_at` interrupts before that step."""

    def __init__(self, stop_at: int = 1_000_000) -> None:
        torch.manual_seed(0)
        self.module = nn.Linear(3, 2)
        self.stop_at = stop_at
        self.steps: list[int] = []
        self.evaluated: list[int] = []

    def loss(self, step: int, steps: int) -> Tensor:
        if step == self.stop_at:
            raise KeyboardInterrupt
        self.steps.append(step)
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        return (self.module(x) - x[:, :2] * 2 + 1).square().mean()

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        self.evaluated.append(step)
        return {"error": 0.5}


def assert_equal(a: nn.Module, b: nn.Module) -> None:
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name]), name


def test_a_run_in_one_go(tmp_path: Path) -> None:
    task = Line()
    figures = fit(task, CONFIG, tmp_path)
    assert task.steps == list(range(12)) and task.evaluated == [4, 8, 12]
    assert figures["error"] == 0.5 and 0 < figures["loss"] < 20
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-0000009", "checkpoint-0000012"]
    assert len(checkpoints(tmp_path)) == KEPT
    assert any((tmp_path / "tensorboard").iterdir())
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3


def test_it_learns(tmp_path: Path) -> None:
    task = Line()
    first = float(task.loss(0, 1).detach())
    fit(task, TrainConfig(steps=300, learning_rate=5e-2, evaluate_every=300, save_every=300), tmp_path)
    assert float(task.loss(0, 1).detach()) < 0.01 * first


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, first, second = Line(), Line(stop_at=7), Line()
    fit(whole, CONFIG, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(first, CONFIG, tmp_path / "parts")
    assert checkpoints(tmp_path / "parts")[-1].name == "checkpoint-0000006"
    figures = fit(second, CONFIG, tmp_path / "parts", resume=True)
    assert second.steps == list(range(6, 12))
    assert_equal(second.module, whole.module)
    states = [load_file(checkpoints(tmp_path / name)[-1] / "state.safetensors") for name in ("whole", "parts")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert figures["loss"] == pytest.approx(fit(Line(), CONFIG, tmp_path / "whole", resume=True)["loss"])


def test_a_step_of_two_batches_is_one_of_their_mean(tmp_path: Path) -> None:
    class Both(Line):
        """A step on the points of two."""

        def loss(self, step: int, steps: int) -> Tensor:
            assert steps == CONFIG.steps
            return (super().loss(2 * step, 2 * steps) + super().loss(2 * step + 1, 2 * steps)) / 2

    at_once, in_turn = Both(), Line()
    figures = fit(at_once, CONFIG, tmp_path / "at once")
    assert fit(in_turn, replace(CONFIG, batches=2), tmp_path / "in turn")["loss"] == pytest.approx(figures["loss"])
    assert in_turn.steps == at_once.steps == list(range(24))
    for a, b in zip(at_once.module.parameters(), in_turn.module.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_without_tensorboard_a_sentence_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"wherein\[train\]"):
        fit(Line(), CONFIG, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_resuming_a_finished_run_does_nothing(tmp_path: Path) -> None:
    whole, again = Line(), Line()
    fit(whole, CONFIG, tmp_path)
    fit(again, CONFIG, tmp_path, resume=True)
    assert again.steps == []
    assert_equal(again.module, whole.module)


def test_resuming_nothing_is_a_fresh_run(tmp_path: Path) -> None:
    task = Line()
    fit(task, CONFIG, tmp_path, resume=True)
    assert task.steps == list(range(12))


def test_an_unfinished_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(Line(stop_at=4), CONFIG, tmp_path)
    (tmp_path / ".checkpoint").mkdir()
    (tmp_path / ".checkpoint" / "state.safetensors").write_bytes(b"half")
    task = Line()
    fit(task, CONFIG, tmp_path, resume=True)
    assert task.steps[0] == 3 and not (tmp_path / ".checkpoint").exists()


def test_a_full_disk_costs_the_checkpoint_that_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, real = [], trainer.save_file

    def full(tensors: dict[str, Tensor], path: Path) -> None:
        written.append(path)
        real(tensors, path)
        if len(written) == 2:
            raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(trainer, "save_file", full)
    with pytest.raises(InputError, match=r"Cannot write to .*checkpoint-0000006: .*No space left"):
        fit(Line(), CONFIG, tmp_path)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-0000003"]
    assert not (tmp_path / ".checkpoint").exists()
    resumed, whole = Line(), Line()
    fit(resumed, CONFIG, tmp_path, resume=True)
    fit(whole, CONFIG, tmp_path / "whole")
    assert resumed.steps[0] == 3
    assert_equal(resumed.module, whole.module)


def test_an_unfinished_run_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(Line(stop_at=4), CONFIG, tmp_path)
    before = checkpoints(tmp_path)
    with pytest.raises(InputError, match="--resume"):
        fit(Line(), CONFIG, tmp_path)
    assert checkpoints(tmp_path) == before


@pytest.mark.parametrize("change", [{"steps": 24}, {"learning_rate": 1.0}, {"seed": 1}])
def test_resuming_with_other_settings_is_refused(tmp_path: Path, change: dict[str, float]) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(Line(stop_at=4), CONFIG, tmp_path)
    with pytest.raises(InputError, match="same settings"):
        fit(Line(), replace(CONFIG, **change), tmp_path, resume=True)  # type: ignore[arg-type]


def test_resuming_with_other_data_or_another_method_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(Line(stop_at=4), CONFIG, tmp_path, about={"method": "pin", "images": 64})
    for about in ({"method": "vpt", "images": 64}, {"method": "pin", "images": 96}, None):
        with pytest.raises(InputError, match="same settings"):
            fit(Line(), CONFIG, tmp_path, resume=True, about=about)
    fit(Line(), CONFIG, tmp_path, resume=True, about={"method": "pin", "images": 64})


def test_a_refusal_names_what_differs_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(Line(stop_at=4), CONFIG, tmp_path, about={"model fingerprint": "29457d114be8c107", "method": "pin"})
    with pytest.raises(InputError) as refused:
        fit(Line(), CONFIG, tmp_path, resume=True, about={"model fingerprint": "0123456789abcdef", "method": "pin"})
    assert str(refused.value) == (
        f"{tmp_path / 'checkpoint-0000003'} was made with model fingerprint 29457d114be8c107, not 0123456789abcdef: "
        "resume with the same settings."
    )


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second is refused at once, whatever the first is doing, and the first goes on."""

    class Disturbed(Line):
        """While it takes a step, and while it measures, another run is begun in its folder."""

        def another(self) -> None:
            for resume in (False, True):
                with pytest.raises(InputError, match=f"Another process writes to {tmp_path}"):
                    fit(Line(), CONFIG, tmp_path, resume=resume)

        def loss(self, step: int, steps: int) -> Tensor:
            self.another()
            return super().loss(step, steps)

        def evaluate(self, step: int, folder: Path) -> dict[str, float]:
            self.another()
            return super().evaluate(step, folder)

    task = Disturbed()
    fit(task, CONFIG, tmp_path)
    assert task.steps == list(range(12)) and len(checkpoints(tmp_path)) == KEPT
    with locked(tmp_path):  # and it has let go
        pass


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (STATE, b""),
        (STATE, b'{"step": 6, "recent": ['),
        (STATE, b"[1]"),
        (STATE, b"{}"),
        (STATE, b"\xff"),
        (STATE, None),
    ]
    + [(TENSORS, b""), (TENSORS, b"\xff" * 99), (TENSORS, None), (TENSORS, "cut"), (TENSORS, "another's")],
)
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str, content: bytes | str | None) -> None:
    """And what it says to do helps: the run goes on from the checkpoint before."""
    with pytest.raises(KeyboardInterrupt):
        fit(Line(stop_at=7), CONFIG, tmp_path)
    newest = checkpoints(tmp_path)[-1]
    file = newest / name
    if content is None:
        file.unlink()
    elif content == "another's":
        save_file({"module.other": torch.zeros(3)}, file)
    else:
        file.write_bytes(file.read_bytes()[:-9] if content == "cut" else bytes(content))  # type: ignore[arg-type]
    with pytest.raises(InputError) as refused:
        fit(Line(), CONFIG, tmp_path, resume=True)
    assert str(refused.value) == (
        f"{file} is damaged: remove the folder {newest}, and --resume goes on from what is left."
    )
    shutil.rmtree(newest)
    task = Line()
    fit(task, CONFIG, tmp_path, resume=True)
    assert task.steps == list(range(3, 12))


def test_the_rate() -> None:
    config = TrainConfig(steps=100, learning_rate=2.0, warmup=10, final=0.1)
    rates = [config.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[4] == pytest.approx(1.0, abs=0.02)
    assert rates[9:] == sorted(rates[9:], reverse=True) and rates[99] == pytest.approx(0.2, abs=0.01)
    constant = TrainConfig(steps=100, learning_rate=2.0, warmup=0, final=1.0)
    assert {constant.rate(step) for step in range(100)} == {2.0}


SCRIPT = """
import sys, time
from pathlib import Path
import torch
from wherein.training.trainer import TrainConfig, fit

class Slow:
    def __init__(self):
        torch.manual_seed(0)
        self.module = torch.nn.Linear(3, 2)

    def loss(self, step, steps):
        with open(sys.argv[1] + "/steps.txt", "a") as stream:
            stream.write(f"{step}\\n")
        time.sleep(float(sys.argv[2]))
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        return (self.module(x) - x[:, :2] * 2 + 1).square().mean()

    def evaluate(self, step, folder):
        return {}

fit(Slow(), TrainConfig(steps=30, save_every=4, evaluate_every=100), Path(sys.argv[1]), resume=sys.argv[3] == "resume")
"""


def start(out: Path, pause: float, how: str) -> subprocess.Popen[bytes]:
    out.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(out), str(pause), how], stderr=subprocess.DEVNULL)


def test_a_killed_process_loses_and_repeats_no_checkpoint(tmp_path: Path) -> None:
    out, limit = tmp_path / "killed", time.monotonic() + 90
    process = start(out, 0.05, "anew")
    while len(checkpoints(out)) < 2:  # then it is in the middle of something, wherever that is
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = int(checkpoints(out)[-1].name.rsplit("-", 1)[1])
    done = [int(line) for line in (out / "steps.txt").read_text().split()]
    assert kept < 30 and done == list(range(len(done)))
    assert start(out, 0.0, "resume").wait() == 0
    resumed = [int(line) for line in (out / "steps.txt").read_text().split()][len(done) :]
    assert resumed == list(range(kept, 30))  # every step behind the newest checkpoint, and none before it
    assert start(tmp_path / "whole", 0.0, "anew").wait() == 0
    killed, whole = (load_file(checkpoints(tmp_path / n)[-1] / "state.safetensors") for n in ("killed", "whole"))
    assert killed.keys() == whole.keys() and all(torch.equal(killed[name], whole[name]) for name in whole)
    assert [p.name for p in checkpoints(out)] == [p.name for p in checkpoints(tmp_path / "whole")]


def test_training_that_falls_apart_says_so(tmp_path: Path) -> None:
    """And the checkpoints before are whole."""
    task = Line()
    loss = task.loss
    task.loss = lambda step, steps: loss(step, steps) * (float("nan") if step == 5 else 1)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="fell apart at step 5"):
        fit(task, CONFIG, tmp_path)
    (kept,) = checkpoints(tmp_path)
    assert all(value.isfinite().all() for value in load_file(kept / "state.safetensors").values())
