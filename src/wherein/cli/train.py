"""`wherein train`: unlock a frozen model with self-made composites, by PIN or by one of its baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wherein.cli.model import Bits, Device, Dtype, Model, Size

IMAGES = 6000  # composites, where neither a number nor a folder of them is given


def train(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="pin, or a baseline: coop, lora, vpt, vpt_encoder.")],
    out: Annotated[Path, typer.Option(help="Folder for the adapter, its checkpoints, pictures and TensorBoard log.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 1000,
    images: Annotated[
        int | None, typer.Option(min=16, help="Composites to make (and encode once).", show_default=str(IMAGES))
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images a step, other than the preset's: 12 of default, 64 of paper.")
    ] = None,
    at_once: Annotated[
        int | None, typer.Option(min=1, help="Images run at once: a part of the batch, where memory is short.")
    ] = None,
    absent: Annotated[
        bool | None,
        typer.Option("--absent/--no-absent", help="Learn to say that a thing is not there; default: the preset's."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of composites, order and initialisation.")] = 0,
    rate: Annotated[
        float | None, typer.Option(min=1e-12, metavar="RATE", help="Peak learning rate other than the preset's.")
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="paper: the published recipe; released: its code's; split, gated: paper, but PIN's network has gates; "
            "default: the built-in model's; auto: what fits."
        ),
    ] = "auto",
    composites: Annotated[
        Path | None,
        typer.Option(help="Use these: a folder of `wherein compose`, or annotations.json and images/."),
    ] = None,
    objects: Annotated[Path | None, typer.Option(help="Folder of further cut-outs.")] = None,
    backgrounds: Annotated[Path | None, typer.Option(help="Folder of background photographs.")] = None,
    keep_held_out: Annotated[
        bool, typer.Option("--keep-held-out", help="Paste categories of COCO and VOC, too: you evaluate elsewhere.")
    ] = False,
    cache: Annotated[Path | None, typer.Option(help="Folder for encoded composites; default: OUT/cache.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the newest checkpoint in OUT.")] = False,
    model: Model = "default",
    device: Device = "auto",
    dtype: Dtype = "auto",
    bits: Bits = None,
    size: Size = None,
) -> None:
    """Train METHOD on composites whose boxes are known because they were made, and save it as an adapter."""
    from wherein.errors import InputError
    from wherein.training.adapters import presets, trainable
    from wherein.training.adapters import train as train_adapter

    if method not in trainable():
        raise InputError(f"There is no method {method!r} to train: choose {', '.join(trainable())}.")
    if preset not in presets(method):
        raise InputError(f"There is no preset {preset!r} of {method}: choose {', '.join(presets(method))}.")
    if composites is not None and keep_held_out:
        raise InputError("--keep-held-out chooses what is pasted: it says nothing of --composites, which are made.")
    if composites is not None and images is not None:
        raise InputError("--images says how many composites are made: of --composites all are used, leave it out.")
    figures: dict[str, Any] = train_adapter(
        method,
        out,
        model=model,
        device=device,
        dtype=dtype,
        bits=bits,
        size=size,
        preset=preset,
        rate=rate,
        steps=steps,
        images=images or IMAGES,
        batch=batch,
        at_once=at_once,
        absent=absent,
        seed=seed,
        resume=resume,
        cache=cache or out / "cache",
        composites=composites,
        objects=objects,
        backgrounds=backgrounds,
        keep_held_out=keep_held_out,
    )
    typer.echo(f"{out}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
