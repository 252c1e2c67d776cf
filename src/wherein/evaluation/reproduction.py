"""A paper's table, run on data sets: what is there is kept, what is missing is run, and each figure stands beside the
published one.

A row that is run several times counts with the mean of its runs; its interval is over images, its deviation over runs.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wherein.data import Complain, Dataset, Sample
from wherein.errors import AdapterError, InputError
from wherein.evaluation import bootstrap, metrics
from wherein.evaluation.parts import Part, Table, identity
from wherein.evaluation.protocols import Grounder, run
from wherein.evaluation.records import Journal, Outcome

FIGURES = ("miou", "miou_m", "miou_l", "p@0.3", "p@0.5", "ciou")
"""What is worked out of every row; `ciou` of data with masks only."""

Track = Callable[[Any, str, int], Any]
"""Shows the progress of an iterable: (it, what it is, how long it is) -> the iterable."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """The images of a data set that a protocol asks about."""

    dataset: Dataset
    protocol: str
    samples: Sequence[Sample]

    @property
    def key(self) -> str:
        """Under which name the papers print it: "coco", "voc", "lvis", "refcoco val" or "refcoco testa"; "" for others.

        What a set is called and where it lies decides, not its format: a user's own set may have COCO's.
        """
        called = f"{self.dataset.name} {self.dataset.files[0].resolve().parent.name}".lower()
        if self.dataset.format == "refcoco":
            split = str(self.dataset.split).lower()
            return f"refcoco {split}" if re.search(r"(?<![a-z])refcoco(?![a-z+])", called) else ""
        found = re.search(r"(?<![a-z])(lvis|voc|coco)(?![a-z])|(val2017|train2017)", called)
        return "" if found is None else found[1] or "coco"


@dataclass(frozen=True)
class _Run:
    """An answerer under the name of its row and run."""

    name: str
    answers: Grounder

    def ground(self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True) -> Any:
        """As the answerer does."""
        return self.answers.ground(image, phrases, absent=absent)


@dataclass(frozen=True, eq=False)
class _Row:
    """All answers of a row: of R runs and N pairs of a labelled box and an answer."""

    images: list[str]
    iou: NDArray[np.float64]  # [R, N]
    area: NDArray[np.float64]  # [N], at model scale
    invalid: NDArray[np.float64]  # [R, N]
    overlaps: NDArray[np.float64]  # [R, 2, N]: intersections and unions in pixels, NaN without a true mask
    seconds: float  # an image and run


def reproduce(
    table: Table,
    chosen: Chosen,
    folder: Path,
    settings: Mapping[str, Any],
    *,
    baseline: str,
    seed: int,
    complain: Complain,
    track: Track,
) -> dict[str, Any]:
    """Run a table on one data set; the rows as JSON-ready figures, and why some could not be run.

    `folder` keeps the answers of each part: the same call again runs nothing. `settings`: what they depend on besides
    the data and the answerers. Every row is compared with the row `baseline`, images paired.
    """
    found: dict[str, _Row] = {}
    refused: dict[str, str] = {}
    for part in table.parts:
        try:
            answerers = part.make()
        except (InputError, AdapterError) as error:
            refused.update(dict.fromkeys(part.rows, str(error)))
            continue
        found.update(_run(part, answerers, chosen, folder, settings, complain, track))
    draws = {name: _draws(row, seed) for name, row in found.items()}
    rows = {}
    for name, row in found.items():
        rows[name] = _figures(row, draws[name])
        if baseline in found and name != baseline:
            difference = float(row.iou.mean() - found[baseline].iou.mean())
            compared = bootstrap.comparison(difference, draws[name] - draws[baseline])
            rows[name][f"minus {baseline}"] = {
                "difference": difference,
                "ci95": list(compared.interval),
                "p": compared.p,
            }
        rows[name]["published"] = dict(table.published.get(name, {}).get(chosen.key, {}))
    first = next(iter(found.values()), None)
    return {
        "data": chosen.dataset.name,
        "protocol": chosen.protocol,
        "split": chosen.dataset.split,
        "digest": chosen.dataset.digest(),
        "images": 0 if first is None else len(set(first.images)),
        "n": 0 if first is None else len(first.images),
        "rows": rows,
        "not run": refused,
    }


def _run(
    part: Part,
    answerers: Sequence[Sequence[Grounder]],
    chosen: Chosen,
    folder: Path,
    settings: Mapping[str, Any],
    complain: Complain,
    track: Track,
) -> dict[str, _Row]:
    """The rows of a part: every run of each, asked about every image."""
    runs = {
        row: [_Run(row if len(some) == 1 else f"{row} #{i}", one) for i, one in enumerate(some)]
        for row, some in zip(part.rows, answerers, strict=True)
    }
    every = [one for some in runs.values() for one in some]
    made_by = {
        **settings,
        "data": chosen.dataset.digest(),
        "protocol": chosen.protocol,
        "split": chosen.dataset.split,
        "answerers": {one.name: identity(one.answers) for one in every},
    }
    name = part.rows[0] if len(part.rows) == 1 else "rows"
    digest = sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:8]  # other settings are another file
    with Journal(folder / f"{name.replace(' ', '_')}-{digest}.records.jsonl", made_by, keep=True) as journal:
        asked = track(run(chosen.samples, every, journal, complain), name, len(chosen.samples))
        outcomes = [outcome for outcomes in asked for outcome in outcomes]
    if not outcomes:
        raise InputError(f"No image of {chosen.dataset.files[0]} could be asked about.")
    return {row: _row([[each for each in outcomes if each.method == one.name] for one in runs[row]]) for row in runs}


def _row(runs: Sequence[Sequence[Outcome]]) -> _Row:
    """The answers of every run of a row, on the same images in the same order."""
    pairs = [(outcome, record) for outcome in runs[0] for record in outcome.records]
    records = [[record for outcome in outcomes for record in outcome.records] for outcomes in runs]
    sides = np.array([(outcome.width, outcome.height) for outcome, _ in pairs], np.float64).reshape(-1, 2)
    truths = np.array([record.truth for _, record in pairs], np.float64).reshape(-1, 4)
    overlaps = [[record.overlap or (math.nan, math.nan) for record in each] for each in records]
    return _Row(
        images=[outcome.image for outcome, _ in pairs],
        iou=np.array([[record.iou for record in each] for each in records]),
        area=metrics.model_area(truths, *sides.T),
        invalid=np.array([[record.prediction is None for record in each] for each in records], np.float64),
        overlaps=np.array(overlaps, np.float64).transpose(0, 2, 1),
        seconds=float(np.mean([outcome.seconds for outcomes in runs for outcome in outcomes])),
    )


def _draws(row: _Row, seed: int) -> NDArray[np.float64]:
    """The mean IoU on resampled images."""
    values = row.iou.mean(axis=0)
    sums, counts = bootstrap.resampled([values, np.ones(len(values))], row.images, seed)
    means: NDArray[np.float64] = sums / counts
    return means


def _figures(row: _Row, draws: NDArray[np.float64]) -> dict[str, Any]:
    runs = [_of_one(iou, row.area, overlaps) for iou, overlaps in zip(row.iou, row.overlaps, strict=True)]
    known = [name for name in FIGURES if runs[0][name] is not None]
    return {
        **{name: float(np.mean([one[name] for one in runs])) if name in known else None for name in FIGURES},
        "deviation": {name: float(np.std([one[name] for one in runs], ddof=1)) for name in known}
        if len(runs) > 1
        else {},
        "runs": len(runs),
        "ci95": list(bootstrap.interval(draws)),
        "invalid": float(row.invalid.mean()),
        "seconds_per_image": row.seconds,
    }


def _of_one(iou: NDArray[np.float64], area: NDArray[np.float64], overlaps: NDArray[np.float64]) -> dict[str, Any]:
    """The figures of one run."""
    masked = ~np.isnan(overlaps[0])
    return {
        "miou": metrics.mean(iou),
        "miou_m": metrics.mean(iou[metrics.medium(area)]),
        "miou_l": metrics.mean(iou[metrics.large(area)]),
        "p@0.3": metrics.precision(iou, 0.3),
        "p@0.5": metrics.precision(iou, 0.5),
        "ciou": metrics.cumulative_iou(*overlaps[:, masked]),
    }
