"""`wherein reproduce`: a paper's table by one command, our figures beside the published ones."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wherein import pictures
from wherein.cli.eval import LEFT_OUT, Format, Limit, Protocol, SkipBad, Split
from wherein.cli.model import Adapter, Bits, Device, Dtype, Model, Size
from wherein.errors import InputError

if TYPE_CHECKING:
    from wherein.evaluation.parts import Table
    from wherein.evaluation.reproduction import Chosen
    from wherein.vlm.base import FrozenVLM

app = typer.Typer(no_args_is_help=True, help="Run a paper's table and set its figures beside the published ones.")

Sets = Annotated[
    list[Path], typer.Option("--data", metavar="PATH", help="A data set: its folder, or its file; may be repeated.")
]
More = Annotated[list[Path] | None, typer.Argument(metavar="[DATA]...", help="Further data sets.", show_default=False)]
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
    split: Split = None,
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
    from wherein.evaluation.parts import PIN_ROWS, pin_table
    from wherein.vlm import load_vlm

    if table not in PIN_ROWS:
        raise InputError(f"There is no table {table} of PIN: choose {', '.join(map(str, PIN_ROWS))}.")
    _check_baseline(baseline, PIN_ROWS[table])
    if adapters is not None and not adapters.is_dir():
        raise InputError(f"{adapters} is not a folder: expected one that holds an adapter for each trained row.")
    work = Work([*data, *(more or [])], out / f"pin-{table}", baseline, format, protocol, split, limit, seed, skip_bad)
    vlm = load_vlm(model, device, dtype, bits, size)
    work.run(vlm, pin_table(table, vlm, adapters, seed))


@app.command("heads")
def heads(
    data: Sets,
    more: More = None,
    table: Annotated[str, typer.Option(help="k, criteria, sigma, kernel or reading.")] = "criteria",
    adapter: Adapter = None,
    out: Out = Path("reproduced"),
    baseline: Baseline = "centre",
    format: Format = "auto",
    protocol: Protocol = "auto",
    split: Split = None,
    skip_bad: SkipBad = False,
    limit: Limit = None,
    seed: Seed = 0,
    model: Model = "default",
    device: Device = "auto",
    dtype: Dtype = "auto",
    bits: Bits = None,
    size: Size = None,
) -> None:
    """Measure heads under other choices: how many (k), chosen how (criteria), smoothed (sigma, kernel), read how."""
    from wherein.evaluation.ablations import TABLES
    from wherein.evaluation.papers import HEADS
    from wherein.evaluation.parts import heads_table
    from wherein.vlm import load_vlm

    if table not in TABLES:
        raise InputError(f"There is no table {table!r} of the heads: choose {', '.join(TABLES)}.")
    if HEADS[table]:
        _check_baseline(baseline, ("centre", *HEADS[table]))
    work = Work(
        [*data, *(more or [])], out / f"heads-{table}", baseline, format, protocol, split, limit, seed, skip_bad
    )
    vlm = load_vlm(model, device, dtype, bits, size)
    work.run(vlm, heads_table(table, vlm, adapter))


class Work:
    """A table to be run on some data sets, checked before a model is loaded."""

    def __init__(
        self,
        data: Sequence[Path],
        folder: Path,
        baseline: str,
        format: str,
        protocol: str,
        split: str | None,
        limit: int | None,
        seed: int,
        skip_bad: bool,
    ) -> None:
        """The arguments are the options of the verb. Raises InputError where one of them is unusable."""
        from wherein.data import Complaints, open_dataset
        from wherein.evaluation import protocol_for, select
        from wherein.evaluation.reproduction import Chosen

        self.complaints, self.skip_bad = Complaints(lambda line: typer.echo(line, err=True)), skip_bad
        self.folder, self.baseline, self.seed = folder, baseline, seed
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"Cannot write to {folder}: {error.strerror}.") from error
        pictures.check_folder(folder)
        if find_spec("matplotlib") is None:
            raise InputError("The table's picture needs matplotlib: run pip install wherein[eval].")
        self.chosen: list[Chosen] = []
        for path in dict.fromkeys(data):
            dataset = open_dataset(path, None, format, split)
            name = protocol_for(dataset, protocol)
            samples = select(name, dataset, limit=limit, complain=self.complaints)
            self.chosen.append(Chosen(dataset, name, samples))

    def run(self, vlm: FrozenVLM, table: Table) -> None:
        """Run the table, print it, write it; InputError at the end if there were bad records."""
        from rich.console import Console
        from rich.markdown import Markdown

        from wherein.evaluation import askable, page
        from wherein.evaluation.reproduction import reproduce

        began = time.time()
        settings = {"wherein": version("wherein"), "model": [vlm.name, vlm.fingerprint, str(vlm.dtype)]}
        found = []
        for chosen in self.chosen:
            place = self.folder / chosen.dataset.digest()[:12]
            place.mkdir(exist_ok=True)
            samples = askable(chosen.samples, vlm.check_phrase, self.complaints)
            found.append(
                reproduce(
                    table,
                    replace(chosen, samples=samples),
                    place,
                    settings,
                    baseline=self.baseline,
                    seed=self.seed,
                    complain=self.complaints,
                    track=_track,
                )
            )
        results = {
            "schema": 1,
            "title": table.title,
            "model": vlm.name,
            "figures": table.figures,
            "baseline": self.baseline,
            "data": found,
            "complaints": self.complaints.sentences,
            "made": _made(vlm, self.seed, time.time() - began),
        }
        paths = page.write(results, self.folder)
        Console(highlight=False).print(Markdown(page.to_markdown(results)))
        typer.echo(f"{', '.join(path.name for path in paths)} in {self.folder}")
        self.complaints.judge(self.skip_bad, LEFT_OUT)


def _check_baseline(name: str, rows: Sequence[str]) -> None:
    """Raise InputError unless there is such a row."""
    if name not in rows:
        raise InputError(f"There is no row {name!r} to compare with: choose {', '.join(rows)}.")


def _track(items: Any, name: str, count: int) -> Any:
    from rich.console import Console
    from rich.progress import track

    return track(items, name, count, console=Console(stderr=True), disable=not sys.stderr.isatty())


def _made(vlm: FrozenVLM, seed: int, seconds: float) -> Mapping[str, Any]:
    """How a table was made: what somebody else needs to make it again."""
    import torch

    cuda = vlm.device.type == "cuda"
    return {
        "command": shlex.join(["wherein", *sys.argv[1:]]),
        "seed": seed,
        "prompt": vlm.shared_prompt + vlm.locate_prompt,
        "boxes written as": vlm.codec,
        "model fingerprint": vlm.fingerprint,
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "hardware": torch.cuda.get_device_name(vlm.device) if cuda else f"CPU, {torch.get_num_threads()} threads",
        "minutes of this call": round(seconds / 60, 1),
        **{name: version(name) for name in ("wherein", "torch", "transformers", "numpy")},
    }
