"""A paper's table, run on data sets: what is there is kept, what is missing is run, and each figure stands beside the
published one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wherein.data import Complain, Dataset, Sample
from wherein.errors import InputError
from wherein.evaluation import bootstrap
from wherein.evaluation.ablations import Variant
from wherein.evaluation.parts import Part, Table, identity, prompt_of
from wherein.evaluation.protocols import Grounder, run
from wherein.evaluation.records import Journal, folders
from wherein.evaluation.rows import Row

Track = Callable[[Any, str, int], Any]
"""Shows the progress of an iterable: (it, what it is, how long it is) -> the iterable."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """The images of a data set that a protocol asks about; `expected`: how many of them PIN's paper has, if it says;
    `limited`: only the first of them are taken."""

    dataset: Dataset
    protocol: str
    samples: Sequence[Sample]
    expected: int | None = None
    limited: bool = False

    @property
    def key(self) -> str:
        """Under which name the papers print it: "coco", "voc", "lvis", or a set with its split as "refcoco testa",
        "refcoco+ val", "refcocog test", "reasonseg val"; "" for others.

        What a set is called and where it lies decides, not its format: a user's own set may have COCO's.
        """
        folder = self.dataset.files[0].resolve().parent
        called = f"{self.dataset.name} {folder.name}".lower()
        if self.dataset.format == "refcoco":
            return _referring(called, str(self.dataset.split).lower())
        if self.dataset.format == "reasonseg":  # its own folder is the split's
            found = re.search(r"reason[ _-]?seg", f"{called} {folder.parent.name}".lower())
            return "" if found is None else f"reasonseg {folder.name.lower()}"
        found = re.search(r"(?<![a-z])(lvis|voc|coco)(?![a-z])|(val2017|train2017)", called)
        return "" if found is None else found[1] or "coco"

    @property
    def as_published(self) -> bool:
        """Whether a paper's figures are of these very images: of a split that it names, or as many as PIN's has."""
        return (" " in self.key and not self.limited) or self.expected == len(self.samples)


def _referring(called: str, split: str) -> str:
    """A split of RefCOCO, RefCOCO+ or RefCOCOg as the papers print it; "" of others and of Google's partitions."""
    found = re.search(r"(?<![a-z])refcoco(?:[ _-]?(\+|plus|g))?(?![a-z+])", called)
    if found is None or "google" in called:  # RefCOCO's papers take UNC's partition, and RefCOCOg's the UMD's
        return ""
    return f"refcoco{(found[1] or '').replace('plus', '+')} {split}"


@dataclass(frozen=True)
class _Run:
    """An answerer under the name of its row and run."""

    name: str
    answers: Grounder

    def ground(self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True) -> Any:
        """As the answerer does."""
        return self.answers.ground(image, phrases, absent=absent)


def check_baseline(name: str, rows: Sequence[str]) -> None:
    """Raise InputError unless there is such a row."""
    if name not in rows:
        raise InputError(f"There is no row {name!r} to compare with: choose {', '.join(rows)}.")


def check_masks(figure: str, chosen: Chosen) -> None:
    """Raise InputError if the figure that a table is about needs true masks, and a data set has none."""
    if figure == "ciou" and all(labelled.mask is None for sample in chosen.samples for labelled in sample.objects):
        raise InputError(
            f"The table is about cIoU, but {chosen.dataset.files[0]} has no masks to measure it by: give data that "
            "has some, or choose the table of boxes (rec)."
        )


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
    the data and the answerers. Every row is compared with the row `baseline`, images paired: all are on the images that
    every row was asked about, and the others are "left out".

    Raises:
        InputError: there is no row `baseline`, or it cannot be run; no image could be asked about; the table is about
            cIoU and the data has no masks.
    """
    check_baseline(baseline, table.rows)
    check_masks(table.figures[0], chosen)
    answered: dict[str, Row] = {}
    about: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}
    for part in sorted(table.parts, key=lambda part: baseline not in part.rows):  # first what all need
        try:
            answerers = part.make()
        except InputError as error:
            if baseline in part.rows:
                raise InputError(f"Nothing can be compared with {baseline!r}, which cannot be run: {error}") from error
            refused.update(dict.fromkeys(part.rows, str(error)))
            continue
        answered |= _run(part, answerers, chosen, folder, settings, complain, track)
        about |= {row: _about(some[0], part.adapters.get(row)) for row, some in zip(part.rows, answerers, strict=True)}
    common, left_out = _same_images(answered, chosen)
    found = {name: answered[name].only(common) for name in table.rows if name in answered}
    return {
        "data": chosen.dataset.name,
        "protocol": chosen.protocol,
        "split": chosen.dataset.split,
        "digest": chosen.dataset.digest(),
        "images": len(common),
        "expected_images": chosen.expected,
        "as_published": chosen.as_published,
        "left out": left_out,
        "n": len(found[baseline].images),
        "rows": {
            name: row | about[name] | {"published": dict(table.published.get(name, {}).get(chosen.key, {}))}
            for name, row in _compared(found, table.figures[0], baseline, seed).items()
        },
        "published besides": {
            name: dict(sets[chosen.key]) for name, sets in table.besides.items() if chosen.key in sets
        },
        "not run": refused,
    }


def _compared(found: Mapping[str, Row], figure: str, baseline: str, seed: int) -> dict[str, dict[str, Any]]:
    """The figures of each row; the interval of the one that the table is about, and its difference to the baseline."""
    draws = {name: row.draws(figure, seed) for name, row in found.items()}
    figures = {name: row.figures() for name, row in found.items()}
    rows = {}
    for name in found:
        rows[name] = figures[name] | {"ci95": list(bootstrap.interval(draws[name]))}
        if name != baseline:
            difference = figures[name][figure] - figures[baseline][figure]
            compared = bootstrap.comparison(difference, draws[name] - draws[baseline])
            rows[name][f"minus {baseline}"] = {
                "difference": difference,
                "ci95": list(compared.interval),
                "p": compared.p,
            }
    return rows


def _run(
    part: Part,
    answerers: Sequence[Sequence[Grounder]],
    chosen: Chosen,
    folder: Path,
    settings: Mapping[str, Any],
    complain: Complain,
    track: Track,
) -> dict[str, Row]:
    """The rows of a part: every run of each, asked about every image."""
    runs = {
        row: [_Run(row if len(some) == 1 else f"{row} #{i}", one) for i, one in enumerate(some)]
        for row, some in zip(part.rows, answerers, strict=True)
    }
    every = [one for some in runs.values() for one in some]
    made_by = {
        **settings,
        "data": chosen.dataset.digest(),
        "images": folders(chosen.samples),
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
    return {
        row: Row.of([[each for each in outcomes if each.method == one.name] for one in some])
        for row, some in runs.items()
    }


def _about(answers: Grounder, adapter: str | None) -> dict[str, Any]:
    """What a row was made with, JSON-ready."""
    return {
        "prompt": prompt_of(answers),
        "adapter": None if adapter is None else {"from": adapter, "digest": identity(answers)},
        # One run of the model for all variants of heads: what one of them takes is nobody's.
        **({"seconds_per_image": None} if isinstance(answers, Variant) else {}),
    }


def _same_images(answered: Mapping[str, Row], chosen: Chosen) -> tuple[set[str], list[str]]:
    """The names of the images that all rows have, and those of the others, sorted.

    An image that was damaged since an earlier call is in the rows that were kept, and in no row that is new; one that a
    row cannot take is in the others.
    """
    there = [set(row.images) for row in answered.values()]
    common = set.intersection(*there)
    if not common:
        raise InputError(f"No image of {chosen.dataset.files[0]} could be asked about by every row.")
    return common, sorted(set.union(*there) - common)
