"""Is the caption model good enough to be unlocked? Two figures on fresh composites; the last line of stdout is JSON.

captions: share of the pasted objects that the greedy caption names (whole name, or its last word).
pointing: for composites of two or three objects, the share of objects in whose box the attention of the last token of
" In the image is a <name>" peaks, for each of the language model's heads; the best single head counts. Heads are chosen
on one half of the objects and measured on the other. pointing_numbers: the same where each of a box's four numbers is
about to be written, with made-up numbers before it: what is not looked up there cannot be unlocked.
"""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

import numpy as np
import torch

from wherein.boxtext import CODECS
from wherein.phrases import noun_phrase
from wherein.synth import AUGMENTED, Backgrounds, ObjectBank, compose, is_held_out
from wherein.vlm import device_for
from wherein.vlm.default import DefaultVLM
from wherein.vlm.prefix import Continuation


def named(name: str, caption: str) -> bool:
    """The caption holds the name or its head noun as whole words."""
    words = " ".join(re.findall(r"[a-z'-]+", caption.lower()))
    return any(re.search(rf"\b{re.escape(text)}\b", words) for text in (name, name.split()[-1]))


@torch.inference_mode()
def pointing(vlm: DefaultVLM, x_v: torch.Tensor, objects: list[Any], text: str) -> np.ndarray:
    """bool[objects, layers, heads]: the head's peak cell lies in the object's box, behind `text` with its {phrase}."""
    (rows, columns), prefix, hits = vlm.grid, vlm.prefix(x_v), []
    for thing in objects:
        found: list[torch.Tensor] = []
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


@torch.inference_mode()
def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="measure these instead of the shipped weights")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--backgrounds", help="folder of wallpapers; the shipped ones otherwise")
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    vlm = DefaultVLM(device_for(args.device), weights=args.weights)
    bank, rng = ObjectBank.load(), np.random.default_rng(args.seed)
    grounds = Backgrounds.from_folder(args.backgrounds) if args.backgrounds else Backgrounds.load()
    figures: dict[str, Any] = {"images": args.images, "seed": args.seed}
    for group, part in (("trained", bank.without(is_held_out)), ("held_out", bank.keep(lambda c: is_held_out(c.name)))):
        made = [compose(grounds.sample(rng, vlm.size[0]), part, rng, AUGMENTED) for _ in range(args.images)]
        x_v = torch.cat(
            [vlm.features(vlm.prepare([c.image for c in made[i : i + 16]])[0]) for i in range(0, len(made), 16)]
        )
        texts = []
        for i in range(0, len(made), 32):
            prefix = vlm.prefix(x_v[i : i + 32])
            rows = range(len(prefix.last))
            texts += vlm.continue_text(prefix, rows, [vlm.caption_prompt] * len(rows), 40)
        found = [named(thing.name, text) for c, text in zip(made, texts, strict=True) for thing in c.objects]
        figures[f"captions_{group}"] = round(float(np.mean(found)), 3)
        print(group, [(texts[i], [t.name for t in made[i].objects]) for i in range(8)])
        several = [i for i, c in enumerate(made) if len(c.objects) > 1][: args.images // 3]
        shares = []
        for text in questions(vlm):
            hits = np.concatenate([pointing(vlm, x_v[i : i + 1], made[i].objects, text) for i in several])
            shares.append(best_head(hits))
        figures[f"pointing_{group}"], figures[f"pointing_numbers_{group}"] = shares[0], shares[1:]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
