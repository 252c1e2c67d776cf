"""Which cut-outs become part of the bank: X-Paste's adaptive bar on the CLIP score, and classes that are too poor.

A class whose best picture is poor still keeps its best ones: its bar is min(min_clip, best score - tolerance).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wherein.journal import write_text
from wherein.synth.making import Outcome
from wherein.synth.objects import INDEX


@dataclass(frozen=True)
class Rule:
    """When a cut-out is kept: min_clip, tolerance: the bar on CLIP scores; at_least: cut-outs that a name must have
    kept, or it is dropped (PIN drops names with 20 or fewer)."""

    min_clip: float = 21.0
    tolerance: float = 1.0
    at_least: int = 21


@dataclass(frozen=True)
class Chosen:
    """What is kept of a name.

    Attributes:
        bar: lowest CLIP score that is kept; None where nothing was scored.
        kept: best first; they are in the bank unless `dropped`, which says that they are too few.
        refused: the others, each with why, best first as well.
    """

    name: str
    bar: float | None
    kept: list[Outcome]
    refused: list[tuple[Outcome, str]]
    dropped: bool


def choose(outcomes: Sequence[Outcome], rule: Rule) -> list[Chosen]:
    """The outcomes by name, in the order of the names. A cut-out without a score is kept: nothing speaks against it."""
    names = dict.fromkeys(outcome.item.name for outcome in outcomes)
    return [_chosen(name, [outcome for outcome in outcomes if outcome.item.name == name], rule) for name in names]


def _chosen(name: str, outcomes: Sequence[Outcome], rule: Rule) -> Chosen:
    scores = [outcome.score for outcome in outcomes if outcome.score is not None]
    bar = min(rule.min_clip, max(scores) - rule.tolerance) if scores else None
    kept, refused = [], []
    for outcome in outcomes:
        if outcome.why is not None:
            refused.append((outcome, outcome.why))
        elif bar is not None and outcome.score is not None and outcome.score < bar:
            refused.append((outcome, "CLIP score"))
        else:
            kept.append(outcome)
    kept.sort(key=_rank)
    refused.sort(key=lambda one: _rank(one[0]))
    return Chosen(name, bar, kept, refused, len(kept) < rule.at_least)


def _rank(outcome: Outcome) -> float:
    """Lower is better; without a score last."""
    return float("inf") if outcome.score is None else -outcome.score


def write_index(chosen: Sequence[Chosen], out: Path) -> int:
    """Write index.json, which `ObjectBank.from_folder` reads, with seed, score and segmenter beside what it needs.

    Returns how many cut-outs it lists. Raises InputError: it cannot be written.
    """
    rows = [
        {
            "file": outcome.file,
            "name": outcome.item.name,
            "source": outcome.item.source,
            "licence": outcome.item.licence,
            "photographic": True,
            "seed": outcome.item.seed,
            "segmenter": outcome.segmenter,
            "area": outcome.area,
            "clip": outcome.score,
        }
        for one in chosen
        if not one.dropped
        for outcome in one.kept
    ]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    write_text(out / INDEX, f"[\n{lines}\n]\n")
    return len(rows)
