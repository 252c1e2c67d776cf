"""Finding localisation heads: every head measured on many phrases, the few that stay written down (CVPR'25, section 4).

From real pairs, as published, or from composites that we make ourselves: no data are needed then, and the true box of
every phrase is known, so heads can also be ranked by how well their maps agree with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.optimize import minimize

from wherein import images as pictures
from wherein.calibration import roc_auc
from wherein.data import Sample
from wherein.errors import InputError
from wherein.geometry import paired_iou
from wherein.methods import adapter
from wherein.methods.heads import selection
from wherein.methods.heads.config import HeadsConfig
from wherein.methods.heads.criteria import agreement, attention_sum, spatial_entropy
from wherein.methods.heads.maps import Maps
from wherein.methods.heads.method import Heads, instances
from wherein.methods.heads.reading import doubt, smooth
from wherein.methods.heads.selection import Head, Ranking
from wherein.phrases import check_phrases
from wherein.synth import AUGMENTED, Backgrounds, ObjectBank
from wherein.training.rows import Rows
from wherein.training.sources import composed
from wherein.training.store import Labelled, Source
from wherein.vlm.base import FrozenVLM

PLACEHOLDER: tuple[Head, ...] = ((0, 0),)  # of settings whose heads are still to be found
PRESETS = {
    "paper": HeadsConfig(PLACEHOLDER),
    "relative": HeadsConfig(
        PLACEHOLDER,
        prompt=" In the image is {noun}",
        references=("thing", "object", "picture"),
        mirrored=True,
        sigma=0.75,
        zoom=4,
        threshold=0.2,
    ),
}
BY = ("criteria", "agreement")
LISTED, LISTED_ALONE = 20, 5  # heads in the file: of the ranking, and of each criterion alone
CALIBRATED = 200  # images on which "absent" is calibrated


@dataclass(frozen=True)
class Pairs:
    """Labelled images to look for heads in: `source(i)` for i below `images`, what they are, in a sentence, and names
    of things, of which those that are not in an image are asked for as absent."""

    source: Source
    images: int
    about: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What a search gives: settings with heads, and everything known of how they were found, ready for JSON."""

    config: HeadsConfig
    facts: dict[str, Any]
    ranking: Ranking


def composites(vlm: FrozenVLM, images: int, seed: int) -> Pairs:
    """Composites of the object bank in the package, made as PIN's are."""
    bank = ObjectBank.load()
    source = composed(bank, Backgrounds.load(), vlm.size[0], seed, AUGMENTED)
    return Pairs(source, images, f"{images} composites, seed {seed}", bank.names)


def labelled(samples: Sequence[Sample], name: str, images: int, seed: int) -> Pairs:
    """At most so many real images, drawn at random; their boxes are used by a search by agreement only.

    Raises InputError where none has a phrase, an image is missing, or a phrase cannot be asked for.
    """
    asked = [sample for sample in samples if sample.objects]
    if not asked:
        raise InputError(f"{name} holds no phrase with a box, so there is nothing to look for heads with.")
    kept = [asked[i] for i in np.random.default_rng(seed).permutation(len(asked))[:images]]
    for sample in kept:
        if not sample.path.is_file():
            raise InputError(f"The image {sample.name!r} of {name} is not at {sample.path}.")
        check_phrases(sample.phrases())

    def source(i: int) -> Labelled:
        """Image `i` and its phrases."""
        objects = {thing.phrase: thing.box for thing in reversed(kept[i].objects)}  # of a phrase, its first box
        return Labelled(pictures.load(kept[i].path), tuple(objects.items()))

    seen = [
        (sample.name, sample.path.stat().st_size, [(o.phrase, o.box.tolist()) for o in sample.objects])
        for sample in kept
    ]
    digest = hashlib.sha256(str(seen).encode()).hexdigest()[:12]
    names = tuple(sorted({phrase for sample in kept for phrase in sample.phrases()}))
    return Pairs(source, len(kept), f"{name} ({digest}), {len(kept)} images", names)


def check_choices(preset: str, by: str) -> None:
    """Raise InputError for a preset or a criterion that there is not; to be asked before a model is loaded."""
    for what, name, choices in (("preset", preset, ("auto", *PRESETS)), ("criterion", by, BY)):
        if name not in choices:
            raise InputError(f"There is no {what} {name!r}: choose {', '.join(choices)}.")


def find(
    vlm: FrozenVLM,
    pairs: Pairs,
    out: Path,
    *,
    preset: str = "auto",
    by: str = "criteria",
    samples: int = 1000,
    trials: int = 5,
    top: int = 3,
    seed: int = 0,
) -> Found:
    """Measure all heads of `vlm` on `pairs`, choose `top` of them, calibrate "absent" and write the file `out`.

    An interrupted search goes on where it stopped, from a file beside `out`. Raises InputError for unknown choices, and
    for a model of which no layer counts.
    """
    check_choices(preset, by)
    if (layers := len(vlm.seams.attentions)) <= selection.FIRST:
        raise InputError(f"{vlm.name} has {layers} layers; heads of the first {selection.FIRST} never count.")
    measured_best = "relative" if vlm.name == "default" else "paper"
    settings = PRESETS[measured_best if preset == "auto" else preset]
    rows = Rows(
        out.with_name(f"{out.name}.rows"),
        {
            "model": [vlm.fingerprint, str(vlm.dtype)],
            "data": pairs.about,
            "prompt": settings.prompt,
            "references": settings.references,
            "mirrored": settings.mirrored,
            "smoothing": [settings.sigma, settings.kernel],
        },
    )
    if rows.note:
        Console(stderr=True, soft_wrap=True).print(rows.note, markup=False, highlight=False)
    measured = measure(vlm, pairs, settings, rows)
    drawn = selection.trials(len(measured), trials, samples, seed)
    config, facts, ranking = choose(measured, drawn, settings, by, top)
    config, figures = calibrate(vlm, pairs, config, seed)
    facts = {
        "by": by,
        "data": pairs.about,
        "samples": len(drawn[0]),
        "trials": trials,
        "seed": seed,
        **facts,
        **figures,
    }
    adapter.save_file_only(out, Heads.name, vlm, config.to_dict(), facts)
    rows.finish()
    return Found(config, facts, ranking)


def measure(vlm: FrozenVLM, pairs: Pairs, settings: HeadsConfig, rows: Rows) -> NDArray[np.float32]:
    """float32[S, 3, L, H] over all phrases of all images: attention sum, spatial entropy, agreement with the box.

    Entropy and agreement are those of the maps as they are read: of the evidence, where reference phrases are given;
    agreement is that of smoothed maps.
    """
    method = Heads(vlm, config=settings)
    todo, console = range(len(rows.done), pairs.images), Console(stderr=True)
    for i in track(todo, "measuring heads", console=console, disable=not (todo and console.is_terminal)):
        image = pairs.source(i)
        for phrase, _ in image.objects:
            vlm.check_phrase(phrase)
        canvas, maps, seen = method.look(image.image, [phrase for phrase, _ in image.objects], every_head=True)
        truth = np.stack([canvas.inside(box) for _, box in image.objects])[:, None, None]
        figures = attention_sum(maps), spatial_entropy(seen), agreement(_smoothed(seen, settings), truth)
        rows.add(np.stack(figures, 1).astype(np.float32))
    return np.concatenate(rows.done)


def _smoothed(maps: Maps, settings: HeadsConfig) -> Maps:
    """Maps float32[..., R, C], smoothed as the settings say."""
    flat = smooth(maps.reshape(-1, *maps.shape[-2:]), settings.sigma, settings.kernel)
    return np.asarray(flat, np.float32).reshape(maps.shape)


def choose(
    measured: NDArray[np.float32], drawn: Sequence[NDArray[np.int64]], settings: HeadsConfig, by: str, top: int
) -> tuple[HeadsConfig, dict[str, Any], Ranking]:
    """The `top` heads of float[S, 3, L, H] over the trials' samples, what is worth knowing of them, and the ranking.

    The order is that of the mean over trials: of the frequency, or of the agreement.
    """
    sums, entropy, overlap = np.asarray(measured, np.float64).transpose(1, 0, 2, 3)
    each = [selection.by_criteria(sums[trial], entropy[trial]) for trial in drawn]
    frequency, deviation = selection.spread(each)
    joined = np.unique(np.concatenate(drawn))
    known = selection.by_criteria(sums[joined], entropy[joined])
    order = selection.by_agreement(sums[joined], entropy[joined], overlap[joined]).order
    mean_overlap = overlap[joined].mean(0)
    if by == "criteria":
        order = tuple(sorted(known.order, key=lambda head: (-frequency[head], known.entropy[head], head)))
    alone = {
        "sum only": selection.votes(-sums[joined], selection.counted(known.sums)),
        "entropy only": selection.votes(entropy[joined], selection.counted(known.sums)),
    }
    facts = {
        **{name: selection.most(share, LISTED_ALONE) for name, share in alone.items()},
        "tau": float(np.mean([ranking.tau for ranking in each])),
        "kept": len(known.order),
        "rank_correlation": selection.rank_correlation(frequency, mean_overlap),
        "heads": [
            {
                "layer": layer,
                "head": head,
                "frequency": float(frequency[layer, head]),
                "deviation": float(deviation[layer, head]),
                "mean_entropy": float(known.entropy[layer, head]),
                "attention_sum": float(known.sums[layer, head]),
                "agreement": float(mean_overlap[layer, head]),
            }
            for layer, head in order[:LISTED]
        ],
    }
    return replace(settings, heads=order[:top]), facts, replace(known, order=order, frequency=frequency)


def calibrate(
    vlm: FrozenVLM, pairs: Pairs, config: HeadsConfig, seed: int
) -> tuple[HeadsConfig, dict[str, float | None]]:
    """Settings with the weights of `doubt` for "absent", and the figures: box IoU, and how well absence is told.

    Logistic regression on as many phrases that are in an image as phrases of other images that are not; the area under
    its ROC curve is that of a fit to half of the images on the other half, None where there is nothing to fit.
    """
    rng, method = np.random.default_rng(seed), Heads(vlm, config=config)
    indices = [int(i) for i in rng.permutation(pairs.images)[:CALIBRATED]]
    figures, missing, fitted, overlaps = [], [], [], []
    for number, image in enumerate(pairs.source(i) for i in indices):
        here = [phrase for phrase, _ in image.objects]
        away = [str(name) for name in rng.permutation(pairs.names) if name not in here][: len(here)]
        canvas, maps, seen = method.look(image.image, here + away)
        figures += [doubt(own, heat) for own, heat in zip(maps, seen, strict=True)]
        missing += [False] * len(here) + [True] * len(away)
        fitted += [number % 2 == 0] * len(here + away)
        for (_, box), heat in zip(image.objects, seen, strict=False):
            drawn = method.heat(heat)
            answer = canvas.to_image(
                instances(drawn, config.threshold, canvas.shown(drawn.shape))[0].box[None], drawn.shape
            )
            overlaps.append(float(paired_iou(answer, box[None])[0]))
    x, y, half = np.array(figures), np.array(missing), np.array(fitted)
    weights = tuple(_fit(x, y).tolist()) if y.any() and not y.all() else ()
    told = roc_auc(_logits(_fit(x[half], y[half]), x[~half]), y[~half]) if y[half].any() and y[~half].any() else None
    return replace(config, absent=weights), {"miou": float(np.mean(overlaps)), "absent_roc_auc": told}


def _fit(x: NDArray[np.float64], y: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Logistic regression: float64[F + 1], a weight for each figure of float64[S, F] in its unit, and a constant."""
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-9)
    z, sign = (x - mean) / scale, np.where(y, 1, -1)

    def loss(w: NDArray[np.float64]) -> float:
        """Mean logistic loss, and a little against weights that run away."""
        return float(np.logaddexp(0, -(z @ w[:-1] + w[-1]) * sign).mean() + 1e-3 * (w[:-1] ** 2).sum())

    w = minimize(loss, np.zeros(x.shape[1] + 1)).x
    return np.append(w[:-1] / scale, w[-1] - (w[:-1] * mean / scale).sum())


def _logits(weights: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(x @ weights[:-1] + weights[-1])
