"""The options that choose a model and its adapter, the same for every verb that asks one."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[str, typer.Option(help="default, or a Hub id or folder of a model that `wherein models` lists.")]
Adapter = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="An adapter for the model, folder or Hub id; else the built-in."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda ...; auto takes the fastest there is.")]
Dtype = Annotated[str, typer.Option(help="auto (the checkpoint's, if it is fast here), float32, bfloat16, float16.")]
Size = Annotated[
    int | None, typer.Option(help="Side of the square that images become, pixels.", show_default="the checkpoint's")
]
Bits = Annotated[int | None, typer.Option(help="Load in 4 or 8 bits (needs bitsandbytes).", show_default="no")]
Segmenter = Annotated[
    str | None, typer.Option(metavar="NAME", help="A SAM or SAM 2, Hub id or folder, for masks and tighter boxes.")
]
