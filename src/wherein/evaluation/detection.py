"""Average precision by COCO's rules, counted by a maintained evaluator (faster-coco-eval)."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from wherein.errors import InputError
from wherein.evaluation.bootstrap import numbered
from wherein.evaluation.records import Corners, Outcome

FIGURES = {"ap": 0, "ap50": 1, "ap75": 2, "ap_s": 3, "ap_m": 4, "ap_l": 5, "ar_1": 6, "ar_100": 8}
"""What is kept of COCO's twelve figures, and its place among them."""


class Found(NamedTuple):
    """A box of original pixels, xyxy, for a name in an image; the score of a true one says nothing."""

    image: str
    name: str
    box: Corners
    score: float = 1.0


def average_precision(found: Sequence[Found], truths: Sequence[Found]) -> dict[str, float | None]:
    """COCO's average precision of boxes against all true ones, name by name; None where there is nothing to average.

    `ap` is the mean over the IoU thresholds 0.50, 0.55 ... 0.95 (from the threshold on, >=) and over names, `ap50` and
    `ap75` of one threshold; `ap_s`, `ap_m`, `ap_l` of true boxes below 32^2, up to 96^2 and above, original pixels;
    `ar_1` and `ar_100` the recall with so many boxes for each image and name. Scores of different methods need not be
    comparable, but those of one method for different images are compared.

    >>> cup, spoon = Found("a.jpg", "cup", (0, 0, 10, 10)), Found("a.jpg", "spoon", (20, 0, 30, 10))
    >>> average_precision([cup], [cup, spoon])["ap"]
    0.5

    Raises:
        InputError: there is no true box, or faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise InputError("Average precision needs faster-coco-eval: run pip install 'wherein[eval]'.") from error
    if not truths:
        raise InputError("There is no true box, so there is no average precision.")
    everything = [*truths, *found]
    images, names = numbered([one.image for one in everything]), numbered([one.name for one in everything])
    annotations = [
        _annotation(key, one, int(image), int(name))
        for key, (one, image, name) in enumerate(zip(everything, images, names, strict=True), start=1)
    ]
    data = {
        "images": [{"id": number} for number in range(int(images.max()) + 1)],
        "categories": [{"id": number, "name": str(number)} for number in range(int(names.max()) + 1)],
        "annotations": annotations[: len(truths)],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
        true = COCO(data)
        evaluator = COCOeval_faster(true, true.loadRes(annotations[len(truths) :]), "bbox")
        evaluator.run()
    values = [float(value) for value in evaluator.stats]
    return {name: values[place] if values[place] >= 0 else None for name, place in FIGURES.items()}


def of_outcomes(outcomes: Sequence[Outcome]) -> tuple[list[Found], list[Found]]:
    """(predicted, true) boxes of one method's outcomes; a phrase that was asked once of an image has one prediction.

    The recall of a method that gives one box a phrase is bounded by the images that show a phrase several times.
    """
    truths = [Found(outcome.image, record.phrase, record.truth) for outcome in outcomes for record in outcome.records]
    answers = [
        Found(outcome.image, record.phrase, record.prediction, record.score or 0.0)
        for outcome in outcomes
        for record in {record.phrase: record for record in outcome.records}.values()
        if record.prediction is not None
    ]
    return answers, truths


def _annotation(key: int, one: Found, image: int, name: int) -> dict[str, Any]:
    x0, y0, x1, y1 = one.box
    width, height = x1 - x0, y1 - y0
    place = {"id": key, "image_id": image, "category_id": name, "bbox": [x0, y0, width, height]}
    return {**place, "area": width * height, "iscrowd": 0, "score": one.score}
