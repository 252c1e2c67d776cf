"""`wherein objects`: cut-outs and backgrounds of a domain of one's own, for `wherein train`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wherein.cli.job import printable
from wherein.cli.model import Device
from wherein.errors import InputError

if TYPE_CHECKING:
    from wherein.synth.cutting import Cutter

app = typer.Typer(no_args_is_help=True, help="Make cut-outs and backgrounds of your own domain.")

# What X-Paste's recipe, which PIN follows, was published with, as far as transformers has it.
DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
CLIP = "openai/clip-vit-large-patch14"
CLIPSEG = "clipseg=CIDAS/clipseg-rd64-refined"


def _finite(param: typer.CallbackParam, value: float) -> float:
    """Neither nan nor infinity, which would be found out after all the work."""
    if not math.isfinite(value):
        raise InputError(f"{param.opts[0]} is {value}: give a number.")
    return value


Out = Annotated[Path, typer.Option(metavar="DIR", help="The folder to write; a killed run goes on in it.")]
NamesFile = Annotated[
    Path, typer.Option(metavar="FILE", help="A text file, one name a line, or an LVIS annotation file (.json).")
]
KeepHeldOut = Annotated[
    bool, typer.Option("--keep-held-out", help="Also names of COCO's and VOC's categories: you evaluate elsewhere.")
]
ClipModel = Annotated[str, typer.Option(metavar="NAME", help="A CLIP, Hub id or folder.")]
MinClip = Annotated[float, typer.Option(callback=_finite, help="CLIP score (100 x cosine) that always suffices.")]
Tolerance = Annotated[
    float, typer.Option(min=0, callback=_finite, help="A name's cut-outs so close to its best are kept as well.")
]
MinArea = Annotated[float, typer.Option(min=0, max=1, help="Least share of the picture that an object covers.")]
MaxArea = Annotated[float, typer.Option(min=0, max=1, help="Largest share of the picture that an object covers.")]


@app.callback()
def _objects() -> None:
    """Make cut-outs and backgrounds of your own domain."""


@app.command("make")
def make(
    names: NamesFile,
    out: Out,
    per_name: Annotated[int, typer.Option(min=1, help="Pictures to make of each name.")] = 60,
    diffusion: Annotated[str, typer.Option(metavar="NAME", help="A Stable Diffusion, Hub id or folder.")] = DIFFUSION,
    clip: ClipModel = CLIP,
    segmenter: Annotated[
        list[str],
        typer.Option(
            metavar="KIND=NAME", help="clipseg=NAME, u2net=FILE, or sam=NAME beside one; may be repeated: CLIP chooses."
        ),
    ] = [CLIPSEG],  # noqa: B006 - typer reads it, nothing writes to it
    seed: Annotated[int, typer.Option(min=0, help="Of all pictures.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Pictures to make at once.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Of the solver, for a picture.")] = 50,
    guidance: Annotated[
        float, typer.Option(min=0, callback=_finite, help="Scale of the classifier-free guidance.")
    ] = 7.5,
    min_clip: MinClip = 21.0,
    tolerance: Tolerance = 1.0,
    min_area: MinArea = 0.05,
    max_area: MaxArea = 0.95,
    at_least: Annotated[int, typer.Option(min=1, help="Drop names with fewer cut-outs.")] = 21,
    licence: Annotated[
        str | None, typer.Option(help="What the index says of each cut-out.", show_default="see the model's licence")
    ] = None,
    keep_held_out: KeepHeldOut = False,
    device: Device = "auto",
) -> None:
    """Make pictures of single objects with a text-to-image model, cut them out, and keep what CLIP recognises."""
    from wherein.journal import locked
    from wherein.synth.choosing import Rule
    from wherein.synth.diffusion import Diffusion
    from wherein.synth.foreground import parse
    from wherein.synth.making import cut_pictures, draw_pictures
    from wherein.synth.names import read_names
    from wherein.synth.object_report import finish

    wanted = read_names(names, keep_held_out)
    if not segmenter:
        raise InputError("Pictures are cut out by a segmenter: give --segmenter clipseg=NAME.")
    parsed = parse(segmenter)
    _check_areas(min_area, max_area)
    if wanted.left_out:
        name, why = wanted.left_out[0]
        typer.echo(
            f"wherein: names left out: {len(wanted.left_out)}, such as {name} ({why}); the report lists them.", err=True
        )
    by: dict[str, Any] = {"segmenters": segmenter, "clip": clip, "min_area": min_area, "max_area": max_area}
    drawn_by = {"diffusion": diffusion, "steps": steps, "guidance": guidance}
    loaded: list[Cutter] = []

    def cutter() -> Cutter:
        """All that looks at pictures, loaded once."""
        if not loaded:
            loaded.append(_cutter(parsed, clip, min_area, max_area, device))
        return loaded[0]

    def drawing() -> Diffusion:
        """The text-to-image model; the others first, as a wrong name of theirs must not cost days of pictures."""
        cutter()
        return Diffusion(diffusion, device, steps, guidance)

    settings = {**drawn_by, "seed": seed, "per_name": per_name, "keep_held_out": keep_held_out, **by}
    with locked(out):
        items = draw_pictures(
            wanted.kept,
            out,
            drawing,
            per_name=per_name,
            seed=seed,
            batch=batch,
            settings=drawn_by,
            licence=licence or f"see the licence of {diffusion}",
        )
        outcomes = cut_pictures(items, out, cutter, settings=by)
        report = finish(outcomes, out, Rule(min_clip, tolerance, at_least), settings, wanted.left_out)
    _tell(report, out)


@app.command("cut")
def cut(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Pictures, in one sub-folder for each name.")],
    out: Out,
    segmenter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=NAME", help="Cuts photographs out: clipseg=NAME, u2net=FILE, or sam=NAME beside one."
        ),
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A CLIP that chooses and refuses cut-outs of photographs.", show_default="no"
        ),
    ] = None,
    min_clip: MinClip = 21.0,
    tolerance: Tolerance = 1.0,
    min_area: MinArea = 0.05,
    max_area: MaxArea = 0.95,
    at_least: Annotated[int, typer.Option(min=1, help="Drop names with fewer cut-outs.")] = 1,
    licence: Annotated[str, typer.Option(help="What the index says of each cut-out.")] = "user's own",
    device: Device = "auto",
) -> None:
    """Take pictures of your own: transparent ones as they are, photographs cut out by a segmenter."""
    from wherein.journal import locked
    from wherein.synth.choosing import Rule
    from wherein.synth.foreground import parse
    from wherein.synth.making import cut_pictures
    from wherein.synth.object_report import finish
    from wherein.synth.own import find_pictures

    parsed = parse(segmenter or [])
    if len(parsed) > 1 and clip is None:
        raise InputError("Among several segmenters CLIP chooses: give --clip NAME, or one segmenter.")
    _check_areas(min_area, max_area)
    if out.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{out} lies in {folder}, whose sub-folders are names: give --out another folder.")
    if folder.resolve().is_relative_to((out / "cutouts").resolve()):
        raise InputError(f"{folder} lies in {out / 'cutouts'}, which is written over: give --out another folder.")
    items, complaints = find_pictures(folder, licence)
    by: dict[str, Any] = {"segmenters": segmenter or [], "clip": clip, "min_area": min_area, "max_area": max_area}
    with locked(out):
        outcomes = cut_pictures(
            items, out, lambda: _cutter(parsed, clip, min_area, max_area, device) if parsed else None, settings=by
        )
        report = finish(outcomes, out, Rule(min_clip, tolerance, at_least), by, complaints=complaints)
    _tell(report, out)


@app.command("backgrounds")
def backgrounds(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Background pictures; sub-folders are looked into.")],
    names: NamesFile,
    out: Out,
    clip: ClipModel = CLIP,
    max_clip: Annotated[
        float, typer.Option(callback=_finite, help="CLIP score (100 x cosine) of a name from which a picture goes.")
    ] = 25,
    device: Device = "auto",
) -> None:
    """Copy the backgrounds that show none of the names."""
    from wherein.journal import locked
    from wherein.synth.background_filter import filter_backgrounds
    from wherein.synth.clip import Clip
    from wherein.synth.names import read_names

    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder.")
    if out.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{out} lies in {folder}: give --out another folder.")
    wanted = read_names(names, keep_held_out=True)  # every object that may be pasted or asked for
    looking = Clip(clip, device)
    with locked(out):
        report = filter_backgrounds(folder, wanted.kept, looking, out, max_clip)
    pictures = report["pictures"]
    typer.echo(f"{out}: {sum(row['kept'] for row in pictures)} of {len(pictures)} backgrounds kept; see report.json")
    _end([row["unusable"] for row in pictures if "unusable" in row])


def _cutter(
    parsed: Sequence[tuple[str, str]], clip: str | None, min_area: float, max_area: float, device: str
) -> Cutter:
    """Load what cuts out and what chooses."""
    from wherein.segment import Segmenter
    from wherein.synth.clip import Clip
    from wherein.synth.cutting import Cutter
    from wherein.synth.foreground import ClipSeg, Finder
    from wherein.synth.u2net import U2Net

    finders: dict[str, Callable[[str, str], Finder]] = {"clipseg": ClipSeg, "u2net": U2Net}
    return Cutter(
        {f"{kind}={name}": finders[kind](name, device) for kind, name in parsed if kind in finders},
        {f"{kind}={name}": Segmenter(name, device) for kind, name in parsed if kind == "sam"},
        None if clip is None else Clip(clip, device),
        min_area,
        max_area,
    )


def _check_areas(least: float, most: float) -> None:
    if least >= most:
        raise InputError(f"--min-area {least} is not below --max-area {most}: no object could be kept.")


def _tell(report: dict[str, Any], out: Path) -> None:
    """Say what came of a job; its end is an error where pictures were unusable or nothing was kept."""
    kept = [row for row in report["names"] if not row["dropped"]]
    typer.echo(
        f"{out}: {report['cutouts']} cut-outs, names: {len(kept)} of {len(report['names'])}, pictures: "
        f"{report['pictures']}; see {out / 'report.md'} and {out / 'sheets'}"
    )
    _end(report["unusable"])
    if not kept:
        raise InputError(f"No name has enough cut-outs: {out / 'report.md'} says why; see --at-least and --min-clip.")


def _end(unusable: Sequence[str]) -> None:
    for text in unusable:
        typer.echo(f"wherein: {printable(text)}", err=True)
    if unusable:
        raise InputError(f"{len(unusable)} pictures or folders could not be used; the others were.")
