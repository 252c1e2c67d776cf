"""Train a small pixel-aligned model on composites, save it as an adapter and print its figures; see README.md.

The same command goes on where a killed run stopped. The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from composed import SEED, Stores, stores

from wherein.boxtext import CODECS
from wherein.errors import InputError, WhereinError
from wherein.methods.pixel.method import begin, save
from wherein.methods.pixel.reader import PixelReader
from wherein.training.pixel import PixelRecipe, PixelTask, measure
from wherein.training.trainer import TrainConfig, fit
from wherein.vlm import load_vlm

SIZES = {"tokens": 16, "lora_rank": 8, "proposal_dim": 128}
"""Half of the published visual tokens, a quarter of the rank: of an adapter below 25 MB, and of a cheaper step."""
BOXES = {"points": None, "string": CODECS["0-100"], "bins": CODECS["ranges"]}
"""How the box of a phrase is given: read by the point head; as numbers of percent, digit by digit; as one of ten bins a
coordinate, each a token."""


def figures_of(task: PixelTask, kinds: Stores, count: int) -> dict[str, dict[str, float]]:
    """The figures of `measure` on both kinds of composites that were not trained on."""
    return {
        name: {key: round(value, 4) for key, value in measure(task.reader, store, count, SEED, task.codec).items()}
        for name, store in (("held_out", kinds.held_out), ("known", kinds.known))
    }


def card(
    about: dict[str, object],
    licences: str,
    schedule: TrainConfig,
    device: torch.device,
    figures: dict[str, dict[str, float]],
    count: int,
) -> str:
    """What is to be known of the adapter."""
    rows = "\n".join(
        f"| {key} | {figures['held_out'][key]:.3f} | {figures['known'][key]:.3f} |" for key in figures["known"]
    )
    return f"""# A small pixel-aligned model on the default model's parts

Trained with `recipes/pixel_small` on self-made composites and narratives; no labelled box and no written caption was
used, and no category of COCO or VOC was pasted in training.

- data and rows of a step: {about}
- licences of the cut-outs pasted in training: {licences}
- training: {schedule}
- device of the last steps: {device}

Figures on {count} composites each, of COCO's and VOC's categories and of those trained; what they mean is said in
`wherein.training.pixel.measure`:

| figure | held out | known |
|---|---|---|
{rows}
"""


def shorten(reader: PixelReader, layers: int) -> None:
    """Leave the language model its first layers only. Raises InputError where it has fewer."""
    decoder = reader.model.language_model.get_decoder()
    if not 0 < layers <= len(decoder.layers):
        raise InputError(f"The language model has {len(decoder.layers)} layers: --layers takes one of them or more.")
    decoder.layers = decoder.layers[:layers]
    decoder.config.num_hidden_layers = layers


def main() -> None:
    """Compose, encode, train, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the adapter, checkpoints, log and pictures")
    parser.add_argument("--objects", type=Path, help="folder of further cut-outs")
    parser.add_argument("--backgrounds", type=Path, help="folder of background photographs")
    parser.add_argument("--cache", type=Path, help="folder of encoded composites; default: OUT/cache")
    parser.add_argument("--images", type=int, default=4000, help="composites to train on")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--many", type=int, default=1, help="times as many rows a step: for a GPU")
    parser.add_argument("--rate", type=float, default=5e-4, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0, help="of the start and of the rows")
    parser.add_argument("--rank", type=int, default=SIZES["lora_rank"], help="of the updates; ablation: 0, none")
    parser.add_argument("--layers", type=int, help="ablation: the first so many of the language model's layers alone")
    parser.add_argument("--boxes", choices=BOXES, default="points", help="ablation: boxes of phrases written as text")
    parser.add_argument("--device", default="auto", help="cpu, cuda ...; auto takes the fastest there is")
    parser.add_argument("--sparse", action="store_true", help="ablation: no places of narratives' words are learnt")
    given = parser.parse_args()
    vlm = load_vlm("default", given.device)
    cache = given.cache or given.out / "cache"
    kinds = stores(vlm, cache, given.images, given.objects, given.backgrounds).build()
    torch.manual_seed(given.seed)
    sizes = {**SIZES, "lora_rank": given.rank}
    reader = begin(vlm, **sizes)
    if given.layers is not None:
        shorten(reader, given.layers)
    if vlm.device.type == "cpu":  # there, a third faster than the fused kernel
        reader.model.language_model.set_attn_implementation("eager")
    rows = {name: given.many * getattr(PixelRecipe, name) for name in ("images", "regions", "phrases")}
    recipe = PixelRecipe(**rows, dense=not given.sparse)
    task = PixelTask(reader, recipe, kinds.train, kinds.held_out, kinds.known, given.seed, BOXES[given.boxes])
    schedule = TrainConfig(given.steps, given.rate, warmup=100, evaluate_every=250, save_every=50, seed=given.seed)
    about = {**asdict(recipe), **sizes, "composites": given.images, **kinds.drawn_from}
    about |= {} if given.boxes == "points" else {"boxes": given.boxes}
    about |= {} if given.layers is None else {"layers": given.layers}
    fit(task, schedule, given.out, resume=True, about={**about, "model fingerprint": vlm.fingerprint})
    with torch.no_grad():
        for part in reader.model.kept().values():  # as they are written, so that the figures are those of the file
            part.copy_(part.half())
    count = kinds.held_out.count
    figures = figures_of(task, kinds, count)
    if given.boxes == "points" and given.layers is None:  # the others are ablations, which the method could not read
        save(given.out, reader.model, vlm, card(about, kinds.licences, schedule, vlm.device, figures, count))
    print(json.dumps({"adapter": str(given.out), **about, **figures}))


if __name__ == "__main__":
    try:
        main()
    except WhereinError as error:
        raise SystemExit(f"error: {error}") from None
