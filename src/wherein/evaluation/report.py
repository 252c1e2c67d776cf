"""An evaluation's outcomes as figures: JSON for machines, a table for people, Markdown for documents."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wherein.errors import InputError
from wherein.evaluation import metrics
from wherein.evaluation.records import Outcome

if TYPE_CHECKING:
    from rich.table import Table

BASELINE = "centre"
"""The method that every other one is compared with whenever it runs."""
_COLUMNS = ("method", "mIoU", "95 %", "mIoU M", "mIoU L", "P@0.3", "P@0.5", "cIoU", "gIoU", "invalid", "s/image")
_OF_MASKS = ("cIoU", "gIoU")  # columns of data with true masks only


@dataclass(frozen=True, eq=False)
class _Columns:
    """The records of one method, one entry per (truth, prediction) pair, in the order of the images."""

    images: list[str]
    phrases: list[str]
    iou: NDArray[np.float64]
    area: NDArray[np.float64]  # of the truth, at model scale
    invalid: NDArray[np.float64]
    seconds: NDArray[np.float64]  # one entry per image
    overlaps: NDArray[np.float64]  # [N, 2]: intersection and union in pixels, of the pairs with a true mask
    masked: list[str]  # the images of these pairs


def summarise(
    outcomes: Sequence[Outcome],
    *,
    protocol: str,
    model: str,
    seed: int = 0,
    command: str | None = None,
    split: str | None = None,
) -> dict[str, Any]:
    """The figures of every method, JSON-ready; the mean over a split that has no boxes is None.

    `outcomes`, at least one, hold the same images for each method, in one order. `n` counts the pairs of a labelled box
    and the prediction for its phrase; `invalid` is the share of them without a prediction, whose IoU is 0. `miou_best`
    takes, for each phrase of an image, only the labelled box that its prediction fits best. `ciou`, `giou` and
    `mask_p@0.5` are of the `n_masks` pairs with a true mask. Every method is compared, image by image, with the
    baseline `centre` if that runs, and with the first method.
    """
    columns = {name: _columns(outcomes, name) for name in dict.fromkeys(outcome.method for outcome in outcomes)}
    first = next(iter(columns))
    references = [name for name in dict.fromkeys([BASELINE, first]) if name in columns]
    return {
        "schema": 1,
        "protocol": protocol,
        "split": split,
        "n": len(columns[first].iou),
        "images": len(columns[first].seconds),
        "model": model,
        "seed": seed,
        "command": command,
        "methods": {name: _figures(column, seed) for name, column in columns.items()},
        "paired": {
            f"{name} - {reference}": _comparison(columns[name], columns[reference], seed)
            for name in columns
            for reference in references
            if name not in (BASELINE, reference)
        },
    }


def write_json(results: dict[str, Any], path: Path) -> None:
    """Write results to a file at once: whoever reads it finds the old content or the new one, never a part.

    Raises:
        InputError: the file cannot be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"Cannot write the results to {path}: {error.strerror or error}.") from error


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
    pairs = [(outcome, record) for outcome in own for record in outcome.records]
    truths = np.array([record.truth for _, record in pairs], dtype=np.float64).reshape(-1, 4)
    widths = np.array([outcome.width for outcome, _ in pairs], dtype=np.float64)
    heights = np.array([outcome.height for outcome, _ in pairs], dtype=np.float64)
    masked = [(outcome.image, record.overlap) for outcome, record in pairs if record.overlap is not None]
    return _Columns(
        images=[outcome.image for outcome, _ in pairs],
        phrases=[record.phrase for _, record in pairs],
        iou=np.array([record.iou for _, record in pairs], dtype=np.float64),
        area=metrics.model_area(truths, widths, heights),
        invalid=np.array([record.prediction is None for _, record in pairs], dtype=np.float64),
        seconds=np.array([outcome.seconds for outcome in own], dtype=np.float64),
        overlaps=np.array([overlap for _, overlap in masked], dtype=np.float64).reshape(-1, 2),
        masked=[image for image, _ in masked],
    )


def _figures(columns: _Columns, seed: int) -> dict[str, Any]:
    medium, large = metrics.medium(columns.area), metrics.large(columns.area)
    questions = list(zip(columns.images, columns.phrases, strict=True))
    return {
        "miou": metrics.mean(columns.iou),
        "miou_m": metrics.mean(columns.iou[medium]),
        "miou_l": metrics.mean(columns.iou[large]),
        "miou_best": metrics.mean(metrics.best_of(columns.iou, questions)),
        "p@0.3": metrics.precision(columns.iou, 0.3),
        "p@0.5": metrics.precision(columns.iou, 0.5),
        "invalid": metrics.mean(columns.invalid),
        "ci95": list(metrics.bootstrap_interval(columns.iou, columns.images, seed)),
        "n_m": int(medium.sum()),
        "n_l": int(large.sum()),
        "seconds_per_image": metrics.mean(columns.seconds),
        **_mask_figures(columns, seed),
        "per_category": metrics.per_category(columns.iou, columns.phrases),
    }


def _mask_figures(columns: _Columns, seed: int) -> dict[str, Any]:
    intersections, unions = columns.overlaps.T
    iou, images = metrics.mask_iou(intersections, unions), columns.masked
    return {
        "ciou": metrics.cumulative_iou(intersections, unions),
        "ciou_ci95": list(metrics.cumulative_interval(intersections, unions, images, seed)) if images else None,
        "giou": metrics.mean(iou),
        "giou_ci95": list(metrics.bootstrap_interval(iou, images, seed)) if images else None,
        "mask_p@0.5": metrics.precision(iou, 0.5),
        "n_masks": len(images),
    }


def _comparison(first: _Columns, second: _Columns, seed: int) -> dict[str, Any]:
    compared = metrics.compare(first.iou, second.iou, first.images, seed)
    return {"difference": compared.difference, "ci95": list(compared.interval), "p": compared.p}


def _title(results: dict[str, Any]) -> str:
    name = results["protocol"] if results["split"] is None else f"{results['protocol']} {results['split']}"
    return f"{name}: {results['n']} boxes in {results['images']} images, model {results['model']}"


def _has_masks(results: dict[str, Any]) -> bool:
    return any(figures["n_masks"] for figures in results["methods"].values())


def _columns_of(results: dict[str, Any]) -> list[str]:
    return [column for column in _COLUMNS if _has_masks(results) or column not in _OF_MASKS]


def _rows(results: dict[str, Any]) -> list[list[str]]:
    masks = ("ciou", "giou") if _has_masks(results) else ()
    keys = ("miou_m", "miou_l", "p@0.3", "p@0.5", *masks, "invalid", "seconds_per_image")
    return [
        [name, _number(figures["miou"]), _interval(figures["ci95"]), *(_number(figures[key]) for key in keys)]
        for name, figures in results["methods"].items()
    ]


def _comparisons(results: dict[str, Any]) -> list[str]:
    return [
        f"{pair}: {found['difference']:+.3f}, 95 % {_interval(found['ci95'])}, p = {found['p']:.2g}"
        for pair, found in results["paired"].items()
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(ends: Sequence[float]) -> str:
    return f"{ends[0]:.3f}..{ends[1]:.3f}"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
