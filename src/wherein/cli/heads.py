"""`wherein heads`: find the attention heads of a model that already know where things are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wherein.cli.eval import Split
from wherein.cli.model import Bits, Device, Dtype, Model, Size
from wherein.cli.results import spare
from wherein.errors import InputError

if TYPE_CHECKING:
    from wherein.training.pairs import Pairs
    from wherein.vlm.base import FrozenVLM

app = typer.Typer(no_args_is_help=True, help="Localisation heads: find them, without training.")


@app.callback()
def _heads() -> None:
    """Localisation heads: find them, without training."""


@app.command("find")
def find(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The JSON file to write; a plot goes beside it.")],
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Real phrases: any data set `wherein eval` reads.", show_default="composites"
        ),
    ] = None,
    images: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder of the images in --pairs.")] = None,
    split: Split = None,
    pool: Annotated[
        int, typer.Option(min=2, metavar="N", help="Images to measure: drawn from --pairs, or composites to make.")
    ] = 600,
    preset: Annotated[
        str,
        typer.Option(help="paper, as published; relative, against neutral phrases; auto takes what measured best."),
    ] = "auto",
    by: Annotated[
        str, typer.Option(help="criteria, as published; agreement: those that draw the boxes of the phrases best.")
    ] = "criteria",
    samples: Annotated[int, typer.Option(min=1, help="Phrases in a trial, at most half of all.")] = 1000,
    trials: Annotated[int, typer.Option(min=1, help="Trials to take the mean of.")] = 5,
    top: Annotated[int, typer.Option(min=1, help="Heads to choose.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of composites and trials.")] = 0,
    model: Model = "default",
    device: Device = "auto",
    dtype: Dtype = "auto",
    bits: Bits = None,
    size: Size = None,
) -> None:
    """Measure every attention head on phrases and write down the few that look where the phrase is.

    An interrupted run goes on where it stopped when it is started again.
    """
    from wherein import pictures
    from wherein.training.heads import check_choices
    from wherein.training.heads import find as search
    from wherein.training.heads_plot import save_plot
    from wherein.training.pairs import composites
    from wherein.vlm import load_vlm

    check_choices(preset, by)
    if (pairs is None) != (images is None):
        raise InputError("--pairs and --images belong together: give both, or neither to make composites.")
    if split is not None and pairs is None:
        raise InputError("--split is a part of --pairs: give both, or neither to make composites.")
    if os.path.isdir(out):
        raise InputError(f"{out} is a folder: give the name of a file in it, such as {out / 'heads.json'}.")
    if out.suffix != ".json":
        raise InputError(f"{out} does not end in .json, which the file is: such as {out.with_suffix('.json')}.")
    pictures.check_folder(out.parent)
    real = None if pairs is None or images is None else _real(pairs, images, split, pool, seed, out)
    vlm: FrozenVLM = load_vlm(model, device, dtype, bits, size)
    source = real or composites(vlm, pool, seed)
    found = search(vlm, source, out, preset=preset, by=by, samples=samples, trials=trials, top=top, seed=seed)
    plot = save_plot(vlm, source, found, out.with_suffix(".png"))
    chosen = ", ".join(f"L{layer} H{head}" for layer, head in found.config.heads)
    correlation = found.facts["rank_correlation"]
    told = "-" if correlation is None else f"{correlation:.2f}"
    typer.echo(f"{out}: {chosen}; tau {found.facts['tau']:.3f}, rank correlation {told}; plot: {plot}")


def _real(pairs: Path, images: Path, split: str | None, pool: int, seed: int, out: Path) -> Pairs:
    """The phrases of a data set of any format. Raises InputError if `out` would take the place of one of its files."""
    from wherein.data import open_dataset
    from wherein.training.pairs import labelled

    dataset = open_dataset(pairs, images, split=split)
    spare([out], dataset.files)
    return labelled(list(dataset.samples()), pairs.name, pool, seed)
