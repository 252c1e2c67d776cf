"""A row of a paper's table: what was answered in every run of it, and the figures of that.

A row that is run several times counts with the mean of its runs; its interval is over images, its deviation over runs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wherein.errors import InputError
from wherein.evaluation import bootstrap, metrics
from wherein.evaluation.records import Outcome

FIGURES = ("miou", "miou_m", "miou_l", "miou_best", "p@0.3", "p@0.5", "ciou")
"""What is worked out of every row; `ciou` of data with masks only."""


@dataclass(frozen=True, eq=False)
class Row:
    """All answers of a row: of R runs and N pairs of a labelled box and an answer."""

    images: list[str]
    phrases: list[str]
    iou: NDArray[np.float64]  # [R, N]
    area: NDArray[np.float64]  # [N], at model scale
    invalid: NDArray[np.float64]  # [R, N]
    overlaps: NDArray[np.float64]  # [R, 2, N]: intersections and unions in pixels, NaN without a true mask
    seconds: float  # an image and run

    @classmethod
    def of(cls, runs: Sequence[Sequence[Outcome]]) -> Row:
        """The answers of every run, which are on the same images in the same order."""
        pairs = [(outcome, record) for outcome in runs[0] for record in outcome.records]
        records = [[record for outcome in outcomes for record in outcome.records] for outcomes in runs]
        sides = np.array([(outcome.width, outcome.height) for outcome, _ in pairs], np.float64).reshape(-1, 2)
        truths = np.array([record.truth for _, record in pairs], np.float64).reshape(-1, 4)
        overlaps = [[record.overlap or (math.nan, math.nan) for record in each] for each in records]
        return cls(
            images=[outcome.image for outcome, _ in pairs],
            phrases=[record.phrase for _, record in pairs],
            iou=np.array([[record.iou for record in each] for each in records]),
            area=metrics.model_area(truths, *sides.T),
            invalid=np.array([[record.prediction is None for record in each] for each in records], np.float64),
            overlaps=np.array(overlaps, np.float64).transpose(0, 2, 1),
            seconds=float(np.mean([outcome.seconds for outcomes in runs for outcome in outcomes])),
        )

    def only(self, images: Collection[str]) -> Row:
        """The same of some of its images; the time stays that of all."""
        kept = np.array([image in images for image in self.images], np.bool_)
        return replace(
            self,
            images=list(compress(self.images, kept)),
            phrases=list(compress(self.phrases, kept)),
            iou=self.iou[:, kept],
            area=self.area[kept],
            invalid=self.invalid[:, kept],
            overlaps=self.overlaps[:, :, kept],
        )

    def draws(self, figure: str, seed: int) -> NDArray[np.float64]:
        """A figure, miou, p@... or ciou, on resampled images, float64[RESAMPLES]: of each draw the mean over the runs.

        Raises:
            InputError: it is the cIoU of data without a true mask.
        """
        if figure == "ciou":
            return self._ciou_draws(seed)
        each = self.iou if figure == "miou" else self.iou >= float(figure.removeprefix("p@"))
        sums, counts = bootstrap.resampled([each.mean(axis=0), np.ones(len(self.area))], self.images, seed)
        means: NDArray[np.float64] = sums / counts
        return means

    def _ciou_draws(self, seed: int) -> NDArray[np.float64]:
        """All intersections over all unions, on resampled images that have true masks: no draw is without one."""
        masked = self._masked()
        if not masked.any():
            raise InputError("No image that every row was asked about has a true mask, so there is no cIoU to compare.")
        runs = len(self.overlaps)
        sums = bootstrap.resampled(
            list(self.overlaps[:, :, masked].reshape(2 * runs, -1)), list(compress(self.images, masked)), seed
        )
        above, below = sums.reshape(runs, 2, -1).transpose(1, 0, 2)
        ratios: NDArray[np.float64] = (above / np.maximum(below, 1)).mean(axis=0)
        return ratios

    def _masked(self) -> NDArray[np.bool_]:
        """bool[N]: pairs with a true mask, the same ones in every run."""
        masked: NDArray[np.bool_] = ~np.isnan(self.overlaps[0, 0])
        return masked

    def figures(self) -> dict[str, Any]:
        """The mean of each figure over the runs, None where there is nothing to average, and what else is printed."""
        runs = [self._of_one(iou, overlaps) for iou, overlaps in zip(self.iou, self.overlaps, strict=True)]
        known = [name for name in FIGURES if runs[0][name] is not None]
        return {
            **{name: float(np.mean([one[name] for one in runs])) if name in known else None for name in FIGURES},
            "deviation": {name: float(np.std([one[name] for one in runs], ddof=1)) for name in known}
            if len(runs) > 1
            else {},
            "runs": len(runs),
            "invalid": float(self.invalid.mean()),
            "seconds_per_image": self.seconds,
        }

    def _of_one(self, iou: NDArray[np.float64], overlaps: NDArray[np.float64]) -> dict[str, Any]:
        """The figures of one run."""
        return {
            "miou": metrics.mean(iou),
            "miou_m": metrics.mean(iou[metrics.medium(self.area)]),
            "miou_l": metrics.mean(iou[metrics.large(self.area)]),
            "miou_best": metrics.mean(metrics.best_of(iou, list(zip(self.images, self.phrases, strict=True)))),
            "p@0.3": metrics.precision(iou, 0.3),
            "p@0.5": metrics.precision(iou, 0.5),
            "ciou": metrics.cumulative_iou(*overlaps[:, self._masked()]),
        }
