"""From composites to a saved adapter: sources, training, calibration, model card."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from scipy.special import logit

from wherein.calibration import fit_logistic
from wherein.errors import InputError
from wherein.methods import adapter
from wherein.methods.base import REGISTRY
from wherein.methods.insert import Inserted
from wherein.pictures import check_new_folder
from wherein.synth import may_be_held_out
from wherein.synth.negatives import as_many_absent
from wherein.training.boxes import RECIPES, BoxTask, Recipe
from wherein.training.processes import Processes
from wherein.training.sources import Material, Sources, sources
from wherein.training.store import FeatureStore
from wherein.training.trainer import TrainConfig, check_begun, fit, tensorboard

HELD_OUT = 160  # composites of held-out categories for validation and calibration
PLAIN = np.array([1.0, 0.0])  # the scale and shift of a probability that is left as it is
NEVER = (0.0, 0.0, 0.5)  # calibration of an insert that was never asked for what is not there, and its accuracy


def trainable() -> list[str]:
    """The names of the methods that are trained this way, sorted."""
    return sorted(name for name, method in REGISTRY.items() if issubclass(method, Inserted))


def presets(method: str) -> list[str]:
    """The presets that this method of `trainable` can be trained with; auto is the one that suits the model."""
    kind = REGISTRY[method]
    assert issubclass(kind, Inserted)
    return ["auto", *kind.rates]


def train(
    method: str,
    out: Path,
    *,
    model: str,
    device: str,
    dtype: str,
    bits: int | None,
    size: int | None,
    preset: str,
    rate: float | None,
    steps: int,
    images: int,
    batch: int | None,
    seed: int,
    resume: bool,
    cache: Path,
    composites: Path | None = None,
    objects: Path | None = None,
    backgrounds: Path | None = None,
    keep_held_out: bool = False,
    at_once: int | None = None,
    absent: bool | None = None,
) -> dict[str, float]:
    """Train, calibrate and save an adapter in `out`; returns its figures on held-out composites (of several processes,
    the first alone saves and measures).

    `batch` images are a step, `at_once` of them at a time where not all fit; `absent`: whether it learns to say that a
    thing is not there; None: as the preset has it. `keep_held_out`: paste the categories of COCO and VOC, too, for a
    user who evaluates elsewhere.

    Raises InputError for options and models that do not go together, before anything is encoded or written, and for
    images that cannot be used; for what is wrong without the model, before it is loaded.
    """
    from wherein.vlm import load_vlm

    tensorboard()
    began, processes = time.time(), Processes()
    if processes.first:
        check_new_folder(out)
        check_new_folder(cache)
    check_begun(out, resume)
    known = batch or (RECIPES[preset].batch if preset in RECIPES else None)  # what "auto" is the model decides
    if known is not None:
        split(Recipe(batch=known), at_once)
    material = Material.found(composites, objects, backgrounds)
    if processes.first and composites is None and not keep_held_out:
        _tell_of([name for name in material.own if may_be_held_out(name)])
    vlm = load_vlm(model, device, dtype, bits, size)
    preset = ("default" if vlm.keeps_cells else "paper") if preset == "auto" else preset
    recipe, kind = RECIPES[preset], REGISTRY[method]
    recipe = replace(recipe, batch=batch or recipe.batch, absent=recipe.absent if absent is None else absent)
    recipe, batches = split(recipe, at_once)
    assert issubclass(kind, Inserted)
    torch.manual_seed(seed)
    insert = kind.begin(vlm, preset)
    found = sources(material, vlm.size[0], recipe.min_objects, images, seed, keep_held_out)
    with processes.first_alone():
        train_store = FeatureStore(cache, vlm, found.train, found.images, {**found.about, "split": "train"}).build()
        held_out = FeatureStore(cache, vlm, found.held_out, HELD_OUT, {**found.about, "split": "held out"}).build()
    task = BoxTask(vlm, insert, recipe, train_store, held_out, found.names, seed)
    rate = kind.rates[preset] if rate is None else rate
    schedule = TrainConfig(steps, rate, final=recipe.final, batches=batches, seed=seed)
    public = {key: value.name if isinstance(value, Path) else value for key, value in found.about.items()}
    public |= {"images a step": recipe.batch * batches, "absent": recipe.absent}
    settings = {"method": method, "model fingerprint": vlm.fingerprint, "preset": preset, "images": found.images}
    figures = fit(task, schedule, out, resume, settings | public)
    public["images a step"] = recipe.batch * batches * processes.count  # of all of them, which may be others next time
    return _finish(out, method, task, found, schedule, public, figures, began) if processes.first else figures


def _tell_of(names: list[str]) -> None:
    """A line on stderr for the user whose cut-outs have these names."""
    if names:
        shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
        line = f"Not pasted, since COCO and VOC have them (--keep-held-out pastes them): {shown}, {len(names)} in all."
        Console(stderr=True).print(line, soft_wrap=True, markup=False, highlight=False)


def _finish(
    out: Path,
    method: str,
    task: BoxTask,
    found: Sources,
    schedule: TrainConfig,
    public: dict[str, object],
    figures: dict[str, float],
    began: float,
) -> dict[str, float]:
    """Calibrate, measure and save what was trained; returns all its figures. `began`: when, seconds since 1970."""
    insert = task.module
    scale, shift, balanced = calibrate(task, found.held_out_names, task.seed) if task.recipe.absent else NEVER
    calibrated = {**insert.config.to_dict(), "absent_scale": scale, "absent_shift": shift}
    measured = task.evaluate(schedule.steps, out / "pictures", HELD_OUT)
    figures = {**figures, **measured, "absent_balanced_accuracy": balanced}
    about = card(method, task.vlm.name, public, found.licences, schedule, figures, time.time() - began)
    adapter.save(out, method, task.vlm, calibrated, insert.state_dict(), about)
    return figures


def split(recipe: Recipe, at_once: int | None) -> tuple[Recipe, int]:
    """The recipe for so many of its images at once, and how many such batches a step then has.

    Raises InputError where the batch is no multiple of that.
    """
    at_once = at_once or recipe.batch
    if recipe.batch % at_once:
        raise InputError(f"A batch of {recipe.batch} images does not come in parts of {at_once}: change one of them.")
    return replace(recipe, batch=at_once), recipe.batch // at_once


@torch.inference_mode()
def calibrate(task: BoxTask, names: tuple[str, ...], seed: int) -> tuple[float, float, float]:
    """Scale and shift of the absent logit (Platt, 1999) on held-out composites, as many present as absent phrases,
    and the balanced accuracy of a fit to half of the composites on the other half."""
    rng, asked = np.random.default_rng(seed), list[tuple[int, str, bool]]()
    for i in range(task.held_out.count):
        here = [name for name, _ in task.held_out.objects[i]]
        asked += [(i, name, False) for name in here]
        asked += [(i, name, True) for name in as_many_absent(names, here, rng)]
    refused = [min(max(written.refusal or 0.0, 1e-9), 1 - 1e-9) for written in task.answers([a[:2] for a in asked])]
    x, y = logit(refused), np.array([missing for *_, missing in asked])
    scale, shift = fit_logistic(x[:, None], y, PLAIN)
    half = np.array([i % 2 == 0 for i, *_ in asked])
    fitted = fit_logistic(x[half, None], y[half], PLAIN)
    guess, true = fitted[0] * x[~half] + fitted[1] >= 0, y[~half]
    return float(scale), float(shift), float((guess[true].mean() + (~guess[~true]).mean()) / 2)


def card(
    method: str,
    model: str,
    about: dict[str, object],
    licences: str,
    config: TrainConfig,
    figures: dict[str, float],
    seconds: float,
) -> str:
    """The adapter's model card."""
    pasted = "also categories of COCO and VOC were" if about.get("keep_held_out") else "no category of COCO or VOC was"
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in figures.items())
    return f"""# {method} for {model}

Trained with `wherein train {method}` on self-made composites; no labelled box was used, and {pasted}
pasted in training.

- data: {about}
- licences of the cut-outs pasted in training: {licences}
- training: {config}
- time: {seconds / 60:.0f} minutes

Figures on {HELD_OUT} composites of categories of COCO and VOC (up to 3 objects):

| figure | value |
|---|---|
{rows}
"""
