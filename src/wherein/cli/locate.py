"""`wherein locate`: where are these phrases on this image?

Notable choices:
- without --save no file is written, and with it a drawing never takes the place of an image that was given
- whatever can be wrong without the model is found before the model is loaded
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from wherein import pictures
from wherein.cli.job import Job, Pixels, print_json, printable
from wherein.cli.model import Adapter, Bits, Device, Dtype, Model, Segmenter, Size
from wherein.errors import ImageError, InputError
from wherein.grounding import Grounding, score_text
from wherein.locator import SCHEMA, Answer, Locator, check_every
from wherein.phrases import check_phrases


def locate(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="An image file, a folder of images, or - for image bytes on stdin.")
    ],
    phrases: Annotated[list[str], typer.Argument(metavar="PHRASE...", help='What to look for, such as "a red mug".')],
    more: Annotated[
        list[str] | None, typer.Option("--image", "-i", metavar="IMAGE", help="A further image; may be repeated.")
    ] = None,
    method: Annotated[str, typer.Option(help="pin, heads, cam, pixel or text; auto takes the model's best.")] = "auto",
    adapter: Adapter = None,
    model: Model = "default",
    device: Device = "auto",
    dtype: Dtype = "auto",
    bits: Bits = None,
    size: Size = None,
    save: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Draw the boxes on this PNG or JPEG file; for many images, in this folder."),
    ] = None,
    mask: Annotated[bool, typer.Option("--mask", help="Draw the masks with the boxes.")] = False,
    heatmap: Annotated[bool, typer.Option("--heatmap", help="Draw a heat map for each phrase instead.")] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Give every instance of a phrase its box, not the best.")
    ] = False,
    segmenter: Segmenter = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each image.")] = False,
) -> None:
    """Print where each PHRASE is on IMAGE: boxes x0, y0, x1, y1 in pixels of the image, or that it is absent."""
    checked = check_phrases(phrases)
    for phrase in phrases:
        if Path(phrase).suffix and os.path.isfile(phrase):
            raise InputError(f"{phrase} is a file, but stands where a phrase does: give further images with -i.")
    job = Job([image, *(more or [])])
    if (mask or heatmap) and not save:
        raise InputError("--mask and --heatmap say what is drawn: give --save the name of the picture as well.")
    if mask and heatmap:
        raise InputError("A picture shows masks or heat maps: choose --mask or --heatmap.")
    drawings = job.drawings(save) if save else {}

    def start() -> Callable[[Pixels], Answer]:
        """Load the model, once an image could be read."""
        from wherein.methods import check, giving

        chosen = check(method, model, adapter)
        if every:
            check_every(chosen)
        for wanted, what in ((mask and not segmenter, "mask"), (heatmap, "heatmap")):
            if wanted and what not in chosen.gives:
                others = " or ".join(giving(what, model))
                besides = ", or add --segmenter" if what == "mask" else ""
                raise InputError(f"The method {chosen.name} gives no {what}: use --method {others}{besides}.")
        locator = Locator(model, method, adapter, device, dtype, bits, size, segmenter)
        return lambda pixels: locator.locate(pixels, checked, every)

    for name, answer in job.answers(start):
        if isinstance(answer, ImageError):
            if as_json:
                print_json({"schema": SCHEMA, "image": name, "error": str(answer)})
            continue
        answer = replace(answer, image=name)
        if as_json:
            print_json(answer.to_dict())
        else:
            _print_table(answer)
        if name in drawings:
            pictures.make_folder(drawings[name].parent)
            pictures.write(drawings[name], answer.draw_heat() if heatmap else answer.draw(masks=mask))


def _print_table(answer: Answer) -> None:
    """The answer for people: one row for each box. Nothing in it is read as rich markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    kinds = ", ".join(dict.fromkeys(grounding.score_kind for grounding in answer.groundings))
    seen = "" if answer.visible is None else f"; the model saw only {_spoken(answer.visible)} of the image"
    table = Table(
        title=Text(f"{printable(answer.image or '')}, {answer.width} x {answer.height} pixels"),
        caption=Text(f"model {answer.model}, method {answer.method}; score: {kinds}{seen}"),
        title_justify="left",
        caption_justify="left",
    )
    for column in ("phrase", "box x0, y0, x1, y1", "score"):
        table.add_column(column, overflow="fold")
    for grounding in answer.groundings:
        for box, score in _rows(grounding):
            table.add_row(Text(grounding.phrase), Text(box), Text(score))
    Console(highlight=False).print(table)


def _rows(grounding: Grounding) -> list[tuple[str, str]]:
    """What the table says of one phrase: its boxes and their scores, or why there is none."""
    if grounding.absent:
        sure = grounding.absent_probability
        return [("absent" if sure is None else f"absent (p={sure:.2f})", "")]
    if grounding.invalid:
        return [(f"no box in the answer {printable(grounding.answer or '')!r}", "")]
    return [(_spoken(box), score_text(score)) for box, score in zip(grounding.boxes, grounding.scores, strict=True)]


def _spoken(box: Iterable[float]) -> str:
    """A box x0, y0, x1, y1 in whole pixels."""
    return ", ".join(f"{coordinate:.0f}" for coordinate in box)
