"""The tables of PIN's paper: what the untouched model answers, trained inserts beside each other, worked examples."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from wherein import methods
from wherein.errors import AdapterError, InputError
from wherein.evaluation import papers
from wherein.evaluation.parts import BUILT_IN, Part, Table
from wherein.evaluation.protocols import Grounder
from wherein.methods.base import REGISTRY
from wherein.methods.in_context import DRAWN, InContext, Random, composites
from wherein.methods.insert import Inserted, built_in
from wherein.vlm.base import FrozenVLM

RUNS = 10  # of every row that draws at random, as in the paper


def pin_table(number: int, vlm: FrozenVLM, adapters: Path | None, seed: int) -> Table:
    """Table 1, 2 or 3 of PIN's paper, with the constant box and, of the built-in model's own, what else finds boxes.

    `adapters`: a folder with one of each trained row's, named as the row; None for those in the package.

    Raises:
        InputError: there is no such table.
    """
    if number not in _PIN:
        raise InputError(f"There is no table {number} of PIN: choose {', '.join(map(str, _PIN))}.")
    title, published, rows, figures, besides = _PIN[number]
    parts = tuple(_part(row, vlm, adapters, seed) for row in rows)
    return Table(f"PIN, table {number} ({title})", parts, published, figures, besides)


_SIZES = ("miou", "miou_m", "miou_l")
_PIN: dict[int, tuple[str, papers.Published, tuple[str, ...], tuple[str, ...], papers.Published]] = {
    1: (
        "published with OpenFlamingo-3B",
        papers.PIN_1,
        ("centre", *papers.PIN_1, "heads", "cam"),
        _SIZES,
        papers.PIN_1_BESIDES,
    ),
    2: (
        "published with BLIP-2 OPT-2.7B",
        papers.PIN_2,
        ("centre", "text", *papers.PIN_2),
        _SIZES,
        papers.PIN_2_BESIDES,
    ),
    3: (
        "published with OpenFlamingo-3B, on RefCOCO testA",
        papers.PIN_3,
        ("centre", *papers.PIN_3),
        ("p@0.3", "p@0.5", "miou"),
        {},
    ),
}


PIN_ROWS = {number: rows for number, (_, _, rows, *_) in _PIN.items()}
"""The rows of each of PIN's tables."""


def _part(row: str, vlm: FrozenVLM, adapters: Path | None, seed: int) -> Part:
    kind, _, shots = row.partition(" ")

    def make() -> Sequence[Sequence[Grounder]]:
        """Every run of the one row."""
        return [list(_runs(kind, int(shots or 0), vlm, adapters, seed))]

    source = _source(kind, adapters)
    return Part((row,), make, {row: source} if source else {})


def _runs(kind: str, shots: int, vlm: FrozenVLM, adapters: Path | None, seed: int) -> Iterator[Grounder]:
    """Every run of a row."""
    if kind == "in_context":
        vlm.check_interleaves()
        yield from (InContext(vlm, composites(shots, vlm.size[0], seed + run)) for run in range(RUNS))
    elif kind == "random":
        yield from (Random(vlm, composites(DRAWN, vlm.size[0], seed + run), seed + run) for run in range(RUNS))
    else:
        yield methods.create(_method(kind), vlm, _adapter(kind, vlm, adapters))


def _adapter(row: str, vlm: FrozenVLM, adapters: Path | None) -> Path | None:
    """The row's adapter; None for what is in the package, if the row is not trained or its adapter ships."""
    place, method = _place(row, adapters), _method(row)
    kind = REGISTRY[method]
    if place or not issubclass(kind, Inserted) or (method == row and built_in(method, vlm.name)):
        return place
    kind.check_fits(vlm)
    out = (adapters or Path("trained")) / row
    command = shlex.join(["wherein", "train", method, "--model", vlm.name, "--out", str(out)])
    more = "" if method == row else ", on composites of wherein compose --preset referral"
    same = "with the composites, --images and --steps of the rows that it is compared with"
    shipped = "; recipes/reproduce_pin/run.sh has those of the package" if built_in("pin", vlm.name) else ""
    raise AdapterError(
        f"No adapter {out}: run {command}{more} ({same}{shipped}), and name its folder with --adapters {out.parent}."
    )


def _source(row: str, adapters: Path | None) -> str:
    """Where the adapter of a row comes from; nothing of a row that loads none."""
    place = _place(row, adapters)
    if place or not REGISTRY[_method(row)].takes_adapter:
        return str(place or "")
    return BUILT_IN if adapters is None else f"{BUILT_IN}, as {adapters} holds no {row}"


def _place(row: str, adapters: Path | None) -> Path | None:
    places = [] if adapters is None else [adapters / row, adapters / f"{row}.json"]
    return next((place for place in places if place.exists()), None)


def _method(row: str) -> str:
    return row.partition("_referral")[0]
