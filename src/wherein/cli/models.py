"""`wherein models`: which families of models are served, and what works on each."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list instead of a table.")] = False,
) -> None:
    """List the families of vision-language models that are served, what works on each, and the weights' licence."""
    from wherein.overview import overview

    rows = overview()
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    _print_table(rows)
    for line in _methods(rows):
        typer.echo(line)
    typer.echo("Seams, box formats, what is done to an image: --json, or docs/families.md.")


def _print_table(rows: list[dict[str, Any]]) -> None:
    """Names in one piece, and the licence in what is left of the line."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("family", "checkpoint", "licence"):
        table.add_column(name, overflow="fold", no_wrap=name != "licence")
    for row in rows:
        table.add_row(*(Text(row[name]) for name in ("family", "checkpoint", "licence")))
    Console(highlight=False).print(table)


def _methods(rows: list[dict[str, Any]]) -> list[str]:
    """Which methods work everywhere, and where each of the others does."""
    names = list(dict.fromkeys(name for row in rows for name in row["methods"]))
    where = {name: [row["family"] for row in rows if name in row["methods"]] for name in names}
    everywhere = [name for name in names if len(where[name]) == len(rows)]
    others = [f"{name}, on {', '.join(where[name])}" for name in names if name not in everywhere]
    return [f"Methods, on every family: {', '.join(everywhere)}.", *(f"Further: {other}." for other in others)]
