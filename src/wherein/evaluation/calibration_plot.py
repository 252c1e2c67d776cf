"""A reliability table as a picture: how often answers of a score are right, and how many have it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from wherein import pictures
from wherein.calibration import PROBABILITIES, Bin, expected_calibration_error
from wherein.errors import InputError
from wherein.evaluation.records import Outcome
from wherein.evaluation.report import reliability

GREY, BLUE = "#999999", "#0072B2"


def save_plot(table: Sequence[Bin], path: Path, title: str = "") -> Path:
    """Draw the rows of `calibration.reliability` against the diagonal, a point the larger the more answers it has.

    Raises:
        InputError: matplotlib is not there, or the picture cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("A reliability plot needs matplotlib: run pip install 'wherein[eval]'.") from error

    figure = Figure(figsize=(4.5, 4.5), layout="constrained", dpi=110)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="as it should be")
    most = max((row.n for row in table), default=1)
    places, shares = [row.confidence for row in table], [row.accuracy for row in table]
    axis.plot(places, shares, color=BLUE, linewidth=1)
    axis.scatter(places, shares, [120 * row.n / most for row in table], color=BLUE, label="answers")
    distance = expected_calibration_error(table)
    axis.set(xlabel="score", ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1), title=title)
    axis.legend(loc="upper left", frameon=False, title=None if distance is None else f"ECE {distance:.3f}")
    pictures.write(path, pictures.of_figure(figure))
    return path


def save_reliability(outcomes: Sequence[Outcome], score_kinds: Mapping[str, str], folder: Path) -> list[Path]:
    """Write `<method>-calibration.png` into a folder for each method whose score is a probability; returns their paths.

    Raises InputError as `save_plot` does.
    """
    told = [name for name, kind in score_kinds.items() if kind in PROBABILITIES]
    return [save_plot(reliability(outcomes, name), folder / f"{name}-calibration.png", name) for name in told]
