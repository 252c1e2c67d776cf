"""The rows of the papers' tables, in parts that are run one after another: who answers in each, made when needed."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from wherein import methods
from wherein.errors import AdapterError, InputError
from wherein.evaluation import ablations, papers
from wherein.evaluation.protocols import Grounder
from wherein.methods.base import REGISTRY
from wherein.methods.heads.method import Heads, known
from wherein.methods.in_context import DRAWN, InContext, Random, composites
from wherein.methods.insert import Inserted, built_in
from wherein.methods.text import Text
from wherein.segment import Refined, Segmenter
from wherein.vlm.base import FrozenVLM

RUNS = 10  # of every row that draws at random, as in PIN's paper
BUILT_IN = "built in"


@dataclass(frozen=True)
class Part:
    """Rows that are run together: their names, and who answers in each, once or in several runs.

    `make` raises InputError or AdapterError where the model cannot have the row, or has no adapter for it. `adapters`
    says where those of rows that load one come from.
    """

    rows: tuple[str, ...]
    make: Callable[[], Sequence[Sequence[Grounder]]]
    adapters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table of a paper: its title, its parts, the published values, and the figures it prints.

    The first of the figures, miou, p@... or ciou, is what the table is about: intervals, paired tests and the plot are
    of it. `besides`: what the paper prints of rows that are not run.
    """

    title: str
    parts: tuple[Part, ...]
    published: papers.Published
    figures: tuple[str, ...]
    besides: papers.Published = field(default_factory=dict)

    @property
    def rows(self) -> list[str]:
        """The names of all rows."""
        return [row for part in self.parts for row in part.rows]


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


def heads_table(name: str, vlm: FrozenVLM, adapter: str | None, segmenter: Segmenter | None = None) -> Table:
    """A table of the heads' paper, with the constant box: one of its main tables, or of its ablations.

    `adapter`: a file of heads; None for those known of the model. `segmenter`: behind the heads in a row of its own, in
    the main tables.

    Raises:
        InputError: there is no such table, or what it needs is not known.
    """
    if name not in HEADS_TABLES:
        raise InputError(f"There is no table {name!r} of the heads: choose {', '.join(HEADS_TABLES)}.")
    heads, facts = known(vlm, adapter)
    source = adapter or BUILT_IN
    if name in papers.HEADS_MAIN:
        return _main_table(name, Heads(vlm, config=heads), source, segmenter)
    check_segmenter(name, segmenter)

    def make() -> Sequence[Sequence[Grounder]]:
        """The constant box, and every variant: they share one run of the model on an image."""
        return [[methods.create("centre", vlm)], *([variant] for variant in variants)]

    variants = ablations.table(name, vlm, heads, facts)
    names = [variant.name for variant in variants]
    part = Part(("centre", *names), make, dict.fromkeys(names, source))
    published = papers.HEADS[name]
    title = f"Localisation heads: {name}" + (f" (published with {papers.BEST}, on RefCOCO val)" if published else "")
    return Table(title, (part,), published, ("p@0.5", "ciou", "miou"))


HEADS_TABLES = (*papers.HEADS_MAIN, *ablations.TABLES)
"""The names of the tables of the heads' paper, its main ones first."""


def check_segmenter(name: str, segmenter: object) -> None:
    """Raise InputError if a segmenter is given for a table of the heads that has no row for it."""
    if segmenter is not None and name not in papers.HEADS_MAIN:
        raise InputError(
            f"The table {name!r} has no row with a segmenter: leave --segmenter out, or choose "
            f"{', '.join(papers.HEADS_MAIN)}."
        )


def _main_table(name: str, heads: Heads, source: str, segmenter: Segmenter | None) -> Table:
    """The constant box, what the model answers in words, its heads, and its heads with a segmenter behind them."""
    raw = _part("centre", heads.vlm, None, 0), _part("text", heads.vlm, None, 0), _of(heads, source)
    refined = [] if segmenter is None else [Refined(heads, segmenter)]
    printed = papers.HEADS_MAIN[name]
    model = papers.called(heads.vlm.name, printed)
    if name == "rec":
        figures, theirs, beside = ("p@0.5", "miou", "ciou"), "heads", [heads.name]
    else:  # the paper's masks are SAM's: where there is no such row, its values stand below the table
        figures, theirs, beside = ("ciou", "p@0.5", "miou"), "heads+sam", [one.name for one in refined]
    return Table(
        f"Localisation heads: {name} (published with {model})",
        (*raw, *(_of(one, source) for one in refined)),
        {row: printed[model] for row in beside},
        figures,
        {f"{theirs} of {other}": sets for other, sets in printed.items() if not (beside and other == model)},
    )


def _of(answers: Grounder, source: str) -> Part:
    """The row of one answerer, whose adapter is from `source`."""
    return Part((answers.name,), lambda: [[answers]], {answers.name: source})


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
    if place or not issubclass(REGISTRY[method], Inserted) or (method == row and built_in(method, vlm.name)):
        return place
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


def prompt_of(answers: Any) -> str | None:
    """The text behind the image that a row asks its model with; None of a row that does not ask in words."""
    method = getattr(answers, "method", answers)
    if isinstance(method, Heads):
        return method.config.prompt
    if isinstance(method, Text) and method.vlm.native_prompt:
        return method.vlm.native_prompt
    asks = isinstance(method, (Inserted, Text, InContext))
    return method.vlm.shared_prompt + method.vlm.locate_prompt if asks else None


def identity(answers: Any) -> str:
    """What tells two answerers of one name apart: settings and weights, of a method that has some."""
    digest = sha256()
    method = getattr(answers, "method", answers)
    digest.update(str(getattr(method, "config", "")).encode())
    insert = getattr(method, "insert", None)
    for name, tensor in sorted({} if insert is None else insert.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    digest.update(str(getattr(answers, "facts", "")).encode())
    if isinstance(answers, Refined):
        digest.update(answers.segmenter.name.encode())
    if isinstance(method, Random):
        digest.update(method.boxes.tobytes() + str(method.seed).encode())
    for example in getattr(method, "examples", ()):
        digest.update(example.image.tobytes() + example.phrase.encode())
    return digest.hexdigest()[:16]
