"""`wherein probe`: does a model that is asked in words return boxes?

Notable choices:
- what a remote model will be sent, and about what that costs, is said before the first request; above `FREE` it takes
  --yes. Nothing is asked of the user on the way: the same command does the same in a terminal and in a script
- a remote model's answers are always kept in a file, so a command that was stopped pays for nothing twice
- a bad record costs its image, not the run, as with `eval`; but a remote model is asked nothing while there is one that
  is not to be skipped, so that the data are mended before anything is paid
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wherein.cli.eval import LEFT_OUT, Data, Folder, Format, Limit, Output, Protocol, Seed, SkipBad, Split
from wherein.cli.job import print_json
from wherein.cli.model import Bits, Device, Dtype, Model, Size
from wherein.cli.results import STDOUT, beside, result_file, show, spare
from wherein.errors import InputError

if TYPE_CHECKING:
    from wherein.boxforms import Convention
    from wherein.evaluation.endpoint import Endpoint
    from wherein.evaluation.probe import Probe

FREE = 1.0  # in the currency of the prices: what may be spent without --yes
KEY = "OPENAI_API_KEY"
SIDE, PATIENCE = 1024, 120.0

Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        help="box, localise, box-list, localise-list, box-fractions or box-json; may be repeated.",
        show_default="all",
    ),
]
Coordinates = Annotated[
    str,
    typer.Option(
        help="What the model's numbers mean: pixels, 0-1, 0-100, 0-1000 or 0-1000-y-first; auto is what its family was "
        "trained to write, else what a rule settles from all answers."
    ),
]
Url = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Ask --model at this OpenAI-compatible base, such as http://localhost:8000/v1."),
]
Key = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The environment variable that holds the endpoint's key.", show_default=KEY),
]
Side = Annotated[
    int | None,
    typer.Option(min=1, help="Send images scaled down to this longer side, pixels.", show_default=str(SIDE)),
]
Price = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="IN OUT", help="What the endpoint takes for a million tokens read, and written."),
]
Body = Annotated[
    str | None,
    typer.Option(metavar="JSON", help='More of each request, such as {"seed": 1}; null leaves a usual key out.'),
]


def probe(
    data: Data,
    images: Folder = None,
    format: Format = "auto",
    protocol: Protocol = "auto",
    prompt: Prompts = None,
    coordinates: Coordinates = "auto",
    tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 128,
    model: Model = "default",
    device: Device = "auto",
    dtype: Dtype = "auto",
    bits: Bits = None,
    size: Size = None,
    endpoint: Url = None,
    key: Key = None,
    side: Side = None,
    per_minute: Annotated[
        float | None, typer.Option(min=0.01, help="The most requests a minute.", show_default="no limit")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds to wait for an answer.", show_default=f"{PATIENCE:g}")
    ] = None,
    body: Body = None,
    price: Price = None,
    yes: Annotated[bool, typer.Option("--yes", help=f"Go on where it may cost more than {FREE:g}.")] = False,
    limit: Limit = None,
    seed: Seed = 0,
    split: Split = None,
    skip_bad: SkipBad = False,
    output: Output = None,
) -> None:
    """Ask a model in words for every labelled object, and count what comes back: boxes, chat, echoes, nothing."""
    from wherein.data import Complaints, open_dataset
    from wherein.evaluation import protocol_for, select
    from wherein.evaluation.asking import Local
    from wherein.evaluation.probe import Probe
    from wherein.evaluation.transcript import Transcript
    from wherein.vlm import load_vlm

    prompts, convention, remote = _prompts(prompt), _convention(coordinates), None
    path = result_file(output, "probe.json")
    answers = beside(path, ".answers.jsonl")
    if endpoint is None:
        given = {"key": key, "side": side, "per-minute": per_minute, "timeout": timeout, "body": body, "price": price}
        _refuse(given, "a remote model, so give its --endpoint")
    else:
        given = {"device": device if device != "auto" else None, "dtype": dtype if dtype != "auto" else None}
        _refuse({**given, "bits": bits, "size": size}, "a model on this machine, so leave it out with --endpoint")
        if path is None:
            raise InputError("A remote model's answers are kept, so that none is paid for twice: give --json FILE.")
        remote = _endpoint(endpoint, model, tokens, key, side, per_minute, timeout, body)
    if price is not None and min(price) < 0:
        raise InputError(f"A price is at least 0, not {min(price):g}.")
    complaints = Complaints(lambda line: typer.echo(line, err=True))
    dataset = open_dataset(data, images, format, split)
    protocol = protocol_for(dataset, protocol)
    spare([path, answers], dataset.files)
    samples = select(protocol, dataset, limit=limit, complain=complaints)
    with remote or nullcontext(Local(load_vlm(model, device, dtype, bits, size), tokens)) as asker:
        transcript = Transcript(answers, asker.settings)
        if transcript.found:
            typer.echo(f"{transcript.found} answers are there already.", err=True)
        probed = Probe(samples, asker, prompts, transcript, complaints)
        if remote is not None:
            complaints.judge(skip_bad, "nothing was asked; mend them, or leave their images out with --skip-bad.")
            _announce(remote, probed, price, yes)
        _ask(probed, path)
        command = shlex.join(["wherein", *sys.argv[1:]])
        results = {
            **probed.results(convention, protocol=protocol, split=dataset.split, seed=seed, command=command),
            "format": dataset.format,
            "complaints": complaints.sentences,
        }
    _report(results, path, output)
    if remote is None:
        complaints.judge(skip_bad, LEFT_OUT)


def _report(results: dict[str, Any], path: Path | None, output: str | None) -> None:
    """Write and print what is to be written and printed."""
    from wherein.evaluation import write_json
    from wherein.evaluation.probe import to_table

    if path:
        write_json(results, path)
    show(to_table(results), stderr=output == STDOUT)
    cut = sum(answer["cut"] for answer in results["answers"])
    if cut:
        typer.echo(f"{cut} answers were cut off: --tokens allows longer ones.", err=True)
    if output == STDOUT:
        print_json(results)


def _prompts(chosen: Sequence[str] | None) -> list[str]:
    """The names of the prompts, each once."""
    from wherein.evaluation.asking import PROMPTS

    names = list(dict.fromkeys(chosen or PROMPTS))
    for name in names:
        if name not in PROMPTS:
            raise InputError(f"There is no prompt {name!r}: choose {', '.join(PROMPTS)}.")
    return names


def _convention(name: str) -> Convention | None:
    from wherein.boxforms import CONVENTIONS

    if name not in ("auto", *CONVENTIONS):
        raise InputError(f"There are no coordinates {name!r}: choose auto, {', '.join(CONVENTIONS)}.")
    return CONVENTIONS.get(name)


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Raise InputError if one of the options is given."""
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given:
        raise InputError(f"{', '.join(given)}: only for {why}.")


def _endpoint(
    url: str,
    model: str,
    tokens: int,
    key: str | None,
    side: int | None,
    per_minute: float | None,
    timeout: float | None,
    body: str | None,
) -> Endpoint:
    """The remote model, not asked yet."""
    from wherein.evaluation.connection import key_from
    from wherein.evaluation.endpoint import Endpoint, Limits

    if model == "default":
        raise InputError("An endpoint serves models by name: say which with --model.")
    secret = key_from(key or KEY)
    if secret is None and key is not None:
        raise InputError(f"The environment variable {key} with the endpoint's key is not set.")
    try:
        more = json.loads(body or "{}", parse_constant=_no_number)
    except (ValueError, RecursionError):
        more = None
    if not isinstance(more, dict):
        raise InputError(f"--body must be a JSON object, such as '{{\"seed\": 1}}', not {body!a}.")
    return Endpoint(url, model, secret, Limits(side or SIDE, tokens, per_minute, timeout or PATIENCE, more))


def _no_number(name: str) -> None:
    """Refuse NaN and the infinities, which Python reads and JSON does not have."""
    raise ValueError(name)


def _announce(endpoint: Endpoint, probed: Probe, price: tuple[float, float] | None, yes: bool) -> None:
    """Say what is about to be sent where, and what it may cost. Raises InputError if that is too much to go on."""
    estimate = endpoint.estimate(probed.waiting())
    key = "with a key" if endpoint.has_key else "without a key"
    said = (
        f"{estimate.requests} requests to {endpoint.settings['endpoint']}, {key}: to read, about {estimate.text:,} "
        f"tokens of text and {estimate.images:,} of images; to write, {estimate.answers:,} at most"
    )
    if price is None:
        typer.echo(f"{said}.", err=True)
        return
    cost = estimate.cost(*price)
    typer.echo(f"{said}. At these prices, about {cost:.2f}.", err=True)
    if not (cost <= FREE or yes):
        raise InputError(f"This may cost about {cost:.2f}: add --yes to go on, or ask less with --limit and --prompt.")


def _ask(probed: Probe, path: Path | None) -> None:
    """Ask what is still to be asked, with a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import track

    total = sum(len(questions) for _, _, questions in probed.waiting())
    console, hidden = Console(stderr=True), not sys.stderr.isatty()
    answered = 0
    try:
        for _ in track(probed.ask(), "questions", total, console=console, disable=hidden):
            answered += 1
    except InputError as error:
        if path is None:
            raise
        raise InputError(f"{error} {answered} of {total} answers came; the same command goes on from there.") from error
