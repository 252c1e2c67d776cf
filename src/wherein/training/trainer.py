"""One trainer for every method: Adam, a schedule, checkpoints, resume, progress bar, TensorBoard, several processes.

Step i sees the same data whenever it runs (a task draws from a generator seeded by the step), so a run that was killed
and resumed goes through exactly the steps of an uninterrupted one. Checkpoints are safetensors, made in one rename.
Of several processes, each has numbers of its own for its steps, and so data of its own.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wherein.errors import InputError
from wherein.journal import locked, writing
from wherein.training.processes import Processes

KEPT = 2  # checkpoints
CHECKPOINT = "checkpoint-"
STATE, TENSORS = "state.json", "state.safetensors"  # of a checkpoint


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast: steps, peak learning rate, linear warm-up, final share of the rate (1: constant),
    decoupled weight decay, how often, in steps, held-out data is measured and a checkpoint written, and of how many
    batches, one after the other, the gradients of a step are averaged: much as of a batch so many times as large."""

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 20
    final: float = 0.05
    weight_decay: float = 0.0
    evaluate_every: int = 150
    save_every: int = 50
    batches: int = 1
    seed: int = 0

    def rate(self, step: int) -> float:
        """The learning rate of a step: linear warm-up, then a cosine down to `final`."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return (
            self.learning_rate * min(1.0, (step + 1) / max(self.warmup, 1)) * (self.final + (1 - self.final) * cosine)
        )


class Task(Protocol):
    """What a method brings to be trained."""

    @property
    def module(self) -> nn.Module:
        """The trainable part."""

    def loss(self, step: int, steps: int) -> Tensor:
        """The loss of step `step`, with gradients to `module`; a function of the step and of the weights only."""

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        """Figures on held-out data; pictures worth a look go into `folder`."""


def fit(
    task: Task,
    config: TrainConfig,
    out: Path,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
    pace: Callable[[str], float] = lambda name: 1.0,
) -> dict[str, float]:
    """Train `task.module`; returns the last figures, among them `loss`, the mean of the last 50 steps. Of several
    processes, the first alone measures: the others return the loss.

    `about`: what else must be the same for a run to go on (model, method, data), JSON-ready. `pace`: how many times the
    learning rate a parameter of this name takes.

    Raises InputError when `out` holds an unfinished run and `resume` is not set, a run of other settings, or a damaged
    checkpoint; when another process trains into it; and without TensorBoard.
    """
    board, processes = tensorboard(), Processes()
    optimiser = _optimiser(task.module, config, pace)
    settings = {**asdict(config), **(about or {})}
    if processes.count > 1:
        settings["processes"] = processes.count
    with locked(out) if processes.first else nullcontext():
        first, recent = _restore(task.module, optimiser, settings, out, resume)
        if not processes.agree(first):
            raise InputError(f"Not every process sees the checkpoints in {out}: give a folder that all of them share.")
        processes.alike(task.module.parameters())
        figures: dict[str, float] = {}
        writing: Any = board(str(out / "tensorboard"), purge_step=first) if processes.first else nullcontext()
        with _bar(shown=processes.first) as bar, writing as writer:
            line = bar.add_task("training", total=config.steps, completed=first)
            for step in range(first, config.steps):
                recent = [*recent[-49:], _step(task, optimiser, config, step, processes)]
                if not processes.first:
                    continue
                done, mean = step + 1, sum(recent) / len(recent)
                writer.add_scalar("loss", recent[-1], step)
                if done % config.evaluate_every == 0 or done == config.steps:
                    figures = task.evaluate(done, out / "pictures")
                    for name, value in figures.items():
                        writer.add_scalar(name, value, done)
                    _log(out, {"step": done, "loss": round(mean, 4), **figures})
                if done % config.save_every == 0 or done == config.steps:
                    _save(task.module, optimiser, settings, out, done, recent)
                shown = " ".join(f"{name} {value:.3f}" for name, value in figures.items())
                bar.update(line, completed=done, description=f"loss {mean:.3f} {shown}")
        processes.wait()
    return {"loss": sum(recent) / len(recent), **figures}


def tensorboard() -> Any:
    """What writes TensorBoard's logs. Raises InputError where it is not installed: ask before hours of encoding."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("Training needs TensorBoard: run pip install 'wherein[train]'.") from error
    return SummaryWriter


def _optimiser(module: nn.Module, config: TrainConfig, pace: Callable[[str], float]) -> torch.optim.AdamW:
    """Adam over every parameter, those of one pace in a group."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        groups.setdefault(pace(name), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": some, "pace": share} for share, some in groups.items()],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
    )


def _bar(shown: bool) -> Progress:
    """A progress bar on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not shown)


def _step(task: Task, optimiser: torch.optim.AdamW, config: TrainConfig, step: int, processes: Processes) -> float:
    """One update; returns the loss."""
    for group in optimiser.param_groups:
        group["lr"] = config.rate(step) * group["pace"]
    losses, runs = list[Tensor](), config.batches * processes.count
    for run in range(config.batches):
        number = step * runs + processes.rank * config.batches + run
        loss = task.loss(number, config.steps * runs) / config.batches
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    processes.average(list(task.module.parameters()))
    if not nn.utils.clip_grad_norm_(task.module.parameters(), 1.0).isfinite():
        raise InputError(f"Training fell apart at step {step}: start anew with a lower rate.")
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return float(processes.mean(torch.stack(losses).sum()))


def _log(out: Path, row: Mapping[str, float]) -> None:
    """Append a row to log.jsonl. Raises InputError where it cannot be written."""
    log = out / "log.jsonl"
    with writing(log), log.open("a") as stream:
        stream.write(json.dumps(row) + "\n")


def _save(
    module: nn.Module,
    optimiser: torch.optim.AdamW,
    settings: dict[str, Any],
    out: Path,
    step: int,
    recent: list[float],
) -> None:
    """Write checkpoint-<step> and drop all but the newest. Raises InputError where it cannot be written; those before
    stay."""
    tensors = {f"module.{name}": p.detach() for name, p in module.named_parameters()}
    for name, p in module.named_parameters():
        for key, value in optimiser.state[p].items():
            tensors[f"adam.{key}.{name}"] = torch.as_tensor(value)
    target, temporary = out / f"{CHECKPOINT}{step:07d}", out / ".checkpoint"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with writing(target):
            temporary.mkdir()
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary / TENSORS)
            (temporary / STATE).write_text(json.dumps({"step": step, "recent": recent, "config": settings}))
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
    except InputError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in checkpoints(out)[:-KEPT]:
        shutil.rmtree(old)


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(out.glob(f"{CHECKPOINT}*"))


def check_begun(out: Path, resume: bool) -> None:
    """Raise InputError when `out` holds an unfinished run and `resume` is not set; to be asked before a model is
    loaded."""
    found = checkpoints(out)
    if found and not resume:
        raise InputError(f"{out} holds {found[-1].name}: add --resume to go on with it, or choose another --out.")


def _restore(
    module: nn.Module, optimiser: torch.optim.AdamW, settings: dict[str, Any], out: Path, resume: bool
) -> tuple[int, list[float]]:
    """Load the newest checkpoint if there is one; (steps done, recent losses)."""
    check_begun(out, resume)
    found = checkpoints(out)
    if not found:
        return 0, []
    with _sound(found[-1] / STATE):
        state = json.loads((found[-1] / STATE).read_text())
        made_with, step, recent = dict(state["config"]), int(state["step"]), [float(loss) for loss in state["recent"]]
    if differing := _differing(made_with, settings):
        raise InputError(f"{found[-1]} was made with {differing}: resume with the same settings.")
    with _sound(found[-1] / TENSORS), torch.no_grad():
        tensors = load_file(found[-1] / TENSORS)
        for name, p in module.named_parameters():
            p.copy_(tensors[f"module.{name}"])
            if f"adam.step.{name}" not in tensors:  # it has had no gradient yet
                continue
            moments = {key: tensors[f"adam.{key}.{name}"].clone().to(p.device) for key in ("exp_avg", "exp_avg_sq")}
            optimiser.state[p] = {"step": tensors[f"adam.step.{name}"].clone(), **moments}  # Adam counts on the CPU
    return step, recent


@contextmanager
def _sound(file: Path) -> Iterator[None]:
    """What fails on a checkpoint's file within raises InputError, which names it."""
    try:
        yield
    except PermissionError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from error
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{file} is damaged: remove the folder {file.parent}, and --resume goes on from what is left."
        ) from error


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Each setting that differs, with both values."""
    every = {**here, **there}
    return "; ".join(f"{key} {there.get(key)}, not {here.get(key)}" for key in every if there.get(key) != here.get(key))
