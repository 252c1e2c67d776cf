"""`wherein eval`: how well methods find the objects that people labelled.

Notable choices:
- whatever can be wrong without the model is found before the model is loaded
- with `--json out.json` every answer goes to out.records.jsonl at once: the same command continues after a crash
"""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wherein import pictures
from wherein.cli.job import STDIN as STDOUT
from wherein.cli.job import print_json
from wherein.cli.model import Adapter, Bits, Device, Dtype, Model, Segmenter, Size
from wherein.errors import InputError

if TYPE_CHECKING:
    from wherein.data import Sample
    from wherein.evaluation import Journal, Outcome
    from wherein.evaluation.protocols import Grounder
    from wherein.methods import Method
    from wherein.vlm.base import FrozenVLM

# What every verb that asks about labelled images takes.
Data = Annotated[
    Path,
    typer.Option(
        metavar="FILE", help="COCO format for pin, a list for pairs, refs.json (beside instances.json) for refcoco."
    ),
]
Images = Annotated[Path, typer.Option(metavar="DIR", help="The folder of the annotated images.")]
Protocol = Annotated[
    str,
    typer.Option(help="pin: images with at most 3 objects, asked by category name; pairs: phrase-box pairs; refcoco."),
]
Split = Annotated[str | None, typer.Option(help="Of RefCOCO-format data: val, testA ...")]
Limit = Annotated[int | None, typer.Option(metavar="N", help="Take only the first N images.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the bootstrap behind intervals and p-values.")]
Output = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the figures here, the answers beside it; - for stdout."),
]


def evaluate(
    data: Data,
    images: Images,
    protocol: Protocol = "pin",
    method: Annotated[
        list[str], typer.Option(help="pin, heads, cam, text, centre or auto; may be repeated.", show_default="auto")
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
    segmenter: Segmenter = None,
    gallery: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Put a sheet of best, median and worst answers here.")
    ] = None,
    output: Output = None,
) -> None:
    """Measure how well each METHOD finds the labelled objects: mean IoU with interval, precision, invalid answers."""
    from wherein import methods
    from wherein.segment import Refined
    from wherein.segment import Segmenter as Sam
    from wherein.vlm import load_vlm

    for name in method:
        if name not in ("auto", *methods.names()):
            raise InputError(f"There is no method {name!r}: choose auto, {', '.join(methods.names())}.")
    run = Run(protocol, data, images, limit, seed, output, gallery, split)
    vlm = load_vlm(model, device, dtype, bits, size)
    asked = _bound(vlm, method, adapter)
    refined: list[Grounder] = []
    if segmenter is not None:
        sam = Sam(segmenter, device)
        refined = [Refined(one, sam) for one in asked]
    run.report(vlm, [*asked, *refined], {"adapter": adapter and fingerprint(adapter), "segmenter": segmenter})


class Run:
    """One evaluation of some methods on labelled images, checked before a model is loaded."""

    def __init__(
        self,
        protocol: str,
        data: Path,
        images: Path,
        limit: int | None,
        seed: int,
        output: str | None,
        gallery: Path | None = None,
        split: str | None = None,
    ) -> None:
        """The arguments are the options of `wherein eval`. Raises InputError where one of them is unusable."""
        from wherein.evaluation import select

        self.samples = select(protocol, data, images, limit, split)
        self.protocol, self.data, self.seed, self.output, self.gallery = protocol, data, seed, output, gallery
        self.split, self.path = split, None if output in (None, STDOUT) else Path(str(output))
        _check_outputs(self.path, gallery)

    def report(self, vlm: FrozenVLM, methods: Sequence[Grounder], settings: Mapping[str, Any]) -> None:
        """Ask the methods, print the table, write what is to be written.

        `settings`: what else must be the same for the records of an interrupted run to be continued.
        """
        from rich.console import Console

        from wherein.evaluation import Journal, save_gallery, sources, summarise, to_table, write_json

        for phrase in {phrase for sample in self.samples for phrase in sample.phrases()}:
            vlm.check_phrase(phrase)
        made_by = {
            "wherein": version("wherein"),
            "protocol": self.protocol,
            "split": self.split,
            "data": hashlib.sha256(
                b"".join(file.read_bytes() for file in sources(self.protocol, self.data))
            ).hexdigest(),
            "methods": [one.name for one in methods],
            "model": [vlm.name, vlm.fingerprint],
            **settings,
        }
        with Journal(self.path and self.path.with_suffix(".records.jsonl"), made_by) as journal:
            outcomes = _ask(self.samples, methods, journal)
            command = shlex.join(["wherein", *sys.argv[1:]])
            results = summarise(
                outcomes,
                protocol=self.protocol,
                model=vlm.name,
                seed=self.seed,
                command=command,
                split=self.split,
            )
            if self.path:
                write_json(results, self.path)
            if self.gallery:
                self.gallery.mkdir(exist_ok=True)
                save_gallery(outcomes, {sample.name: sample.path for sample in self.samples}, self.gallery)
        Console(stderr=self.output == STDOUT, highlight=False).print(to_table(results))
        if self.output == STDOUT:
            print_json(results)


def _check_outputs(path: Path | None, gallery: Path | None) -> None:
    if path:
        if path.is_dir():
            raise InputError(f"{path} is a folder: give the name of a file in it, such as {path / 'results.json'}.")
        pictures.check_folder(path.parent)
    if gallery:
        pictures.check_folder(gallery if gallery.exists() else gallery.parent)


def _bound(vlm: FrozenVLM, names: Sequence[str], adapter: str | None) -> list[Method]:
    """The methods, each once, with the adapter where they load one."""
    from wherein import methods

    wanted = list(dict.fromkeys(names))
    if adapter is not None and not any(methods.takes_adapter(name, vlm) for name in wanted):
        raise InputError(f"None of the methods {', '.join(names)} loads an adapter, but {adapter!r} was given.")
    created = [methods.create(name, vlm, adapter if methods.takes_adapter(name, vlm) else None) for name in wanted]
    return list({method.name: method for method in created}.values())


def _ask(samples: Sequence[Sample], methods: Sequence[Grounder], journal: Journal) -> list[Outcome]:
    """Run the protocol with a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import track

    from wherein.evaluation import run

    if journal.note:
        typer.echo(journal.note, err=True)
    console, hidden = Console(stderr=True), not sys.stderr.isatty()
    images = track(run(samples, methods, journal), "images", len(samples), console=console, disable=hidden)
    return [outcome for outcomes in images for outcome in outcomes]


def fingerprint(adapter: str) -> str:
    """Hash of an adapter's files; the name itself of one that is not on this machine's disk."""
    path = Path(adapter)
    if not path.exists():
        return adapter
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()
