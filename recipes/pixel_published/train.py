"""Train a stage of the pixel-aligned language model on photographs that people described; see README.md.

The same command goes on where a killed run stopped. The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from wherein.checkpoints import device_for
from wherein.data import open_dataset, read_narratives
from wherein.data.captions import read_captions
from wherein.errors import InputError, WhereinError
from wherein.methods.pixel import Pixel
from wherein.methods.pixel.method import save as save_adapter
from wherein.methods.pixel.parts import assemble
from wherein.methods.pixel.reader import PixelReader
from wherein.training.lessons import KINDS, Captions, Narratives, Phrases, Regions, Source
from wherein.training.photographs import PhotographTask
from wherein.training.processes import Processes
from wherein.training.stages import STAGES, Stage
from wherein.training.trainer import TrainConfig, fit
from wherein.vlm import load_vlm

Given = Sequence[Sequence[str]]  # kind, annotations, images
DEFAULT = "default"


def source_of(kind: str, annotations: Path, images: Path | None) -> Source:
    """The lessons in a data set: narratives and captions from a file and the folder of its images, all else from
    whatever `wherein eval` reads. Raises InputError for an unknown kind."""
    if kind in ("narratives", "captions"):
        if images is None:
            raise InputError(f"Data of {kind} need the folder of their images.")
        if kind == "narratives":
            return Narratives(read_narratives(annotations, images))
        return Captions(read_captions(annotations, images))
    samples = open_dataset(annotations, images, "auto", None).samples
    made: dict[str, Callable[[], Source]] = {
        "phrases": lambda: Phrases(samples()),
        "masks": lambda: Phrases(samples(), masks=True),
        "regions": lambda: Regions(samples()),
    }
    if kind not in made:
        raise InputError(f"There are no lessons of the kind {kind!r}: choose {', '.join(KINDS)}.")
    return made[kind]()


def sources_of(given: Given) -> dict[str, list[Source]]:
    """All of them, by kind."""
    found: dict[str, list[Source]] = defaultdict(list)
    for kind, labels, images in given:
        found[kind].append(source_of(kind, Path(labels), None if images == "-" else Path(images)))
    return found


def begun(start: str | None, parts: Sequence[str], settings: dict[str, Any], device: str) -> tuple[PixelReader, Any]:
    """The model that a stage begins with, and the default VLM where it stands on that: the one in the package, a folder
    of an earlier stage, or one put together from the names of a SAM, a vision model and a language model."""
    if start == DEFAULT:
        vlm = load_vlm(DEFAULT, device)
        return Pixel(vlm).reader, vlm
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, SamModel

    from wherein.methods.pixel.model import PixelLM

    if start is not None:
        reader = PixelReader(PixelLM.from_pretrained(start), AutoTokenizer.from_pretrained(start))
        return reader, None
    sam, vision, language = parts
    tokenizer = AutoTokenizer.from_pretrained(language)
    try:
        words: Any = AutoModelForSeq2SeqLM.from_pretrained(language)
    except ValueError:  # no encoder-decoder
        words = AutoModelForCausalLM.from_pretrained(language)
    seen: Any = None if vision == "-" else AutoModel.from_pretrained(vision)
    model = assemble(words, SamModel.from_pretrained(sam), getattr(seen, "vision_model", seen), **settings)
    return PixelReader(model, tokenizer), None


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


def options() -> argparse.ArgumentParser:
    """What can be said."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=STAGES, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model, checkpoints, log and pictures")
    kinds = ", ".join(KINDS)
    for name, what in (("--data", "to learn from"), ("--held-out", "to be measured on")):
        parser.add_argument(
            name,
            nargs=3,
            action="append",
            default=[],
            metavar=("KIND", "ANNOTATIONS", "IMAGES"),
            help=f"{what}; KIND is one of {kinds}; - for images that lie beside the annotations; may be repeated",
        )
    parser.add_argument("--start", help="folder of an earlier stage; default: the small model in the package")
    parser.add_argument("--parts", nargs=3, metavar=("SAM", "VISION", "LANGUAGE"), help="or names to begin from")
    parser.add_argument("--depth", type=int, default=2, help="of the extractor, with --parts: 2, or 6 as released")
    parser.add_argument("--side", type=int, default=384, help="of the square, with --parts, pixels")
    parser.add_argument("--targets", default="q,v", help="layers that get low-rank updates, with --parts")
    parser.add_argument("--proposals", type=int, default=0, help="width of the head that proposes, with --parts")
    parser.add_argument("--steps", type=int, help="other than the stage's")
    parser.add_argument("--batch", type=int, help="pictures a step and process, other than the stage's")
    parser.add_argument("--rate", type=float, help="peak learning rate, other than the stage's")
    parser.add_argument("--device", default="auto", help="cpu, cuda ...; auto takes the fastest there is")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main() -> None:
    """Read the data, train, save."""
    given = options().parse_args()
    if (given.start is None) == (given.parts is None):
        raise InputError("A stage begins with a model: give --start or --parts, and not both.")
    processes, stage = Processes(), STAGES[given.stage]
    stage = replace(stage, batch=given.batch or stage.batch, rate=given.rate or stage.rate)
    sources, held_out = sources_of(given.data), sources_of(given.held_out)
    torch.manual_seed(given.seed)
    settings = {"side": given.side, "extractor_depth": given.depth, "proposal_dim": given.proposals}
    settings["lora_targets"] = tuple(given.targets.split(","))
    reader, vlm = begun(given.start, given.parts or (), settings, given.device)
    if vlm is None:
        reader.model.to(device_for(given.device))
    reader.model.train_stage(stage.trains)
    task = PhotographTask(reader, sources, held_out, stage.data, stage.batch, given.seed)
    schedule = schedule_of(stage, given.steps or stage.steps, given.seed)
    about = {"stage": given.stage, "batch": stage.batch, "start": given.start, "parts": given.parts}
    figures = fit(task, schedule, given.out, resume=True, about=about, pace=stage.pace(reader.model))
    if processes.first:
        write(given.out, reader, vlm, {**about, **asdict(schedule)}, figures)
        print(json.dumps({"model": str(given.out), **about, **{k: round(v, 4) for k, v in figures.items()}}))


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
