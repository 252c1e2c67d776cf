"""What a job made, refused and kept: report.json for machines, report.md for people, a contact sheet for each name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wherein import pictures
from wherein.errors import InputError
from wherein.journal import write_text
from wherein.synth.choosing import Chosen, Rule, choose, write_index
from wherein.synth.contact_sheet import sheet
from wherein.synth.holdout import category_of
from wherein.synth.making import Outcome
from wherein.synth.names import folder_of


def finish(
    outcomes: Sequence[Outcome],
    out: Path,
    rule: Rule,
    settings: Mapping[str, Any],
    left_out: Sequence[tuple[str, str]] = (),
    complaints: Sequence[str] = (),
) -> dict[str, Any]:
    """Choose among the outcomes and write index.json, sheets, report.json and report.md; returns the report.

    `left_out` are the names that nothing was made of, each with why; `complaints` are sentences about what was unusable
    beside the outcomes.

    Raises:
        InputError: something cannot be written.
    """
    chosen = choose(outcomes, rule)
    sheets = out / "sheets"
    try:
        sheets.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot make the folder {sheets}: {error.strerror or error}.") from error
    for one in chosen:
        pictures.write(sheets / f"{folder_of(one.name)}.png", sheet(one, out))
    in_bank = write_index(chosen, out)
    report = {
        "schema": 1,
        "settings": {**settings, **vars(rule)},
        "pictures": len(outcomes),
        "cutouts": in_bank,
        "names": [_row(one) for one in chosen],
        "left_out": [{"name": name, "why": why} for name, why in left_out],
        "unusable": [*complaints, *(outcome.complaint for outcome in outcomes if outcome.complaint)],
    }
    write_text(out / "report.json", json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(out / "report.md", to_markdown(report))
    return report


def to_markdown(report: Mapping[str, Any]) -> str:
    """The report as tables."""
    names = report["names"]
    dropped = sum(one["dropped"] for one in names)
    lines = [
        f"# Cut-outs: {report['cutouts']}, names: {len(names) - dropped}, pictures: {report['pictures']}",
        "",
        *_table(["setting", "value"], [[key, str(value)] for key, value in report["settings"].items()]),
        "",
        *_table(
            ["name", "pictures", "kept", "CLIP bar", "best", "refused", "whose mask", ""],
            [
                [
                    one["name"],
                    str(one["pictures"]),
                    str(one["kept"]),
                    _number(one["bar"]),
                    _number(one["best"]),
                    _counts(one["refused"]),
                    _counts(one["segmenters"]),
                    ", ".join(_notes(one)),
                ]
                for one in names
            ],
        ),
    ]
    if report["left_out"]:
        lines += ["", "## Names left out", "", *(f"- {one['name']}: {one['why']}" for one in report["left_out"])]
    if report["unusable"]:
        lines += ["", "## Unusable", "", *(f"- {' '.join(text.split())}" for text in report["unusable"])]
    return "\n".join(lines) + "\n"


def _row(chosen: Chosen) -> dict[str, Any]:
    scores = [o.score for o in [*chosen.kept, *(o for o, _ in chosen.refused)] if o.score is not None]
    return {
        "name": chosen.name,
        "pictures": len(chosen.kept) + len(chosen.refused),
        "kept": len(chosen.kept),
        "dropped": chosen.dropped,
        "bar": chosen.bar,
        "best": max(scores, default=None),
        "refused": dict(Counter(why for _, why in chosen.refused)),
        "segmenters": dict(Counter(str(outcome.segmenter) for outcome in chosen.kept)),
        "held_out": category_of(chosen.name),
    }


def _notes(row: Mapping[str, Any]) -> list[str]:
    notes = ["dropped: too few"] if row["dropped"] else []
    return notes + ([f"held out of PIN's training ({row['held_out']})"] if row["held_out"] else [])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
