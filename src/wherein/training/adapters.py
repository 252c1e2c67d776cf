"""From composites to a saved adapter: sources, training, calibration, model card."""

from __future__ import annotations

import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import logit

from wherein import images as pictures
from wherein.data import read_coco
from wherein.errors import InputError
from wherein.methods import adapter
from wherein.methods.base import REGISTRY
from wherein.methods.insert import Inserted
from wherein.synth import AUGMENTED, Backgrounds, ComposeConfig, ObjectBank, Shards, compose, is_held_out
from wherein.synth.shards import SHARD_INDEX
from wherein.training.boxes import RECIPES, BoxTask
from wherein.training.store import FeatureStore, Labelled, Source
from wherein.training.trainer import TrainConfig, fit

HELD_OUT = 160  # composites of held-out categories for validation and calibration
NEVER = (0.0, -20.0, 0.5)  # calibration of an insert that was never asked for what is not there: nothing is absent


def trainable() -> list[str]:
    """The names of the methods that are trained this way, sorted."""
    return sorted(name for name, method in REGISTRY.items() if issubclass(method, Inserted))


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
) -> dict[str, float]:
    """Train, calibrate and save an adapter in `out`; returns its figures on held-out composites.

    `keep_held_out`: paste the categories of COCO and VOC, too, for a user who evaluates elsewhere.
    """
    from wherein.vlm import load_vlm

    began = time.time()
    vlm = load_vlm(model, device, dtype, bits, size)
    preset = ("default" if vlm.keeps_cells else "paper") if preset == "auto" else preset
    recipe, kind = RECIPES[preset], REGISTRY[method]
    recipe = recipe if batch is None else replace(recipe, batch=batch)
    assert issubclass(kind, Inserted)
    torch.manual_seed(seed)
    insert = kind.begin(vlm, preset)
    bank = ObjectBank.load() + ObjectBank.from_folder(objects) if objects else ObjectBank.load()
    grounds = Backgrounds.from_folder(backgrounds) if backgrounds else Backgrounds.load()
    kept = bank if keep_held_out else bank.without(is_held_out)
    about: dict[str, Any] = {
        "seed": seed,
        "objects": len(bank),
        "backgrounds": backgrounds,
        "composites": composites,
        "min_objects": recipe.min_objects,
        **({"keep_held_out": True} if keep_held_out else {}),
    }
    if composites is None:
        config = replace(AUGMENTED, min_objects=recipe.min_objects)
        source, names = composed(kept, grounds, vlm.size[0], seed, config), kept.names
    else:
        source, images, names = labelled(composites)
        about |= _kept_with(composites, names)
    other = bank.keep(lambda cutout: is_held_out(cutout.name))
    train_store = FeatureStore(cache, vlm, source, images, {**about, "split": "train"}).build()
    held_source = composed(other, grounds, vlm.size[0], seed + 1_000_003, AUGMENTED)
    held_out = FeatureStore(cache, vlm, held_source, HELD_OUT, {**about, "split": "held out"}).build()
    task = BoxTask(vlm, insert, recipe, train_store, held_out, names, seed)
    schedule = TrainConfig(steps, kind.rates[preset] if rate is None else rate, final=recipe.final, seed=seed)
    public = {key: value.name if isinstance(value, Path) else value for key, value in about.items()}
    settings = {"method": method, "preset": preset, "images": images, "batch": recipe.batch, **public}
    figures = fit(task, schedule, out, resume, settings)
    scale, shift, balanced = calibrate(task, other.names, seed) if recipe.absent else NEVER
    calibrated = {**insert.config.to_dict(), "absent_scale": scale, "absent_shift": shift}
    figures = {**figures, **task.evaluate(steps, out / "pictures", HELD_OUT), "absent_balanced_accuracy": balanced}
    adapter.save(
        out,
        method,
        vlm,
        calibrated,
        insert.state_dict(),
        card(method, vlm.name, public, schedule, figures, time.time() - began),
    )
    return figures


def composed(bank: ObjectBank, grounds: Backgrounds, side: int, seed: int, config: ComposeConfig) -> Source:
    """Composite i, a function of the seed and i only."""

    def source(i: int) -> Labelled:
        """Composite `i`: a function of the seed and `i` alone."""
        rng = np.random.default_rng([seed, i])
        made = compose(grounds.sample(rng, side), bank, rng, config)
        return Labelled(made.image, tuple((thing.name, thing.box) for thing in made.objects))

    return source


def labelled(folder: Path) -> tuple[Source, int, tuple[str, ...]]:
    """Composites from a folder that `wherein compose` wrote, or one with annotations.json and images/: (source, how
    many, names)."""
    if (folder / SHARD_INDEX).is_file():
        return stored(folder)
    samples = [sample for sample in read_coco(folder / "annotations.json", folder / "images") if sample.objects]
    if not samples:
        raise InputError(f"{folder} holds no labelled image: expected annotations.json in COCO format and images/.")

    def source(i: int) -> Labelled:
        """Sample `i` of the folder."""
        image = pictures.load(samples[i].path)
        return Labelled(image, tuple((thing.phrase, thing.box) for thing in samples[i].objects))

    return source, len(samples), tuple(sorted({thing.phrase for sample in samples for thing in sample.objects}))


def stored(folder: Path) -> tuple[Source, int, tuple[str, ...]]:
    """Composites that `wherein compose` wrote: each object is asked for by one of the phrases that mean it alone, and
    the name that the composite says is true of none is asked for as absent."""
    shards = Shards(folder)

    def source(i: int) -> Labelled:
        """Composite `i`."""
        scene, rng = shards[i], np.random.default_rng(i)
        things = zip(scene.composite.objects, scene.phrases, strict=True)
        asked = tuple((phrases[rng.integers(len(phrases))], thing.box) for thing, phrases in things if phrases)
        return Labelled(scene.composite.image, asked, scene.absent)

    return source, len(shards), shards.names


def _kept_with(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """What is to be known of composites of the user's: which they are, where that is written, and whether categories of
    COCO and VOC are among them."""
    index = folder / SHARD_INDEX
    digest = {"shards": sha256(index.read_bytes()).hexdigest()[:16]} if index.is_file() else {}
    return {**digest, **({"keep_held_out": True} if any(map(is_held_out, names)) else {})}


@torch.inference_mode()
def calibrate(task: BoxTask, names: tuple[str, ...], seed: int) -> tuple[float, float, float]:
    """Scale and shift of the absent logit (Platt, 1999) on held-out composites, as many present as absent phrases,
    and the balanced accuracy this gives."""
    rng, asked = np.random.default_rng(seed), list[tuple[int, str, bool]]()
    for i in range(task.held_out.count):
        here = [name for name, _ in task.held_out.objects[i]]
        others = [name for name in rng.permutation(names) if name not in here][: len(here)]
        asked += [(i, name, False) for name in here] + [(i, name, True) for name in others]
    refused = [min(max(written.refusal or 0.0, 1e-9), 1 - 1e-9) for written in task.answers([a[:2] for a in asked])]
    x, y = logit(refused), np.array([missing for *_, missing in asked])

    def loss(w: np.ndarray) -> float:
        """Logistic loss of scale and shift `w` float[2], nats."""
        return float(np.logaddexp(0, -(w[0] * x + w[1]) * np.where(y, 1, -1)).mean())

    scale, shift = minimize(loss, np.array([1.0, 0.0])).x
    guess = scale * x + shift >= 0
    return float(scale), float(shift), float((guess[y].mean() + (~guess[~y]).mean()) / 2)


def card(
    method: str, model: str, about: dict[str, object], config: TrainConfig, figures: dict[str, float], seconds: float
) -> str:
    """The adapter's model card."""
    pasted = "also categories of COCO and VOC were" if about.get("keep_held_out") else "no category of COCO or VOC was"
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in figures.items())
    return f"""---
library_name: wherein
base_model: {model}
license: apache-2.0
tags: [localisation, {method}]
---
# {method} for {model}

Trained with `wherein train {method}` on self-made composites; no labelled box was used, and {pasted}
pasted in training.

- data: {about}
- training: {config}
- time: {seconds / 60:.0f} minutes

Figures on {HELD_OUT} composites of categories of COCO and VOC (up to 3 objects):

| figure | value |
|---|---|
{rows}
"""
