"""`wherein reproduce`: a paper's table by one command, our figures beside the published ones."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wherein import pictures
from wherein.cli.eval import LEFT_OUT, Format, Limit, Protocol, SkipBad, expected_images
from wherein.cli.model import Adapter, Bits, Device, Dtype, Model, Segmenter, Size
from wherein.errors import InputError

if TYPE_CHECKING:
    from wherein.data import Complain
    from wherein.evaluation.parts import Table
    from wherein.evaluation.reproduction import Chosen
    from wherein.vlm.base import FrozenVLM

app = typer.Typer(no_args_is_help=True, help="Run a paper's table and set its figures beside the published ones.")

Sets = Annotated[
    list[Path], typer.Option("--data", metavar="PATH", help="A data set: its folder, or its file; may be repeated.")
]
More = Annotated[list[Path] | None, typer.Argument(metavar="[DATA]...", help="Further data sets.", show_default=False)]
Folders = Annotated[
    list[str] | None,
    typer.Option(
        "--images",
        metavar="DIR",
        help='The folder of the images: one for all data sets, or one for each in their order, "" for its usual one.',
        show_default=False,
    ),
]
Splits = Annotated[
    list[str] | None,
    typer.Option(
        "--split",
        metavar="NAME",
        help='The part of the data: one for all data sets, or one for each in their order, "" for one without parts.',
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of the bootstrap, and of the rows that draw at random.")]
Out = Annotated[
    Path, typer.Option(metavar="DIR", help="Keeps the answers and the table (JSON, CSV, Markdown, picture).")
]
Baseline = Annotated[str, typer.Option(metavar="ROW", help="Compare every row with this one, images paired.")]


@app.callback()
def _reproduce() -> None:
    """Run a paper's table and set its figures beside the published ones."""


@app.command("pin")
def pin(
    data: Sets,
    more: More = None,
    table: Annotated[int, typer.Option(help="1: every baseline; 2: on BLIP-2; 3: RefCOCO.")] = 1,
    adapters: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="One adapter for each trained row: DIR/pin, DIR/coop ...", show_default=False),
    ] = None,
    out: Out = Path("reproduced"),
    baseline: Baseline = "centre",
    format: Format = "auto",
    protocol: Protocol = "auto",
    images: Folders = None,
    split: Splits = None,
    skip_bad: SkipBad = False,
    limit: Limit = None,
    seed: Seed = 0,
    model: Model = "default",
    device: Device = "auto",
    dtype: Dtype = "auto",
    bits: Bits = None,
    size: Size = None,
) -> None:
    """Run PIN's table 1, 2 or 3 on labelled images. What an earlier call with the same settings answered is kept."""
    from wherein.evaluation.pin_tables import PIN_ROWS, pin_table
    from wherein.evaluation.reproduction import check_baseline
    from wherein.vlm import load_vlm

    if table not in PIN_ROWS:
        raise InputError(f"There is no table {table} of PIN: choose {', '.join(map(str, PIN_ROWS))}.")
    check_baseline(baseline, PIN_ROWS[table])
    if adapters is not None and not os.path.isdir(adapters):
        raise InputError(f"{adapters} is not a folder: expected one that holds an adapter for each trained row.")
    choice = Choice([*data, *(more or [])], images, split, format, protocol, limit)
    work = Work(choice, out / f"pin-{table}", baseline, seed, skip_bad)
    vlm = load_vlm(model, device, dtype, bits, size)
    work.run(vlm, pin_table(table, vlm, adapters, seed))


@app.command("heads")
def heads(
    data: Sets,
    more: More = None,
    table: Annotated[str, typer.Option(help="rec, res or reasonseg; or k, criteria, sigma, kernel, reading.")] = "rec",
    adapter: Adapter = None,
    segmenter: Segmenter = None,
    out: Out = Path("reproduced"),
    baseline: Baseline = "centre",
    format: Format = "auto",
    protocol: Protocol = "auto",
    images: Folders = None,
    split: Splits = None,
    skip_bad: SkipBad = False,
    limit: Limit = None,
    seed: Seed = 0,
    model: Model = "default",
    device: Device = "auto",
    dtype: Dtype = "auto",
    bits: Bits = None,
    size: Size = None,
) -> None:
    """Run the heads' main tables, or measure heads under other choices: how many (k), chosen, smoothed and read how.

    rec (boxes, P@0.5), res and reasonseg (masks, cIoU) have the heads beside a constant box and the model's answer in
    words, with --segmenter also the heads with a segmenter behind them.
    """
    from wherein.evaluation.heads_tables import HEADS_TABLES, OF_MASKS, check_segmenter, heads_table
    from wherein.evaluation.papers import HEADS
    from wherein.evaluation.reproduction import check_baseline, check_masks
    from wherein.methods import check
    from wherein.segment import Segmenter as Sam
    from wherein.vlm import load_vlm

    if table not in HEADS_TABLES:
        raise InputError(f"There is no table {table!r} of the heads: choose {', '.join(HEADS_TABLES)}.")
    if HEADS.get(table):
        check_baseline(baseline, ("centre", *HEADS[table]))
    check_segmenter(table, segmenter)
    check("heads", model, adapter)
    choice = Choice([*data, *(more or [])], images, split, format, protocol, limit)
    work = Work(choice, out / f"heads-{table}", baseline, seed, skip_bad)
    if table in OF_MASKS:
        for chosen in work.chosen:
            check_masks("ciou", chosen)
    sam = None if segmenter is None else Sam(segmenter, device)
    vlm = load_vlm(model, device, dtype, bits, size)
    work.run(vlm, heads_table(table, vlm, adapter, sam))


@dataclass(frozen=True)
class Choice:
    """The data sets, as the options of the verb name them, and what is asked of them."""

    data: Sequence[Path]
    images: Sequence[str] | None
    split: Sequence[str] | None
    format: str
    protocol: str
    limit: int | None

    def open(self, complain: Complain) -> Iterator[Chosen]:
        """Each data set once, with the images that are asked about. Raises InputError where one is unusable."""
        from wherein.data import open_dataset
        from wherein.evaluation import protocol_for, select
        from wherein.evaluation.reproduction import Chosen

        folders = _each("images", self.images, len(self.data))
        splits = _each("split", self.split, len(self.data))
        for path, folder, split in dict.fromkeys(zip(self.data, folders, splits, strict=True)):
            dataset = open_dataset(path, None if folder is None else Path(folder), self.format, split)
            name = protocol_for(dataset, self.protocol)
            samples = select(name, dataset, limit=self.limit, complain=complain)
            expected = expected_images(dataset, name, len(samples)) if self.limit is None else None
            yield Chosen(dataset, name, samples, expected, self.limit is not None)


class Work:
    """A table to be run on some data sets, checked before a model is loaded."""

    def __init__(self, choice: Choice, folder: Path, baseline: str, seed: int, skip_bad: bool) -> None:
        """The arguments are the options of the verb. Raises InputError where one of them is unusable."""
        from wherein.data import Complaints

        self.complaints, self.skip_bad = Complaints(lambda line: typer.echo(line, err=True)), skip_bad
        self.folder, self.baseline, self.seed = folder, baseline, seed
        pictures.make_folder(folder)
        pictures.check_folder(folder)
        if find_spec("matplotlib") is None:
            raise InputError("The table's picture needs matplotlib: run pip install 'wherein[eval]'.")
        self.chosen = list(choice.open(self.complaints))

    def run(self, vlm: FrozenVLM, table: Table) -> None:
        """Run the table, write it after each data set, print it; InputError at the end if there were bad records."""
        from wherein.evaluation import askable, page
        from wherein.evaluation.records import origin
        from wherein.evaluation.reproduction import reproduce

        began = time.time()
        found: list[dict[str, Any]] = []
        for chosen in self.chosen:
            place = self.folder / chosen.dataset.digest()[:12]
            place.mkdir(exist_ok=True)
            samples = askable(chosen.samples, vlm.check_phrase, self.complaints)
            found.append(
                reproduce(
                    table,
                    replace(chosen, samples=samples),
                    place,
                    origin(vlm),
                    baseline=self.baseline,
                    seed=self.seed,
                    complain=self.complaints,
                    track=_track,
                )
            )
            results = {
                "schema": 2,
                "title": table.title,
                "model": vlm.name,
                "figures": table.figures,
                "baseline": self.baseline,
                "data": found,
                "complaints": self.complaints.sentences,
                "made": _made(vlm, found, self.seed, time.time() - began),
            }
            paths = page.write(results, self.folder)  # what goes wrong with a later set costs this one nothing
        _print(page.to_markdown(results))
        typer.echo(f"{', '.join(path.name for path in paths)} in {self.folder}")
        self.complaints.judge(self.skip_bad, LEFT_OUT)


def _print(markdown: str) -> None:
    """As a terminal shows it; elsewhere as it is written, for its columns would be cut to a terminal's width."""
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(highlight=False)
    if console.is_terminal:
        console.print(Markdown(markdown))
    else:
        typer.echo(markdown)


def _each(option: str, given: Sequence[str] | None, count: int) -> list[str | None]:
    """What each of `count` data sets gets of an option that is given once for all of them, or once for each.

    Raises:
        InputError: it is given another number of times.
    """
    values = [value or None for value in given or [""]]
    if len(values) not in (1, count):
        raise InputError(
            f"--{option} was given {len(values)} times, but the number of data sets is {count}: give it once for all "
            'of them, or once for each in their order, "" for one that needs none.'
        )
    return values * (count // len(values))


def _track(items: Any, name: str, count: int) -> Any:
    from rich.console import Console
    from rich.progress import track

    return track(items, name, count, console=Console(stderr=True), disable=not sys.stderr.isatty())


def _made(vlm: FrozenVLM, found: Sequence[Mapping[str, Any]], seed: int, seconds: float) -> Mapping[str, Any]:
    """How a table was made: what somebody else needs to make it again."""
    import torch

    from wherein.evaluation.records import code

    prompts = dict.fromkeys(row["prompt"] for each in found for row in each["rows"].values() if row["prompt"])
    cuda = vlm.device.type == "cuda"
    return {
        "command": shlex.join(["wherein", *sys.argv[1:]]),
        "seed": seed,
        "prompt": " / ".join(prompts),
        "boxes written as": vlm.codec,
        "model fingerprint": vlm.fingerprint,
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "hardware": torch.cuda.get_device_name(vlm.device) if cuda else f"CPU, {torch.get_num_threads()} threads",
        "minutes of this call": round(seconds / 60, 1),
        "code": code(),
        **{name: _version(name) for name in ("wherein", "torch", "transformers", "numpy", "peft")},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
