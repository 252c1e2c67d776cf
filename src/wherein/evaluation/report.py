"""An evaluation's outcomes as figures: JSON for machines, a table for people, Markdown for documents."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wherein import calibration
from wherein.evaluation import bootstrap, metrics
from wherein.evaluation.records import Outcome
from wherein.journal import write_text

if TYPE_CHECKING:
    from rich.table import Table

BASELINE = "centre"
FEW = 10  # images, too few for a bootstrap over them
"""The method that every other one is compared with whenever it runs."""
_FIGURES = {
    "mIoU M": "miou_m",
    "mIoU L": "miou_l",
    "mIoU best": "miou_best",
    "P@0.3 (>=)": "p@0.3",
    "P@0.5 (>=)": "p@0.5",
    "cIoU": "ciou",
    "gIoU": "giou",
    "N-acc": "n_acc",
    "T-acc": "t_acc",
    "invalid": "invalid",
    "s/image": "seconds_per_image",
}
"""The columns behind the mean IoU and its interval, and the figure in each."""
_OF_MASKS = ("cIoU", "gIoU")  # columns of data with true masks only
_OF_NO_TARGET = ("N-acc", "T-acc")  # and of data with phrases that mean nothing in their image
_NOWHERE = (np.nan,) * 4  # the corners of an invalid answer


@dataclass(frozen=True, eq=False)
class _Columns:
    """The records of one method, one entry per (truth, prediction) pair, in the order of the images."""

    images: list[str]
    phrases: list[str]
    iou: NDArray[np.float64]
    area: NDArray[np.float64]  # of the truth, at model scale
    pointing: NDArray[np.float64]  # 1 where the middle of the prediction is in the truth
    invalid: NDArray[np.bool_]
    scores: NDArray[np.float64]  # NaN of an invalid answer
    seconds: NDArray[np.float64]  # one entry per image with a labelled box
    masked: NDArray[np.bool_]  # of pairs with a true mask
    overlaps: NDArray[np.float64]  # [2, N]: intersections and unions in pixels, 0 where there is no true mask
    there: NDArray[np.bool_]  # of the distinct phrases of the images: it means something; first those of the pairs
    answered: NDArray[np.bool_]  # of the same: not absent


@dataclass(frozen=True, eq=False)
class _Draws:
    """A method's figures on the same resampled images as every other's, float64[RESAMPLES]; of masks, float64 of those
    resamples that have some."""

    miou: NDArray[np.float64]
    ciou: NDArray[np.float64]
    giou: NDArray[np.float64]


def summarise(
    outcomes: Sequence[Outcome],
    *,
    protocol: str,
    model: str,
    seed: int = 0,
    command: str | None = None,
    split: str | None = None,
    score_kinds: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The figures of every method, JSON-ready; the mean over a split that has no boxes is None.

    `outcomes`, at least one, hold the same images for each method, in one order. `n` counts the pairs of a labelled box
    and the prediction for its phrase; `invalid` is the share of them without a prediction, whose IoU is 0. `miou_best`
    takes, for each phrase of an image, only the labelled box that its prediction fits best. `pointing` is the share of
    labelled boxes that hold the middle of the prediction. `ciou`, `giou` and `mask_p@0.5` are of the `n_masks` pairs
    with a true mask. `n_acc` is the share of the `n_no_target` phrases that mean nothing in their image which are
    answered absent, and `t_acc` that of the others which are not; None where none of the former was asked. Every
    method is compared, image by image, with the baseline `centre` if that runs, and with the
    first method.

    `score_kinds` says what the scores of a method are, by its name. `ece` is the expected calibration error of scores
    that are a probability (`calibration.PROBABILITIES`), an answer being right from an IoU of 0.5 on: equal-mass bins,
    invalid answers left out; None of other scores.
    """
    columns = {name: _columns(outcomes, name) for name in dict.fromkeys(outcome.method for outcome in outcomes)}
    draws = dict(zip(columns, _resampled(list(columns.values()), seed), strict=True))
    kinds = score_kinds or {}
    first = next(iter(columns))
    references = [name for name in dict.fromkeys([BASELINE, first]) if name in columns]

    def compared(name: str, reference: str) -> dict[str, Any]:
        """The paired test of two methods."""
        difference = float(np.mean(columns[name].iou - columns[reference].iou))
        found = bootstrap.comparison(difference, draws[name].miou - draws[reference].miou)
        return {"difference": found.difference, "ci95": list(found.interval), "p": found.p}

    return {
        "schema": 1,
        "protocol": protocol,
        "split": split,
        "n": len(columns[first].iou),
        "images": len(columns[first].seconds),
        "model": model,
        "seed": seed,
        "command": command,
        "methods": {name: _figures(column, draws[name], kinds.get(name)) for name, column in columns.items()},
        "paired": {
            f"{name} - {reference}": compared(name, reference)
            for name in columns
            for reference in references
            if name not in (BASELINE, reference)
        },
    }


def write_json(results: dict[str, Any], path: Path) -> None:
    """Write results to a file, as `write_text` does."""
    write_text(path, json.dumps(results, indent=2, allow_nan=False) + "\n")


def to_table(results: dict[str, Any]) -> "Table":
    """The results as a table for `rich.print`, the comparisons below it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    caption = Text("\n".join(_comparisons(results)))
    table = Table(
        *_columns_of(results), title=Text(_title(results)), caption=caption, box=box.SIMPLE, padding=(0, 1, 0, 0)
    )
    table.title_justify = table.caption_justify = "left"
    for row in _rows(results):
        table.add_row(*(Text(cell) for cell in row))
    return table


def to_markdown(results: dict[str, Any]) -> str:
    """The results as a Markdown table with a line above it that says what was measured, the comparisons below."""
    columns = _columns_of(results)
    lines = [_title(results), "", _markdown_row(columns), _markdown_row(["---"] * len(columns))]
    lines += [_markdown_row(row) for row in _rows(results)]
    comparisons = [f"- {line}" for line in _comparisons(results)]
    return "\n".join([*lines, *(["", *comparisons] if comparisons else [])]) + "\n"


def _columns(outcomes: Sequence[Outcome], method: str) -> _Columns:
    own = [outcome for outcome in outcomes if outcome.method == method]
    records = [record for outcome in own for record in outcome.records]
    counts = [len(outcome.records) for outcome in own]
    # Where a box is asked for, none is answered absent: the probability tells what would be, from a half on.
    doubts = {(each.image, record.phrase): record.absent_probability or 0 for each in own for record in each.records}
    answered = [doubt < 0.5 for doubt in doubts.values()] + [not one.absent for each in own for one in each.no_target]
    names = [outcome.image for outcome in own for _ in outcome.records]
    sides = np.repeat(np.array([(outcome.width, outcome.height) for outcome in own], dtype=np.float64), counts, axis=0)
    truths = _array([record.truth for record in records], 4)
    answers = _array([record.prediction or _NOWHERE for record in records], 4)
    return _Columns(
        images=names,
        phrases=[record.phrase for record in records],
        iou=np.array([record.iou for record in records], dtype=np.float64),
        area=metrics.model_area(truths, *sides.T),
        pointing=metrics.pointing(metrics.centres(answers), truths),
        invalid=np.isnan(answers[:, 0]),
        scores=np.array([record.score for record in records], dtype=np.float64),
        seconds=np.array([outcome.seconds for outcome in own if outcome.records], dtype=np.float64),
        masked=np.array([record.overlap is not None for record in records], dtype=np.bool_),
        overlaps=_array([record.overlap or (0, 0) for record in records], 2).T,
        there=np.arange(len(answered)) < len(doubts),
        answered=np.array(answered, dtype=np.bool_),
    )


def _array(values: Sequence[tuple[float, ...]], width: int) -> NDArray[np.float64]:
    """N tuples of `width` numbers as float64[N, width]."""
    return np.fromiter(chain.from_iterable(values), np.float64, width * len(values)).reshape(-1, width)


def _resampled(columns: Sequence[_Columns], seed: int) -> list[_Draws]:
    """The figures of every method on the same draws of images."""
    masked, parts = columns[0].masked, list[NDArray[np.float64]]()
    for own in columns:
        parts += [own.iou, *own.overlaps, np.where(masked, metrics.mask_iou(*own.overlaps), 0)]
    sums = bootstrap.resampled([np.ones(len(masked)), masked.astype(np.float64), *parts], columns[0].images, seed)
    count, of_masks = sums[:2]
    some = of_masks > 0
    return [
        # Only masks without any pixel have a union of 0, and then an intersection of 0.
        _Draws(iou / count, above[some] / np.maximum(below[some], 1), overlap[some] / of_masks[some])
        for iou, above, below, overlap in sums[2:].reshape(len(columns), 4, -1)
    ]


def _figures(columns: _Columns, draws: _Draws, score_kind: str | None) -> dict[str, Any]:
    medium, large = metrics.medium(columns.area), metrics.large(columns.area)
    questions = list(zip(columns.images, columns.phrases, strict=True))
    return {
        "miou": metrics.mean(columns.iou),
        "miou_m": metrics.mean(columns.iou[medium]),
        "miou_l": metrics.mean(columns.iou[large]),
        "miou_best": metrics.mean(metrics.best_of(columns.iou, questions)),
        "p@0.3": metrics.precision(columns.iou, 0.3),
        "p@0.5": metrics.precision(columns.iou, 0.5),
        "pointing": metrics.mean(columns.pointing),
        "invalid": metrics.mean(columns.invalid.astype(np.float64)),
        "ci95": list(bootstrap.interval(draws.miou)),
        "n_m": int(medium.sum()),
        "n_l": int(large.sum()),
        "ece": calibration.expected_calibration_error(_reliability(columns))
        if score_kind in calibration.PROBABILITIES
        else None,
        "seconds_per_image": metrics.mean(columns.seconds),
        **_mask_figures(columns, draws),
        **_no_target_figures(columns),
        "per_category": metrics.per_category(columns.iou, columns.phrases),
    }


def reliability(outcomes: Sequence[Outcome], method: str) -> list[calibration.Bin]:
    """The reliability table of a method's scores: an answer is right from an IoU of 0.5 on, an invalid one left out."""
    return _reliability(_columns(outcomes, method))


def _reliability(columns: _Columns) -> list[calibration.Bin]:
    given = ~np.isnan(columns.scores)
    return calibration.reliability(columns.scores[given], columns.iou[given] >= 0.5)


def _mask_figures(columns: _Columns, draws: _Draws) -> dict[str, Any]:
    overlaps = columns.overlaps[:, columns.masked]
    iou = metrics.mask_iou(*overlaps)
    return {
        "ciou": metrics.cumulative_iou(*overlaps),
        "ciou_ci95": list(bootstrap.interval(draws.ciou)) if len(iou) else None,
        "giou": metrics.mean(iou),
        "giou_ci95": list(bootstrap.interval(draws.giou)) if len(iou) else None,
        "mask_p@0.5": metrics.precision(iou, 0.5),
        "n_masks": int(columns.masked.sum()),
    }


def _no_target_figures(columns: _Columns) -> dict[str, Any]:
    answered, there = columns.answered, columns.there
    return {
        "n_acc": metrics.no_target_accuracy(answered, there),
        "t_acc": None if there.all() else metrics.no_target_accuracy(~answered, ~there),
        "n_no_target": int(np.count_nonzero(~there)),
    }


def _title(results: dict[str, Any]) -> str:
    name = results["protocol"] if results["split"] is None else f"{results['protocol']} {results['split']}"
    return f"{name}: {results['n']} boxes in {results['images']} images, model {results['model']}"


def _has(results: dict[str, Any], count: str) -> bool:
    return any(figures[count] for figures in results["methods"].values())


def _columns_of(results: dict[str, Any]) -> list[str]:
    return ["method", "mIoU", "95 %", *_shown(results)]


def _rows(results: dict[str, Any]) -> list[list[str]]:
    keys = [_FIGURES[column] for column in _shown(results)]
    return [
        [name, _number(figures["miou"]), _interval(figures["ci95"]), *(_number(figures[key]) for key in keys)]
        for name, figures in results["methods"].items()
    ]


def _shown(results: dict[str, Any]) -> list[str]:
    hidden = [
        *(() if _has(results, "n_masks") else _OF_MASKS),
        *(() if _has(results, "n_no_target") else _OF_NO_TARGET),
    ]
    return [column for column in _FIGURES if column not in hidden]


def _comparisons(results: dict[str, Any]) -> list[str]:
    few = [f"Of fewer than {FEW} images, intervals and p-values say little."] if results["images"] < FEW else []
    return few + [
        f"{pair}: {found['difference']:+.3f}, 95 % {_interval(found['ci95'])}, p = {found['p']:.2g}"
        for pair, found in results["paired"].items()
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(ends: Sequence[float]) -> str:
    return f"{ends[0]:.3f}..{ends[1]:.3f}"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
