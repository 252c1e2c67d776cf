"""Finding localisation heads: every head measured on many phrases, the few that stay written down (CVPR'25, section 4).

From real pairs, as published, or from composites that we make ourselves: no data are needed then, and the true box of
every phrase is known, so heads can also be ranked by how well their maps agree with it.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from wherein.errors import InputError
from wherein.journal import Journal, writing
from wherein.methods import adapter
from wherein.methods.heads import selection
from wherein.methods.heads.config import HeadsConfig
from wherein.methods.heads.criteria import agreement, attention_sum, spatial_entropy
from wherein.methods.heads.maps import Maps
from wherein.methods.heads.method import Heads
from wherein.methods.heads.reading import smooth
from wherein.methods.heads.selection import Head, Ranking
from wherein.training.heads_boxes import calibrate, jointly
from wherein.training.pairs import Pairs
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
LISTED, LISTED_ALONE = 20, 5  # heads in the file: of the ranking, and of each criterion alone, where no more are used


@dataclass(frozen=True)
class Found:
    """What a search gives: settings with heads, and everything known of how they were found, ready for JSON."""

    config: HeadsConfig
    facts: dict[str, Any]
    ranking: Ranking


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

    Fewer are chosen, and a line says so, where no more look at the image enough.

    An interrupted search goes on where it stopped, from a file beside `out`. Raises InputError for unknown choices, for
    a model of which no layer counts, and where that file is of other settings or data, or cannot be written.
    """
    check_choices(preset, by)
    if (layers := len(vlm.seams.attentions)) <= selection.FIRST:
        raise InputError(f"{vlm.name} has {layers} layers; heads of the first {selection.FIRST} never count.")
    measured_best = "relative" if vlm.name == "default" else "paper"
    settings = PRESETS[measured_best if preset == "auto" else preset]
    begun = out.with_name(f"{out.name}.rows")
    journal = Journal(
        begun,
        {
            "model": [vlm.fingerprint, str(vlm.dtype)],
            "data": pairs.about,
            "prompt": settings.prompt,
            "references": settings.references,
            "mirrored": settings.mirrored,
            "smoothing": [settings.sigma, settings.kernel],
        },
    )
    measured = measure(vlm, pairs, settings, journal)
    drawn = selection.trials(len(measured), trials, samples, seed)
    ranking, deviation = rank(measured, drawn, by)
    if by == "agreement":
        ranking = replace(ranking, order=jointly(vlm, pairs, settings, ranking.order, top, seed))
    config = replace(settings, heads=ranking.order[:top])
    if len(config.heads) < top:
        _say(f"Only {len(config.heads)} heads of {top} look at the image enough: these are taken.")
    facts = described(measured, drawn, ranking, deviation, max(top, LISTED_ALONE))
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
    with writing(begun):
        begun.unlink()
    return Found(config, facts, ranking)


def measure(vlm: FrozenVLM, pairs: Pairs, settings: HeadsConfig, journal: Journal) -> NDArray[np.float32]:
    """float32[S, 3, L, H] over all phrases of all images: attention sum, spatial entropy, agreement with the box.

    Entropy and agreement are those of the maps as they are read: of the evidence, where reference phrases are given;
    agreement is that of smoothed maps. What the journal has of the first images is not measured again.
    Raises InputError: the model refuses a phrase, the journal holds something else, or cannot be written to.
    """
    method, console = Heads(vlm, config=settings), Console(stderr=True)
    for name in pairs.names:
        vlm.check_phrase(name)
    with journal.reading():
        measured = [_unpacked(row) for row in journal.rows]
    if measured:
        _say(f"Continuing {journal.path}: {len(measured)} images are measured already.")
    todo = range(len(measured), pairs.images)
    for i in track(todo, "measuring heads", console=console, disable=not (todo and console.is_terminal)):
        image = pairs.source(i)
        canvas, maps, seen = method.look(image.image, [phrase for phrase, _ in image.objects], every_head=True)
        truth = np.stack([canvas.inside(box) for _, box in image.objects])[:, None, None]
        figures = attention_sum(maps), spatial_entropy(seen), agreement(_smoothed(seen, settings), truth)
        measured.append(np.stack(figures, 1).astype(np.float32))
        journal.add(_packed(measured[-1]))
    return np.concatenate(measured)


def _say(text: str) -> None:
    """A line on stderr."""
    Console(stderr=True).print(text, soft_wrap=True, markup=False, highlight=False)


def _packed(figures: NDArray[np.float32]) -> dict[str, Any]:
    """An image's row of the journal: bit for bit, and a third as long as the numbers in digits."""
    return {"shape": figures.shape, "figures": b64encode(figures.tobytes()).decode()}


def _unpacked(row: dict[str, Any]) -> NDArray[np.float32]:
    """The figures float32[P, 3, L, H] that were packed; to be called within `Journal.reading`."""
    return np.frombuffer(b64decode(row["figures"], validate=True), np.float32).reshape(row["shape"])


def _smoothed(maps: Maps, settings: HeadsConfig) -> Maps:
    """Maps float32[..., R, C], smoothed as the settings say."""
    flat = smooth(maps.reshape(-1, *maps.shape[-2:]), settings.sigma, settings.kernel)
    return np.asarray(flat, np.float32).reshape(maps.shape)


def rank(
    measured: NDArray[np.float32], drawn: Sequence[NDArray[np.int64]], by: str
) -> tuple[Ranking, NDArray[np.float64]]:
    """Heads of float[S, 3, L, H] from best to worst, and the deviation of their frequency.

    By the mean of their frequency over the trials, or by their mean agreement over all samples of the trials.
    """
    sums, entropy, overlap = np.asarray(measured, np.float64).transpose(1, 0, 2, 3)
    frequency, deviation = selection.spread([selection.by_criteria(sums[trial], entropy[trial]) for trial in drawn])
    joined = np.unique(np.concatenate(drawn))
    known = selection.by_criteria(sums[joined], entropy[joined])
    order = selection.by_agreement(sums[joined], entropy[joined], overlap[joined]).order
    if by == "criteria":
        order = tuple(sorted(known.order, key=lambda head: (-frequency[head], known.entropy[head], head)))
    return replace(known, order=order, frequency=frequency), deviation


def described(
    measured: NDArray[np.float32],
    drawn: Sequence[NDArray[np.int64]],
    ranking: Ranking,
    deviation: NDArray[np.float64],
    alone: int,
) -> dict[str, Any]:
    """What is worth knowing of a ranking of float[S, 3, L, H], ready for JSON; so many heads of each criterion."""
    sums, entropy, overlap = np.asarray(measured, np.float64).transpose(1, 0, 2, 3)
    joined = np.unique(np.concatenate(drawn))
    mean_overlap, counted = overlap[joined].mean(0), selection.counted(ranking.sums)
    return {
        "sum only": selection.most(selection.votes(-sums[joined], counted), alone),
        "entropy only": selection.most(selection.votes(entropy[joined], counted), alone),
        "tau": float(np.mean([selection.keep(sums[trial].mean(0))[1] for trial in drawn])),
        "kept": len(ranking.order),
        "rank_correlation": selection.rank_correlation(ranking.frequency, mean_overlap),
        "heads": [
            {
                "layer": layer,
                "head": head,
                "frequency": float(ranking.frequency[layer, head]),
                "deviation": float(deviation[layer, head]),
                "mean_entropy": float(ranking.entropy[layer, head]),
                "attention_sum": float(ranking.sums[layer, head]),
                "agreement": float(mean_overlap[layer, head]),
            }
            for layer, head in ranking.order[:LISTED]
        ],
    }
