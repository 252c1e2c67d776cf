"""`wherein models`: which families of models are served, and what works on each."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list instead of a table.")] = False,
) -> None:
    """List the families of vision-language models that are served, what works on each, and what it costs to use."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from wherein.vlm.overview import overview

    rows = overview()
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown = ("family", "checkpoint", "methods", "native_boxes", "licence")
    for name in shown:
        table.add_column(name.replace("native_boxes", "writes boxes itself"), overflow="fold")
    for row in rows:
        cells = (", ".join(row[name]) if isinstance(row[name], list) else row[name] for name in shown)
        table.add_row(*(Text(cell) for cell in cells))
    Console(highlight=False).print(table)
    typer.echo("Seams, and what is done to an image: --json, or docs/families.md.")
