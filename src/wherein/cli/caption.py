"""`wherein caption`: what the frozen model says about an image, without any method."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from wherein.cli.job import Job, Pixels, print_json, printable
from wherein.cli.model import Bits, Device, Dtype, Model, Size
from wherein.errors import ImageError

if TYPE_CHECKING:
    from wherein.vlm.base import FrozenVLM

SCHEMA = 1  # of the JSON; raised when a key is renamed, removed or changes its meaning, not when one is added


def caption(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Image files, folders of images, or - for image bytes on stdin."),
    ],
    model: Model = "default",
    device: Device = "auto",
    dtype: Dtype = "auto",
    bits: Bits = None,
    size: Size = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each image.")] = False,
) -> None:
    """Print the model's caption of each IMAGE."""
    job = Job(images)

    def start() -> Callable[[Pixels], tuple[str, Pixels, str]]:
        """Load the model, once an image could be read."""
        from wherein.vlm import load_vlm

        vlm: FrozenVLM = load_vlm(model, device, dtype, bits, size)
        return lambda pixels: (vlm.name, pixels, vlm.caption([pixels])[0])

    for name, answer in job.answers(start):
        if isinstance(answer, ImageError):
            if as_json:
                print_json({"schema": SCHEMA, "image": name, "error": str(answer)})
            continue
        model_name, pixels, text = answer
        if as_json:
            height, width = pixels.shape[:2]
            about = {"image": name, "width": width, "height": height, "model": model_name}
            print_json({"schema": SCHEMA, **about, "caption": text})
        else:
            typer.echo(f"{printable(name)}: {printable(text)}" if job.many else printable(text))
