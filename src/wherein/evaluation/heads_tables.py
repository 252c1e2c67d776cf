"""The tables of the localisation heads' paper: boxes and masks of phrases, and heads under other choices."""

from __future__ import annotations

from collections.abc import Sequence

from wherein import methods
from wherein.errors import InputError
from wherein.evaluation import ablations, papers
from wherein.evaluation.parts import BUILT_IN, Part, Table
from wherein.evaluation.protocols import Grounder
from wherein.methods.heads.method import Heads, known
from wherein.segment import Refined, Segmenter
from wherein.vlm.base import FrozenVLM


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


OF_MASKS = ("res", "reasonseg")
"""The main tables that are about masks; the other one is about boxes."""
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
    vlm = heads.vlm
    raw = _of(methods.create("centre", vlm)), _of(methods.create("text", vlm)), _of(heads, source)
    refined = [] if segmenter is None else [Refined(heads, segmenter)]
    printed = papers.HEADS_MAIN[name]
    model = papers.called(vlm.name, printed)
    if name in OF_MASKS:  # the paper's are SAM's: where there is no such row, its values stand below the table
        figures, theirs, beside = ("ciou", "p@0.5", "miou"), "heads+sam", [one.name for one in refined]
    else:
        figures, theirs, beside = ("p@0.5", "miou", "ciou"), "heads", [heads.name]
    return Table(
        f"Localisation heads: {name} (published with {model})",
        (*raw, *(_of(one, source) for one in refined)),
        {row: printed[model] for row in beside},
        figures,
        {f"{theirs} of {other}": sets for other, sets in printed.items() if not (beside and other == model)},
    )


def _of(answers: Grounder, source: str | None = None) -> Part:
    """The row of one answerer, whose adapter, if it has one, is from `source`."""
    return Part((answers.name,), lambda: [[answers]], {} if source is None else {answers.name: source})
