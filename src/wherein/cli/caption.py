"""`wherein caption`: what the frozen model says about an image; what a pixel-aligned one says, also where and of what.

Notable choices:
- the plain caption needs no method and is the model's own; the others are those of the method `pixel`
- a place is checked against each image, so one that is outside a small image of a folder costs that image alone
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wherein import pictures
from wherein.cli.job import Job, Pixels, print_json, printable
from wherein.cli.model import Adapter, Bits, Device, Dtype, Model, Size
from wherein.errors import ImageError, InputError
from wherein.grounding import score_text

if TYPE_CHECKING:
    from wherein.methods.pixel.captions import Caption, Region

SCHEMA = 1  # of the JSON; raised when a key is renamed, removed or changes its meaning, not when one is added

Place = tuple[float, ...]  # x, y or x0, y0, x1, y1


@dataclass(frozen=True, eq=False)
class Said:
    """What was said of an image: a plain text, a caption with places, or regions with captions; `about`: by what."""

    pixels: Pixels
    about: dict[str, Any]
    said: str | Caption | list[Region]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; docs/json.md describes every key."""
        height, width = self.pixels.shape[:2]
        about = {"width": width, "height": height, **self.about}
        if isinstance(self.said, str):
            return {**about, "caption": self.said}
        if isinstance(self.said, list):
            return {**about, "regions": [region.to_dict() for region in self.said]}
        return {**about, **self.said.to_dict()}

    def draw(self) -> Pixels:
        """The image with what was said of its places."""
        from wherein.methods.pixel.picture import draw_regions, draw_trace

        assert not isinstance(self.said, str)
        draw: Any = draw_regions if isinstance(self.said, list) else draw_trace
        return draw(self.pixels, self.said)  # type: ignore[no-any-return]


def caption(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Image files, folders of images, or - for image bytes on stdin."),
    ],
    trace: Annotated[bool, typer.Option("--trace", help="Say where each word of the caption is.")] = False,
    at: Annotated[
        list[str] | None,
        typer.Option(metavar="PLACE", help="Describe a box x0,y0,x1,y1 or a point x,y, pixels; may be repeated."),
    ] = None,
    dense: Annotated[bool, typer.Option("--dense", help="Describe what the model itself finds, box by box.")] = False,
    save: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Draw that on this PNG or JPEG file; for many images, in this folder."),
    ] = None,
    adapter: Adapter = None,
    model: Model = "default",
    device: Device = "auto",
    dtype: Dtype = "auto",
    bits: Bits = None,
    size: Size = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each image.")] = False,
) -> None:
    """Print the model's caption of each IMAGE: as it is, word by word, of places in it, or of what is found in it."""
    places = [_place(text) for text in at or []]
    if trace + dense + bool(places) > 1:
        raise InputError("A caption is of words, of places or of what is found: choose --trace, --at or --dense.")
    plain = not (trace or dense or places)
    if plain and (save or adapter):
        raise InputError(f"{'--save' if save else '--adapter'} is for places: add --trace, --at or --dense.")
    job = Job(images)
    drawings = job.drawings(save) if save else {}

    def start() -> Callable[[Pixels], Said]:
        """Load the model, once an image could be read."""
        from wherein.methods import check, create
        from wherein.vlm import load_vlm

        if not plain:
            check("pixel", model, adapter)
        vlm = load_vlm(model, device, dtype, bits, size)
        if plain:
            return lambda pixels: Said(pixels, {"model": vlm.name}, vlm.caption([pixels])[0])
        method: Any = create("pixel", vlm, adapter)
        about = {"model": vlm.name, "method": method.name, "adapter": adapter}
        if trace:
            return lambda pixels: Said(pixels, about, method.caption(pixels))
        if places:
            return lambda pixels: Said(pixels, about, method.describe(_checked(pixels, places), places))
        if not method.proposes:
            raise InputError("This adapter was not trained to find anything by itself: say where, with --at.")
        return lambda pixels: Said(pixels, about, method.dense(pixels))

    for name, answer in job.answers(start):
        if isinstance(answer, ImageError):
            if as_json:
                print_json({"schema": SCHEMA, "image": name, "error": str(answer)})
            continue
        if as_json:
            print_json({"schema": SCHEMA, "image": name, **answer.to_dict()})
        else:
            _print(answer, f"{printable(name)}: " if job.many else "")
        if name in drawings:
            pictures.make_folder(drawings[name].parent)
            pictures.write(drawings[name], answer.draw())


def _place(text: str) -> Place:
    """A box or a point as it was typed. Raises InputError where it is neither."""
    try:
        numbers = tuple(float(number) for number in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (2, 4) or not all(math.isfinite(number) for number in numbers):
        raise InputError(f"--at takes a box x0,y0,x1,y1 or a point x,y in pixels of the image, not {text!r}.")
    if len(numbers) == 4 and not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
        raise InputError(f"The box {text!r} is empty: x0,y0 is its upper left corner and x1,y1 its lower right one.")
    return numbers


def _checked(pixels: Pixels, places: Sequence[Place]) -> Pixels:
    """The image, if each place holds some of it. Raises ImageError otherwise."""
    height, width = pixels.shape[:2]
    for place in places:
        if len(place) == 2:
            inside = 0 <= place[0] <= width and 0 <= place[1] <= height
        else:
            inside = place[0] < width and place[1] < height and place[2] > 0 and place[3] > 0
        if not inside:
            raise ImageError(f"The place {_spoken(place)} is outside the image of {width} x {height} pixels.")
    return pixels


def _print(answer: Said, name: str) -> None:
    """The answer for people: the caption in a line, places in a table."""
    if isinstance(answer.said, str):
        typer.echo(name + printable(answer.said))
    elif isinstance(answer.said, list):
        if name or not answer.said:
            typer.echo(name + ("" if answer.said else "nothing was found"))
        rows = [(_spoken(region.place), region.caption.text, score_text(region.score)) for region in answer.said]
        kinds = dict.fromkeys(region.score_kind for region in answer.said)
        _print_table(("place", "caption", ", ".join(kinds)), rows)
    else:
        typer.echo(name + printable(answer.said.text))
        words = [(word.text, _spoken(word.place)) for word in answer.said.trace]
        _print_table(("word", "place"), words)


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Nothing in it is read as rich markup, and no table is printed without rows."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    if rows:
        Console(highlight=False).print(table)


def _spoken(place: Iterable[float]) -> str:
    """A box or a point in whole pixels."""
    return ", ".join(f"{coordinate:.0f}" for coordinate in place)
