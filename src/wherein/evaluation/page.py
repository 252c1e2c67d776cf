"""A reproduced table as files: JSON with everything, CSV with a line for each row and data set, Markdown, a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wherein import pictures
from wherein.evaluation.report import write_json
from wherein.journal import write_text

LABELS = {
    "miou": "mIoU",
    "miou_m": "M",
    "miou_l": "L",
    "miou_best": "mIoU best",
    "p@0.3": "P@0.3 (>=)",
    "p@0.5": "P@0.5 (>=)",
    "ciou": "cIoU",
}
OURS, THEIRS = "#0072B2", "#999999"


def write(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write table.json, table.csv, table.md and table.png into a folder, each at once; returns their paths.

    Raises:
        InputError: a file cannot be written.
    """
    paths = [folder / f"table.{suffix}" for suffix in ("json", "csv", "md", "png")]
    write_json(dict(results), paths[0])
    write_text(paths[1], to_csv(results))
    write_text(paths[2], to_markdown(results))
    pictures.write(paths[3], _plot(results))
    return paths


def to_csv(results: Mapping[str, Any]) -> str:
    """One line for each row and data set, with a header."""
    stream = io.StringIO()
    fields = list(_lines(results))
    writer = csv.DictWriter(stream, list(fields[0]) if fields else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(fields)
    return stream.getvalue()


def to_markdown(results: Mapping[str, Any]) -> str:
    """A table for each data set, what was not run and why below it, and how it was made at the end."""
    parts = [f"# {results['title']}, on {results['model']}", ""]
    for found in results["data"]:
        parts += [*_section(results, found), ""]
    made = results["made"]
    facts = [f"{name}: {value}" for name, value in made.items() if name != "command"]
    return "\n".join([*parts, "Made by", "", f"    {made['command']}", "", "; ".join(facts) + ".", ""])


def _section(results: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """The table of one data set, and below it what does not go into it."""
    figures, baseline = results["figures"], results["baseline"]
    printed = {figure for row in found["rows"].values() for figure in row["published"]}
    expected = "" if found["expected_images"] is None else f" (PIN's paper has {found['expected_images']:,})"
    yield f"**{_name(found)}, {found['images']:,} images{expected}, n = {found['n']:,}**"
    yield ""
    header = ["row"]
    for figure in figures:
        header += [LABELS[figure], *(["95 %"] if figure == figures[0] else [])]
        header += [f"{LABELS[figure]} published (difference)"] if figure in printed else []
    header += [LABELS["miou_best"], f"{LABELS[figures[0]]} - {baseline} (95 %, p)", "invalid", "s/image"]
    yield _cells(header)
    yield _cells(["---"] * len(header))
    for name, row in found["rows"].items():
        cells = [name]
        for figure in figures:
            cells += [_figure(row, figure), *(["{:.3f} - {:.3f}".format(*row["ci95"])] if figure == figures[0] else [])]
            cells += [_published(row, figure)] if figure in printed else []
        cells += [_figure(row, "miou_best"), _compared(row, baseline), _number(row["invalid"], 3)]
        yield _cells([*cells, _number(row["seconds_per_image"], 2)])
    if notes := list(_notes(found)):
        yield from ("", *notes)


def _notes(found: Mapping[str, Any]) -> Iterator[str]:
    """What the published figures are of, what was left out, which adapters were used, and what else is published."""
    if any(row["published"] for row in found["rows"].values()) and not found["as_published"]:
        yield "- the published figures are of other images, so the differences say little."
    for name, why in found["not run"].items():
        yield f"- not run: {name}. {why}"
    if left := found["left out"]:
        shown = ", ".join(left[:5]) + (" ..." if len(left) > 5 else "")
        yield f"- left out of every row, as not every row could be asked about them: {len(left):,} images ({shown})."
    sources: dict[str, list[str]] = {}
    for name, row in found["rows"].items():
        if used := row["adapter"]:
            sources.setdefault(used["from"], []).append(f"{name} ({used['digest']})")
    yield from (f"- adapters, {source}: {', '.join(names)}." for source, names in sources.items())
    for name, figures in found["published besides"].items():
        values = ", ".join(f"{LABELS[figure]} {value:g}" for figure, value in figures.items())
        yield f"- also published: {name}, {values}."


def _name(found: Mapping[str, Any]) -> str:
    """A data set and the part of it that was asked about."""
    name, split = found["data"], found["split"]
    return name if split is None or split in name else f"{name} {split}"


def _lines(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The lines of the CSV."""
    baseline = results["baseline"]
    for found in results["data"]:
        for name, row in found["rows"].items():
            compared = row.get(f"minus {baseline}") or {"difference": None, "ci95": [None, None], "p": None}
            line = {"data": found["data"], "split": found["split"], "row": name, "images": found["images"]}
            line |= {"expected images": found["expected_images"], "n": found["n"]}
            for figure in LABELS:
                published, ours = row["published"].get(figure), row[figure]
                line |= {
                    figure: ours,
                    f"{figure} deviation": row["deviation"].get(figure),
                    f"{figure} published": published,
                    f"{figure} difference": None if published is None or ours is None else ours - published,
                }
            line |= {"interval and test of": results["figures"][0]}
            line |= {"ci95 low": row["ci95"][0], "ci95 high": row["ci95"][1], "invalid": row["invalid"]}
            line |= {"runs": row["runs"], "seconds per image": row["seconds_per_image"]}
            line |= {f"minus {baseline}": compared["difference"], f"minus {baseline} p": compared["p"]}
            line |= {f"minus {baseline} low": compared["ci95"][0], f"minus {baseline} high": compared["ci95"][1]}
            used = row["adapter"] or {"from": None, "digest": None}
            line |= {"adapter": used["from"], "adapter digest": used["digest"]}
            yield line


def _plot(results: Mapping[str, Any]) -> Any:
    """uint8[H, W, 3]: the table's figure with its interval for every row, and the published value, of each data set."""
    from matplotlib.figure import Figure

    data: Sequence[Mapping[str, Any]] = results["data"]
    shown = results["figures"][0]
    tallest = max(len(found["rows"]) for found in data)
    figure = Figure(figsize=(1.5 + 4.2 * len(data), 1.2 + 0.32 * max(tallest, 3)), layout="constrained", dpi=110)
    axes = figure.subplots(1, len(data), squeeze=False)[0]
    for axis, found in zip(axes, data, strict=True):
        names, rows = list(found["rows"]), list(found["rows"].values())
        places, means = np.arange(len(rows)), np.array([row[shown] for row in rows])
        ends = np.array([row["ci95"] for row in rows]).reshape(-1, 2)
        axis.barh(places, means, color=OURS, height=0.6, label="ours, 95 %")
        axis.errorbar(means, places, xerr=np.abs(ends.T - means), fmt="none", ecolor="black", elinewidth=1)
        known = [(place, row["published"][shown]) for place, row in enumerate(rows) if shown in row["published"]]
        if known:
            there, values = zip(*known, strict=True)
            axis.plot(values, there, "D", color=THEIRS, label="published")
        axis.set(yticks=places, yticklabels=names, title=f"{_name(found)}, n = {found['n']}", xlabel=LABELS[shown])
        axis.invert_yaxis()
        axis.grid(axis="x", linewidth=0.4)
        axis.set_axisbelow(True)
    figure.suptitle(results["title"], fontsize=9, wrap=True)  # it says with which model the published values are
    figure.legend(*_legend(axes), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return pictures.of_figure(figure)


def _legend(axes: Sequence[Any]) -> tuple[Sequence[Any], Sequence[str]]:
    """The handles and labels of all axes, each label once."""
    found = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    return list(found.values()), list(found)


def _published(row: Mapping[str, Any], figure: str) -> str:
    """The published value, and how much more ours is."""
    if figure not in row["published"]:
        return "-"
    value, ours = row["published"][figure], row[figure]
    return f"{value:g}" + ("" if ours is None else f" ({ours - value:+.3f})")


def _compared(row: Mapping[str, Any], baseline: str) -> str:
    """The paired test; none of the baseline itself."""
    compared = row.get(f"minus {baseline}")
    if compared is None:
        return "-"
    low, high = compared["ci95"]
    return f"{compared['difference']:+.3f} ({low:+.3f} to {high:+.3f}, {compared['p']:.2g})"


def _figure(row: Mapping[str, Any], name: str) -> str:
    deviation = row["deviation"].get(name)
    return _number(row[name], 3) + ("" if deviation is None else f" ± {deviation:.3f}")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
