"""`wherein heads`: find the attention heads of a model that already know where things are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wherein.cli.eval import Data, Images, Limit, Output, Protocol, Run, Seed, Split, fingerprint
from wherein.cli.model import Adapter, Bits, Device, Dtype, Model, Size
from wherein.errors import InputError

if TYPE_CHECKING:
    from wherein.training.heads import Pairs
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
        typer.Option(metavar="FILE", help="Real phrases: COCO format, or a list of pairs.", show_default="composites"),
    ] = None,
    images: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder of the images in --pairs.")] = None,
    pool: Annotated[
        int, typer.Option(min=2, metavar="N", help="Images to measure: drawn from --pairs, or composites to make.")
    ] = 600,
    preset: Annotated[
        str,
        typer.Option(help="paper, as published; relative, against neutral phrases; auto takes what measured best."),
    ] = "auto",
    by: Annotated[
        str, typer.Option(help="criteria, as published; agreement, with the boxes of the phrases.")
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
    from wherein.training.heads import check_choices, composites
    from wherein.training.heads import find as search
    from wherein.training.heads_plot import save_plot
    from wherein.vlm import load_vlm

    check_choices(preset, by)
    if (pairs is None) != (images is None):
        raise InputError("--pairs and --images belong together: give both, or neither to make composites.")
    if out.is_dir():
        raise InputError(f"{out} is a folder: give the name of a file in it, such as {out / 'heads.json'}.")
    if out.suffix != ".json":
        raise InputError(f"{out} does not end in .json, which the file is: such as {out.with_suffix('.json')}.")
    pictures.check_folder(out.parent)
    real = None if pairs is None or images is None else _real(pairs, images, pool, seed)
    vlm: FrozenVLM = load_vlm(model, device, dtype, bits, size)
    source = real or composites(vlm, pool, seed)
    found = search(vlm, source, out, preset=preset, by=by, samples=samples, trials=trials, top=top, seed=seed)
    plot = save_plot(vlm, source, found, out.with_suffix(".png"))
    chosen = ", ".join(f"L{layer} H{head}" for layer, head in found.config.heads)
    correlation = found.facts["rank_correlation"]
    told = "-" if correlation is None else f"{correlation:.2f}"
    typer.echo(f"{out}: {chosen}; tau {found.facts['tau']:.3f}, rank correlation {told}; plot: {plot}")


@app.command("table")
def table(
    name: Annotated[str, typer.Argument(metavar="TABLE", help="k, criteria, sigma, kernel or reading.")],
    data: Data,
    images: Images,
    protocol: Protocol = "pin",
    split: Split = None,
    model: Model = "default",
    adapter: Adapter = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    bits: Bits = None,
    size: Size = None,
    limit: Limit = None,
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """Measure heads under other choices: how many (k), chosen how (criteria), smoothed (sigma, kernel), read how."""
    from wherein.evaluation import ablations
    from wherein.methods.heads.method import known
    from wherein.vlm import load_vlm

    if name not in ablations.TABLES:
        raise InputError(f"There is no table {name!r}: choose {', '.join(ablations.TABLES)}.")
    run = Run(protocol, data, images, limit, seed, output, split=split)
    vlm = load_vlm(model, device, dtype, bits, size)
    rows = ablations.table(name, vlm, *known(vlm, adapter))
    run.report(vlm, rows, {"table": name, "adapter": adapter and fingerprint(adapter)})


def _real(pairs: Path, images: Path, pool: int, seed: int) -> Pairs:
    """The phrases of a COCO file or of a list of pairs, whichever it is."""
    from wherein.data import read_coco, read_pairs
    from wherein.data.entry import read_json
    from wherein.training.heads import labelled

    reader = read_pairs if isinstance(read_json(pairs), list) else read_coco
    return labelled(list(reader(pairs, images)), pairs.name, pool, seed)
