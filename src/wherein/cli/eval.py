"""`wherein eval`: how well methods find the objects that people labelled.

Notable choices:
- whatever can be wrong without the model is found before the model is loaded
- with `--json out.json` every answer goes to out.records.jsonl at once: the same command continues after a crash
"""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wherein import pictures
from wherein.cli.job import STDIN as STDOUT
from wherein.cli.job import print_json
from wherein.cli.model import Adapter, Bits, Device, Dtype, Model, Size
from wherein.errors import InputError

if TYPE_CHECKING:
    from wherein.data import Sample
    from wherein.evaluation import Journal, Outcome
    from wherein.evaluation.protocols import Grounder
    from wherein.vlm.base import FrozenVLM


def evaluate(
    data: Annotated[Path, typer.Option(metavar="FILE", help="The annotations: COCO format for pin, a list for pairs.")],
    images: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the annotated images.")],
    protocol: Annotated[
        str, typer.Option(help="pin: images with at most 3 objects, asked by category name; pairs: phrase-box pairs.")
    ] = "pin",
    method: Annotated[
        list[str], typer.Option(help="pin, text, cam, centre ... or auto; may be repeated.", show_default="auto")
    ] = ["auto"],  # noqa: B006 - typer only reads it
    model: Model = "default",
    adapter: Adapter = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    bits: Bits = None,
    size: Size = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Take only the first N images.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap behind intervals and p-values.")] = 0,
    gallery: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Put a sheet of best, median and worst answers here.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Write the figures here, the answers beside it; - for stdout."),
    ] = None,
) -> None:
    """Measure how well each METHOD finds the labelled objects: mean IoU with interval, precision, invalid answers."""
    from rich.console import Console

    from wherein.evaluation import Journal, save_gallery, select, summarise, to_table, write_json
    from wherein.vlm import load_vlm

    samples = select(protocol, data, images, limit)
    path = None if output in (None, STDOUT) else Path(str(output))
    _check_outputs(path, gallery)
    vlm, methods = _load(lambda: load_vlm(model, device, dtype, bits, size), method, adapter, samples)
    settings = {
        "wherein": version("wherein"),
        "protocol": protocol,
        "data": hashlib.sha256(data.read_bytes()).hexdigest(),
        "methods": [one.name for one in methods],
        "model": [vlm.name, vlm.fingerprint],
        "adapter": adapter and _fingerprint(adapter),
    }
    with Journal(path and path.with_suffix(".records.jsonl"), settings) as journal:
        outcomes = _ask(samples, methods, journal)
        command = shlex.join(["wherein", *sys.argv[1:]])
        results = summarise(outcomes, protocol=protocol, model=vlm.name, seed=seed, command=command)
        if path:
            write_json(results, path)
        if gallery:
            gallery.mkdir(exist_ok=True)
            save_gallery(outcomes, {sample.name: sample.path for sample in samples}, gallery)
    Console(stderr=output == STDOUT, highlight=False).print(to_table(results))
    if output == STDOUT:
        print_json(results)


def _check_outputs(path: Path | None, gallery: Path | None) -> None:
    if path:
        if path.is_dir():
            raise InputError(f"{path} is a folder: give the name of a file in it, such as {path / 'results.json'}.")
        pictures.check_folder(path.parent)
    if gallery:
        pictures.check_folder(gallery if gallery.exists() else gallery.parent)


def _load(
    load: Callable[[], FrozenVLM], names: Sequence[str], adapter: str | None, samples: Sequence[Sample]
) -> tuple[FrozenVLM, list[Grounder]]:
    """The model and the methods, each once, after a check that the model can be asked for every phrase."""
    from wherein import methods

    for name in names:
        if name not in ("auto", *methods.names()):
            raise InputError(f"There is no method {name!r}: choose auto, {', '.join(methods.names())}.")
    vlm = load()
    for phrase in {phrase for sample in samples for phrase in sample.phrases()}:
        vlm.check_phrase(phrase)
    wanted = list(dict.fromkeys(names))
    if adapter is not None and not any(methods.takes_adapter(name, vlm) for name in wanted):
        raise InputError(f"None of the methods {', '.join(names)} loads an adapter, but {adapter!r} was given.")
    created = [methods.create(name, vlm, adapter if methods.takes_adapter(name, vlm) else None) for name in wanted]
    return vlm, list({method.name: method for method in created}.values())


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


def _fingerprint(adapter: str) -> str:
    """Hash of an adapter's files; the name itself of one that is not on this machine's disk."""
    path = Path(adapter)
    if not path.exists():
        return adapter
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()
