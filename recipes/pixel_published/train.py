"""Train a stage of the pixel-aligned language model on photographs that people described; see README.md.

The same command goes on where a killed run stopped. The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from wherein.checkpoints import device_for
from wherein.data import Complain, Complaints, open_dataset, read_captions, read_narratives, refuse
from wherein.errors import InputError, WhereinError
from wherein.methods.adapter import CONFIG as ADAPTER
from wherein.methods.pixel import Pixel
from wherein.methods.pixel.method import save as save_adapter
from wherein.methods.pixel.parts import assemble
from wherein.methods.pixel.reader import PixelReader
from wherein.training.lessons import KINDS, Captions, Lessons, Narratives, Phrases, Regions
from wherein.training.photographs import PhotographTask
from wherein.training.processes import Processes
from wherein.training.stages import STAGES, Stage
from wherein.training.trainer import TrainConfig, fit
from wherein.vlm import load_vlm

Given = Sequence[Sequence[str]]  # kind, annotations, images, and a split or none
DEFAULT = "default"
FROM_PARTS = {"depth": 2, "side": 384, "targets": "q,v", "proposals": 0}
"""Options that only parts have, and what they are where they are not given: a model that exists has its own."""
SAID = ("side", "extractor_depth", "proposal_dim", "lora_targets")  # of the model, beside the stage's settings


def lessons_of(kind: str, annotations: Path, images: Path | None, split: str | None, complain: Complain) -> Lessons:
    """The lessons in a data set: narratives and captions from a file and the folder of its images, all else from
    whatever `wherein eval` reads. Raises InputError for an unknown kind."""
    if kind not in KINDS:
        raise InputError(f"There are no lessons of the kind {kind!r}: choose {', '.join(KINDS)}.")
    if kind in ("narratives", "captions"):
        if images is None:
            raise InputError(f"Data of {kind} need the folder of their images.")
        if kind == "narratives":
            return Narratives(read_narratives(annotations, images, complain))
        return Captions(read_captions(annotations, images, complain))
    samples = open_dataset(annotations, images, "auto", split).samples(complain)
    return Regions(samples) if kind == "regions" else Phrases(samples, masks=kind == "masks")


def all_of(given: Given, complain: Complain) -> dict[str, list[Lessons]]:
    """All lessons, by kind."""
    found: dict[str, list[Lessons]] = defaultdict(list)
    for row in given:
        if len(row) not in (3, 4):
            raise InputError(f"Data are given as KIND ANNOTATIONS IMAGES [SPLIT], not {' '.join(row)!r}.")
        kind, labels, images = row[:3]
        folder, split = None if images == "-" else Path(images), row[3] if len(row) == 4 else None
        found[kind].append(lessons_of(kind, Path(labels), folder, split, complain))
    return found


def content(annotations: Path) -> str:
    """What changes when annotations do, a file or the files in a folder: of other data, a stage does not go on."""
    whole = hashlib.sha256()
    for path in [annotations] if annotations.is_file() else sorted(filter(Path.is_file, annotations.iterdir())):
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:16]


def begun(start: str | None, parts: Sequence[str], settings: dict[str, Any], device: str) -> tuple[PixelReader, Any]:
    """The model that a stage begins with, and the default VLM where it stands on that: the one in the package, a folder
    of an earlier stage, or one put together from the names of a SAM, a vision model and a language model."""
    if start == DEFAULT or (start is not None and (Path(start) / ADAPTER).is_file()):
        vlm = load_vlm(DEFAULT, device)
        return Pixel(vlm, None if start == DEFAULT else start).reader, vlm
    from transformers import (
        AutoImageProcessor,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
        SamModel,
    )

    from wherein.methods.pixel.model import PixelLM

    if start is not None:
        model = PixelLM.from_pretrained(start)
        return PixelReader(model.to(device_for(device)), AutoTokenizer.from_pretrained(start)), None
    sam, vision, language = parts
    tokenizer = AutoTokenizer.from_pretrained(language)
    try:
        words: Any = AutoModelForSeq2SeqLM.from_pretrained(language)
    except ValueError:  # no encoder-decoder
        words = AutoModelForCausalLM.from_pretrained(language)
    seen: Any = None
    if vision != "-":
        seen, wants = AutoModel.from_pretrained(vision), AutoImageProcessor.from_pretrained(vision)
        settings = {**settings, "vision_mean": wants.image_mean, "vision_std": wants.image_std}
    model = assemble(words, SamModel.from_pretrained(sam), getattr(seen, "vision_model", seen), **settings)
    return PixelReader(model.to(device_for(device)), tokenizer), None


def schedule_of(stage: Stage, steps: int, seed: int) -> TrainConfig:
    """The published schedule, its warm-up in the same share of other steps."""
    return TrainConfig(
        steps,
        stage.rate,
        warmup=max(1, round(stage.warmup * steps / stage.steps)),
        final=0.0,
        weight_decay=stage.weight_decay,
        evaluate_every=min(500, steps),
        save_every=min(100, steps),
        seed=seed,
    )


def count(text: str) -> int:
    """A number of at least 1, as it was typed."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def options() -> argparse.ArgumentParser:
    """What can be said."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=STAGES, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model, checkpoints, log and pictures")
    for name, what in (("--data", "to learn from"), ("--held-out", "to be measured on")):
        parser.add_argument(
            name,
            nargs="+",
            action="append",
            default=[],
            metavar="KIND ANNOTATIONS IMAGES [SPLIT]",
            help=f"{what}; KIND is one of {', '.join(KINDS)}; IMAGES - if they lie by the annotations; may be repeated",
        )
    parser.add_argument("--skip-bad", action="store_true", help="tell of bad records and leave them out")
    parser.add_argument("--start", help='"default", the small model in the package, or the folder of an earlier stage')
    parser.add_argument("--parts", nargs=3, metavar=("SAM", "VISION", "LANGUAGE"), help="or names to begin from")
    parser.add_argument("--depth", type=int, help="of the extractor, with --parts: 2, the default, or 6 as released")
    parser.add_argument("--side", type=int, help="of the square, with --parts, pixels; default: 384")
    parser.add_argument("--targets", help="layers that get low-rank updates, with --parts; default: q,v")
    parser.add_argument("--proposals", type=int, help="width of the head that proposes, with --parts; default: none")
    parser.add_argument("--steps", type=count, help="other than the stage's")
    parser.add_argument("--batch", type=count, help="pictures a step of each process; default: its part of the stage's")
    parser.add_argument("--rate", type=float, help="peak learning rate, other than the stage's")
    parser.add_argument("--device", default="auto", help="cpu, cuda ...; auto takes the fastest there is")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def settings_of(given: argparse.Namespace) -> dict[str, Any]:
    """What a model put together from parts is to be, as `assemble` takes it.

    Raises InputError unless the model is given by exactly one of --start and --parts, and for what a model of --start
    cannot be told.
    """
    if (given.start is None) == (given.parts is None):
        raise InputError("A stage begins with a model: give --start or --parts, and not both.")
    typed = {name: getattr(given, name) for name in FROM_PARTS if getattr(given, name) is not None}
    if given.start is not None and typed:
        names = ", ".join(f"--{name}" for name in typed)
        raise InputError(f"The model of --start is what it is: leave out {names}, or begin from --parts.")
    chosen = FROM_PARTS | typed
    return {
        "side": chosen["side"],
        "extractor_depth": chosen["depth"],
        "proposal_dim": chosen["proposals"],
        "lora_targets": tuple(chosen["targets"].split(",")),
    }


def main() -> None:
    """Read the data, train, save."""
    given = options().parse_args()
    settings = settings_of(given)
    processes, stage = Processes(), STAGES[given.stage]
    batch = given.batch or max(1, stage.batch // processes.count)
    stage = replace(stage, rate=stage.rate if given.rate is None else given.rate)
    complaints = Complaints(tell)
    complain: Complain = complaints if given.skip_bad else refuse
    lessons, held_out = all_of(given.data, complain), all_of(given.held_out, complain)
    complaints.tell_the_rest()
    torch.manual_seed(given.seed)
    reader, vlm = begun(given.start, given.parts or (), settings, given.device)
    reader.model.train_stage(stage.trains)
    task = PhotographTask(reader, lessons, held_out, stage.data, batch, given.seed, tell)
    schedule = schedule_of(stage, given.steps or stage.steps, given.seed)
    data = [[row[0], Path(row[1]).name, content(Path(row[1])), *row[3:]] for row in given.data]
    about = {"stage": given.stage, "batch": batch, "start": given.start, "parts": given.parts, "data": data}
    about |= {name: getattr(reader.model.config, name) for name in SAID}
    figures = fit(task, schedule, given.out, resume=True, about=about, pace=stage.pace(reader.model))
    if processes.first:
        if set(figures) == {"loss"}:  # the run was at its end before
            figures |= task.evaluate(schedule.steps, given.out / "pictures")
        write(given.out, reader, vlm, {**about, **asdict(schedule)}, figures)
        print(json.dumps({"model": str(given.out), **about, **{k: round(v, 4) for k, v in figures.items()}}))


def tell(text: str) -> None:
    """Say what is wrong with the data."""
    print(text, file=sys.stderr)


def write(out: Path, reader: PixelReader, vlm: Any, about: dict[str, Any], figures: dict[str, float]) -> None:
    """The model as a folder that the next stage starts from; on the default VLM as an adapter of the method pixel."""
    if vlm is None:
        reader.model.save_pretrained(out)
        reader.tokenizer.save_pretrained(out)
        return
    reader.model.train_stage("words")
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in figures.items())
    said = f"# A pixel-aligned model trained on photographs\n\n{about}\n\n| figure | value |\n|---|---|\n{rows}\n"
    save_adapter(out, reader.model, vlm, said)


if __name__ == "__main__":
    try:
        main()
    except WhereinError as error:
        raise SystemExit(f"error: {error}") from None
