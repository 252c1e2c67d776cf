"""A search for heads as a picture: where the attention sums bend, and what the best heads look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wherein import pictures
from wherein.methods.heads.method import Heads
from wherein.methods.heads.selection import FIRST
from wherein.training.heads import Found
from wherein.training.pairs import Pairs
from wherein.vlm.base import FrozenVLM

IMAGES, HEADS = 4, 6  # rows and columns of the grid of maps
GREY, BLUE, RED = "#999999", "#0072B2", "#D55E00"


def save_plot(vlm: FrozenVLM, pairs: Pairs, found: Found, path: Path) -> Path:
    """Draw the sorted attention sums with tau and the chosen heads, and maps of the top heads for a few phrases."""
    from matplotlib.figure import Figure

    order = found.ranking.order[:HEADS]
    figure = Figure(figsize=(4 + 1.6 * (len(order) + 1), 1.8 * IMAGES), layout="constrained", dpi=110)
    sides: Any = figure.subfigures(1, 2, width_ratios=[4, 1.6 * (len(order) + 1)])
    _curve(sides[0].subplots(), found)
    axes = sides[1].subplots(min(IMAGES, pairs.images), len(order) + 1, squeeze=False)
    for i, row in enumerate(axes):
        _maps(row, vlm, pairs, i, found)
    for axis, (layer, head) in zip(axes[0][1:], order, strict=True):
        chosen = (layer, head) in found.config.heads
        axis.set_title(f"L{layer} H{head}", fontsize=9, color=RED if chosen else "black")
    pictures.write(path, pictures.of_figure(figure))
    return path


def _curve(axis: Any, found: Found) -> None:
    """Attention sums of all heads that count, ascending; tau, and where the chosen ones are."""
    sums = found.ranking.sums[FIRST:].ravel()
    order = np.argsort(sums, kind="stable")
    heads = found.ranking.sums.shape[1]
    axis.plot(sums[order], color=GREY)
    axis.axhline(found.facts["tau"], color=BLUE, linewidth=1, label=f"tau {found.facts['tau']:.3f}")
    places = [int(np.nonzero(order == (layer - FIRST) * heads + head)[0][0]) for layer, head in found.config.heads]
    axis.plot(places, sums[order][places], "o", color=RED, label="chosen")
    axis.set(xlabel="heads, sorted", ylabel="mean attention to the image", ylim=(0, None))
    axis.legend(loc="upper left", frameon=False)


def _maps(row: Any, vlm: FrozenVLM, pairs: Pairs, i: int, found: Found) -> None:
    """An image with its first phrase, and what each of the top heads looks at."""
    image = pairs.source(i)
    canvas, _, seen = Heads(vlm, config=found.config).look(image.image, [image.objects[0][0]], every_head=True)
    row[0].imshow(image.image, aspect="auto")
    row[0].set_ylabel(image.objects[0][0], fontsize=9)
    x0, y0, x1, y1 = image.objects[0][1]
    row[0].plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=RED, linewidth=1)
    for axis, (layer, head) in zip(row[1:], found.ranking.order, strict=False):
        axis.imshow(canvas.over_image(seen[0, layer, head]), cmap="magma", aspect="auto")
    for axis in row:
        axis.set(xticks=[], yticks=[])
