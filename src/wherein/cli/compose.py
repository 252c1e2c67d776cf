"""`wherein compose`: composites with exact boxes, as shards for training or as one picture to look at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wherein import pictures
from wherein.errors import InputError

if TYPE_CHECKING:
    from wherein.synth.plan import Plan

SHOWN = 12  # composites on a preview


def compose(
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder for the shards; a killed run goes on in it.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Composites to make.")] = None,
    objects: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Cut-outs of your own, one sub-folder a name, not those of the package."),
    ] = None,
    backgrounds: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Backgrounds of your own, not those of the package.")
    ] = None,
    side: Annotated[int, typer.Option(min=16, max=4096, help="Width and height of a composite, pixels.")] = 224,
    preset: Annotated[
        str,
        typer.Option(
            help="paper; grid, as in PIN's released code; augmented, as the built-in model was trained; referral, with "
            'pairs and phrases such as "left apple".'
        ),
    ] = "paper",
    soft: Annotated[
        float | None,
        typer.Option(
            min=0, max=32, help="Edges fade inwards, over so many pixels at most.", show_default="the preset's, 0"
        ),
    ] = None,
    jitter: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Largest change of an object's brightness, contrast and saturation, as a share.",
            show_default="the preset's: augmented 0.3, others 0",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="A composite follows from it and its index.")] = 0,
    workers: Annotated[
        int, typer.Option(min=1, help="Shards written at the same time.", show_default="all cores")
    ] = os.cpu_count() or 1,
    engine: Annotated[str, typer.Option(help="local, this machine; ray, a cluster.")] = "local",
    image: Annotated[str, typer.Option(help="jpg, or webp: half the bytes, more work.")] = "jpg",
    per_shard: Annotated[int, typer.Option(min=1, help="Composites in a shard.")] = 1000,
    keep_held_out: Annotated[
        bool,
        typer.Option("--keep-held-out", help="Also objects of COCO's and VOC's categories: you evaluate elsewhere."),
    ] = False,
    preview: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"Draw the first {SHOWN} composites on this PNG or JPEG file.")
    ] = None,
) -> None:
    """Make composites: objects pasted on backgrounds, so that every box is known."""
    from wherein.synth.plan import Plan
    from wherein.synth.preview import preview as draw

    if out is None and preview is None:
        raise InputError("Give --out DIR for shards, --preview FILE for a picture of some composites, or both.")
    if out is not None and count is None:
        raise InputError("Say how many composites to make: --count N.")
    if engine not in ("local", "ray"):
        raise InputError(f"There is no engine {engine!r}: choose local or ray.")
    plan = Plan(count or SHOWN, preset, side, seed, objects, backgrounds, keep_held_out, per_shard, image, soft, jitter)
    if preview is not None:
        pictures.check_file(preview)
        scenes = plan.open()
        pictures.write(preview, draw([scenes[index] for index in range(min(SHOWN, plan.count))]))
        typer.echo(f"{preview}: {min(SHOWN, plan.count)} composites")
    if out is not None:
        _write(plan, out, engine, workers)


def _write(plan: Plan, out: Path, engine: str, workers: int) -> None:
    """Write the shards, with a bar on stderr."""
    from rich.console import Console
    from rich.progress import Progress

    from wherein.scale.compose import on_ray
    from wherein.synth.shards import write_shards
    from wherein.synth.workers import on_this_machine

    run = on_ray if engine == "ray" else on_this_machine
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("composites", total=plan.count)
        for done in write_shards(plan, out, run, workers):
            bar.advance(task, done)
    typer.echo(f"{out}: {plan.count} composites in {plan.shards} shards")
