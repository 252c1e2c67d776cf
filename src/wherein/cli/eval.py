"""`wherein eval`: how well methods find the objects that people labelled.

Notable choices:
- whatever can be wrong without the model is found before the model is loaded
- the constant box `centre` is in every table: without it no figure says whether a method finds anything
- with `--json out.json` every answer goes to out.records.jsonl at once: the same command continues after a crash
- a bad record costs its image, not the run, and so does an image that a model cannot take: the figures are of all
  other images, and the exit status is 2 at the end, as that of `locate` after an image that could not be read. The
  records are then not closed, so that the same command asks only about the images that were mended; an annotation file
  that changed is another data set
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wherein import pictures
from wherein.cli.job import print_json
from wherein.cli.model import Adapter, Bits, Device, Dtype, Model, Segmenter, Size
from wherein.cli.results import STDOUT, beside, result_file, show, spare
from wherein.errors import InputError

if TYPE_CHECKING:
    from wherein.data import Complain, Dataset, Sample
    from wherein.evaluation import Journal, Outcome
    from wherein.evaluation.protocols import Grounder
    from wherein.methods import Method
    from wherein.vlm.base import FrozenVLM

LEFT_OUT = "the images that have them are not in these figures; mend them, or accept that with --skip-bad."
# What every verb that asks about labelled images takes.
Data = Annotated[Path, typer.Option(metavar="PATH", help="A data set: its folder, or its annotation file.")]
Images = Annotated[Path, typer.Option(metavar="DIR", help="The folder of the annotated images.")]
Folder = Annotated[
    Path | None,
    typer.Option("--images", metavar="DIR", help="The folder of its images.", show_default="the data set's usual one"),
]
Format = Annotated[
    str,
    typer.Option(
        help="coco, lvis, voc, refcoco, reasonseg, genome, yolo or pairs; auto recognises it by its files.",
    ),
]
Protocol = Annotated[
    str,
    typer.Option(
        help="pin: images with at most 3 objects, asked by category name; phrases: every phrase, "
        "as does pairs; auto: pin for data with categories."
    ),
]
Split = Annotated[str | None, typer.Option(help="The part of it, where it has several: val, test, testA ...")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Exit with status 0 though images with bad records were left out.")
]
Limit = Annotated[int | None, typer.Option(metavar="N", help="Take only the first N images.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the bootstrap behind intervals and p-values.")]
Output = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the figures here, the answers beside it; - for stdout."),
]


def evaluate(
    data: Data,
    images: Folder = None,
    format: Format = "auto",
    protocol: Protocol = "auto",
    method: Annotated[
        list[str],
        typer.Option(
            help="pin, heads, cam, pixel, text, centre, auto, or a baseline of PIN's paper: coop, vpt, vpt_encoder, "
            "lora, in_context, random; may be repeated. centre is always added.",
            show_default="auto",
        ),
    ] = ["auto"],  # noqa: B006 - typer only reads it
    model: Model = "default",
    adapter: Adapter = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    bits: Bits = None,
    size: Size = None,
    limit: Limit = None,
    seed: Seed = 0,
    split: Split = None,
    skip_bad: SkipBad = False,
    segmenter: Segmenter = None,
    gallery: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Put a sheet of best, median and worst answers here.")
    ] = None,
    output: Output = None,
) -> None:
    """Measure how well each METHOD finds the labelled objects: mean IoU with interval, precision, invalid answers."""
    from wherein import methods
    from wherein.evaluation.report import BASELINE
    from wherein.segment import Refined
    from wherein.segment import Segmenter as Sam
    from wherein.vlm import load_vlm

    wanted = _checked(method, model, adapter)
    run = Run(data, images, format, split, protocol, limit, seed, output, gallery, skip_bad)
    sam = None if segmenter is None else Sam(segmenter, device)
    vlm = load_vlm(model, device, dtype, bits, size)
    asked = _bound(vlm, wanted)
    refined: list[Grounder] = [] if sam is None else [Refined(one, sam) for one in asked]
    constant = [] if any(one.name == BASELINE for one in asked) else [methods.create(BASELINE, vlm)]
    settings = {"adapter": adapter and fingerprint(adapter), "segmenter": segmenter}
    run.report(vlm, [*asked, *refined, *constant], settings)


class Run:
    """One evaluation of some methods on labelled images, checked before a model is loaded."""

    def __init__(
        self,
        data: Path,
        images: Path | None,
        format: str,
        split: str | None,
        protocol: str,
        limit: int | None,
        seed: int,
        output: str | None,
        gallery: Path | None = None,
        skip_bad: bool = False,
    ) -> None:
        """The arguments are the options of `wherein eval`. Raises InputError where one of them is unusable."""
        from wherein.data import Complaints, open_dataset
        from wherein.evaluation import protocol_for, select

        self.complaints, self.skip_bad = Complaints(lambda line: typer.echo(line, err=True)), skip_bad
        self.path, self.seed, self.output, self.gallery = result_file(output), seed, output, gallery
        self.records = beside(self.path, ".records.jsonl")
        _check_gallery(gallery)
        self.dataset = open_dataset(data, images, format, split)
        spare([self.path, self.records], self.dataset.files)
        self.protocol = protocol_for(self.dataset, protocol)
        self.samples = select(self.protocol, self.dataset, limit=limit, complain=self.complaints, no_target=True)
        self.expected = expected_images(self.dataset, self.protocol, len(self.samples)) if limit is None else None

    def report(self, vlm: FrozenVLM, methods: Sequence[Grounder], settings: Mapping[str, Any]) -> None:
        """Ask the methods, print the table, write what is to be written.

        `settings`: what else must be the same for the records of an interrupted run to be continued.

        Raises:
            InputError: at the end, if there were bad records and they are not to be skipped; also if nothing is left.
        """
        from wherein.evaluation import Journal, askable, to_table
        from wherein.evaluation.protocols import asks_every_phrase
        from wherein.evaluation.records import folders, origin

        samples = askable(self.samples, vlm.check_phrase, self.complaints)
        made_by = {
            **origin(vlm),
            "protocol": self.protocol,
            "format": self.dataset.format,
            "split": self.dataset.split,
            "data": self.dataset.digest(),
            "images": folders(samples),
            "methods": [one.name for one in methods],
            **settings,
        }
        with Journal(self.records, made_by) as journal:
            outcomes = _ask(samples, methods, journal, self.complaints, no_target=asks_every_phrase(self.protocol))
            if not any(outcome.records for outcome in outcomes):
                raise InputError(f"No image of {self.dataset.files[0]} could be asked about.")
            results = self._write(outcomes, vlm, methods)
            show(to_table(results), stderr=self.output == STDOUT)
            if self.output == STDOUT:
                print_json(results)
            if self.complaints.sentences:
                journal.leave_open()
            self.complaints.judge(self.skip_bad, LEFT_OUT)

    def _write(self, outcomes: Sequence[Outcome], vlm: FrozenVLM, methods: Sequence[Grounder]) -> dict[str, Any]:
        """The figures, after writing the files that were asked for."""
        from wherein.evaluation import save_gallery, save_reliability, summarise, write_json

        kinds = {one.name: getattr(one, "score_kind", "none") for one in methods}
        results = {
            **summarise(
                outcomes,
                protocol=self.protocol,
                model=vlm.name,
                seed=self.seed,
                command=shlex.join(["wherein", *sys.argv[1:]]),
                split=self.dataset.split,
                score_kinds=kinds,
            ),
            "format": self.dataset.format,
            "expected_images": self.expected,
            "complaints": self.complaints.sentences,
        }
        if self.path:
            write_json(results, self.path)
        if self.gallery:
            pictures.make_folder(self.gallery)
            save_gallery(outcomes, {sample.name: sample.path for sample in self.samples}, self.gallery)
            save_reliability(outcomes, kinds, self.gallery)
        return results


def expected_images(dataset: Dataset, protocol: str, found: int) -> int | None:
    """How many images PIN's paper has of a data set, told beside the number that was found; None of any other set."""
    from wherein.evaluation import published

    expected = published(dataset, protocol)
    if expected is not None:
        counted = f"{dataset.name}: {found:,} images with one to three objects"
        typer.echo(f"{counted}; the paper of PIN has {expected:,}.", err=True)
    return expected


def _check_gallery(gallery: Path | None) -> None:
    if gallery:
        if find_spec("matplotlib") is None:
            raise InputError("A gallery's plots need matplotlib: run pip install 'wherein[eval]'.")
        pictures.check_folder(gallery if os.path.lexists(gallery) else gallery.parent)


def _checked(names: Sequence[str], model: str, adapter: str | None) -> dict[str, str | None]:
    """The names of the methods, each once, with the adapter where they load one.

    Raises InputError for a method or an adapter with which something is wrong whatever the model.
    """
    from wherein import methods

    wanted = {name: adapter if methods.takes_adapter(name) else None for name in names}
    if adapter is not None and all(own is None for own in wanted.values()):
        raise InputError(f"None of the methods {', '.join(names)} loads an adapter, but {adapter!r} was given.")
    for name, own in wanted.items():
        methods.check(name, model, own)
    return wanted


def _bound(vlm: FrozenVLM, wanted: Mapping[str, str | None]) -> list[Method]:
    """The methods with their adapters, each once though two names may stand for it."""
    from wherein import methods

    created = [methods.create(name, vlm, adapter) for name, adapter in wanted.items()]
    return list({method.name: method for method in created}.values())


def _ask(
    samples: Sequence[Sample], methods: Sequence[Grounder], journal: Journal, complain: Complain, no_target: bool
) -> list[Outcome]:
    """Run the protocol with a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import track

    from wherein.evaluation import run

    if journal.note:
        typer.echo(journal.note, err=True)
    console, hidden = Console(stderr=True), not sys.stderr.isatty()
    asked = run(samples, methods, journal, complain, no_target)
    images = track(asked, "images", len(samples), console=console, disable=hidden)
    return [outcome for outcomes in images for outcome in outcomes]


def fingerprint(adapter: str) -> str:
    """Hash of an adapter's own files, whatever lies beside them; the name itself of one that is not on this disk."""
    from wherein.methods.adapter import FILES

    path = Path(adapter)
    if not path.exists():
        return adapter
    files = [path] if path.is_file() else [path / name for name in FILES if (path / name).is_file()]
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()
