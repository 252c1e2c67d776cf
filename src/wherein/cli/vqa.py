"""`wherein vqa`: what an insert costs a model that answers questions.

Notable choices:
- whatever can be wrong without the model is found before the model is loaded
- with `--json out.json` the answers go to out.records.jsonl at once: the same command continues after a crash
- a bad record costs its image, not the run, as with `eval`
"""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wherein.cli.eval import LEFT_OUT, Images, Limit, Output, Seed, SkipBad, fingerprint
from wherein.cli.job import print_json
from wherein.cli.model import Adapter, Bits, Device, Dtype, Model, Size
from wherein.cli.results import STDOUT, beside, result_file, show, spare
from wherein.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from wherein.data import Complain
    from wherein.data.vqa import AskedImage
    from wherein.evaluation.vqa import Answered, Transcript
    from wherein.methods.insert import Inserted
    from wherein.vlm.base import FrozenVLM


def vqa(
    questions: Annotated[Path, typer.Option(metavar="FILE", help="VQAv2's questions, JSON.")],
    annotations: Annotated[Path, typer.Option(metavar="FILE", help="VQAv2's answers to them, JSON.")],
    images: Images,
    model: Model = "default",
    adapter: Adapter = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    bits: Bits = None,
    size: Size = None,
    limit: Limit = None,
    seed: Seed = 0,
    skip_bad: SkipBad = False,
    output: Output = None,
) -> None:
    """Ask a model questions with an adapter inserted and without: VQA accuracy on and off, and the difference."""
    from wherein.data import Complaints
    from wherein.data.vqa import read_vqa
    from wherein.evaluation import write_json
    from wherein.evaluation.records import origin
    from wherein.evaluation.vqa import PROMPT, Transcript, summarise
    from wherein.vlm import load_vlm

    path = result_file(output)
    records = beside(path, ".records.jsonl")
    spare([path, records], [questions, annotations])
    if limit is not None and limit < 1:
        raise InputError(f"The limit is {limit}, but at least 1 image must be asked about.")
    complaints = Complaints(lambda line: typer.echo(line, err=True))
    there = _there(read_vqa(questions, annotations, images, complaints), limit, complaints)
    _any(there, questions)
    method = _inserting(model, adapter)
    vlm = load_vlm(model, device, dtype, bits, size)
    asked = [image for image in there if _askable(image, vlm, complaints)]
    bind = cache(lambda: method(vlm, adapter))
    made_by = {
        **origin(vlm),
        "questions": hashlib.sha256(questions.read_bytes()).hexdigest(),  # the answers of people judge, nothing else
        "images": str(images.resolve()),
        "prompt": PROMPT,
        "adapter": adapter and fingerprint(adapter),
    }
    with Transcript(records, made_by) as transcript:
        answered = _ask(asked, vlm, bind, transcript, complaints)
        _any(answered, questions)
        names = {own.image for own in answered}
        results = summarise(
            [image for image in asked if image.name in names],
            answered,
            model=vlm.name,
            method=bind().name,
            adapter=adapter,
            seed=seed,
            command=shlex.join(["wherein", *sys.argv[1:]]),
        )
        results["complaints"] = complaints.sentences
        if path:
            write_json(results, path)
        show(_table(results), stderr=output == STDOUT)
        if output == STDOUT:
            print_json(results)
        if complaints.sentences:
            transcript.leave_open()
        complaints.judge(skip_bad, LEFT_OUT)


def _there(asked: Sequence[AskedImage], limit: int | None, complain: Complain) -> list[AskedImage]:
    """The first images whose files are there; `complain` is told of others before them."""
    found: list[AskedImage] = []
    for image in asked:
        if image.path.is_file():
            found.append(image)
        else:
            complain(InputError(f"{image.where}: there is no image {image.path}."))
        if len(found) == limit:
            break
    return found


def _askable(image: AskedImage, vlm: FrozenVLM, complain: Complain) -> bool:
    """Whether the model can be asked all questions about an image; `complain` is told if it cannot."""
    for question in image.questions:
        try:
            vlm.check_phrase(question.text)
        except InputError as error:
            complain(InputError(f"{question.where}: {error}"))
            return False
    return True


def _any(left: Sequence[object], questions: Path) -> None:
    """Raise InputError if nothing is left."""
    if not left:
        raise InputError(f"No image of {questions} could be asked about.")


def _inserting(model: str, adapter: str | None) -> type[Inserted]:
    """The method of the adapter, or PIN for the built-in one. Raises InputError for one that inserts nothing."""
    from wherein.methods import check
    from wherein.methods.insert import Inserted

    method = check("pin" if adapter is None else "auto", model, adapter)
    if not issubclass(method, Inserted):
        raise InputError(f"The adapter {adapter} is for {method.name}, which inserts nothing, so it has no cost.")
    return method


def _ask(
    asked: Sequence[AskedImage],
    vlm: FrozenVLM,
    bind: Callable[[], Inserted],
    transcript: Transcript,
    complain: Complain,
) -> list[Answered]:
    """Ask with a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import track

    from wherein.evaluation.vqa import run

    if transcript.note:
        typer.echo(transcript.note, err=True)
    console, hidden = Console(stderr=True), not sys.stderr.isatty()
    answers = run(asked, vlm, bind, transcript, complain)
    return list(track(answers, "images", len(asked), console=console, disable=hidden))


def _table(results: dict[str, Any]) -> Table:
    """The accuracies, all and by kind of answer, the difference below them."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found, accuracy = results["on - off"], results["accuracy"]
    kinds = list(accuracy["off"]["by_kind"])
    same = "the untouched model, bit for bit" if results["off_is_base"] else "NOT the untouched model"
    title = f"VQA: {results['n']} questions about {results['images']} images, model {results['model']}"
    compared = f"on - off: {found['difference']:+.3f}, 95 % {_span(found['ci95'])}, p = {found['p']:.2g}"
    caption = Text(f"{compared}\noff is {same}")
    table = Table("", "accuracy", "95 %", *kinds, title=Text(title), caption=caption, box=box.SIMPLE)
    table.title_justify = table.caption_justify = "left"
    for switch, figures in accuracy.items():
        cells = [f"{figures['all']:.3f}", _span(figures["ci95"])]
        cells += [f"{figures['by_kind'][kind]:.3f}" for kind in kinds]
        table.add_row(*(Text(cell) for cell in (f"{results['method']} {switch}", *cells)))
    return table


def _span(ends: Sequence[float]) -> str:
    return f"{ends[0]:.3f}..{ends[1]:.3f}"
