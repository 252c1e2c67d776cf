"""Train the default VLM's connector and LoRA, in three stages. See README.md for the command.

lookup: the LoRA alone, on made-up tokens. words: the connector alone, from the nouns of captions. captions: the LoRA
and the connector's style path, on captions of pasted composites and of prototypes; some of the steps are look-ups, on
made-up tokens and on the connector's own.
Composites are encoded once (the encoder is frozen). Encoding and each stage leave what is done in --work; the same
command resumes, one of other settings is refused. Look-ups and words do not need each other: with --only, two
processes learn them side by side in one --work, and the command without it goes on behind both. What made the weights
is written beside --out, as JSON.
All cores but a few make what is asked. The options' defaults are for a GPU: with --many 1, a step has a fourth of the
images.
"""

from __future__ import annotations

import argparse
import os
import time
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # processes that make images encode their own texts

import captions
import numpy as np
import record
import torch
from asked import Asked
from composites import Composites, Thing, shown
from learner import Learner
from lookup import Lookup
from sources import Sources
from words import fit_words

from wherein.errors import InputError, WhereinError
from wherein.synth.backgrounds import Backgrounds
from wherein.synth.negatives import is_absent
from wherein.synth.objects import ObjectBank
from wherein.training.sources import drawn_from
from wherein.vlm import device_for
from wherein.vlm.branches import Branch
from wherein.vlm.connector import Connector
from wherein.vlm.default import DefaultVLM

PASTED, PROTOTYPES, MADE_UP = 10, 3, 16  # images of a step: of a caption's, and of a look-up
ALIKE = 0.5  # in the lookup stage only: a model that has met it too often copies the smallest number as the largest
LARGEST, STYLE_NORM = 300, 0.8  # main directions of 1,280; norm of the style path in a token, where a word's is about 2
STYLE = 0.06  # of the LoRA's rate in the caption stage, for the style path; the words stay as they are
LEFT = ("captions.jsonl", "lookup.pt", "words.pt", "captions.pt")  # in --work, by a call before


class Questions:
    """What a step of each kind asks: a function of the seed and the step."""

    def __init__(self, vlm: DefaultVLM, names: tuple[str, ...], many: int, share: Fraction, seed: int) -> None:
        """`many`: how many times as many images a step has; for a GPU. `share`: of the caption stage, for look-ups."""
        self.vlm, self.names, self.many, self.share, self.seed = vlm, names, many, share, seed
        self.lookup = Lookup(vlm)

    def drill(self, step: int) -> Asked:
        """A look-up on made-up tokens alone."""
        return self.lookup.batch(self._rng(1, step), self.many * MADE_UP, ALIKE)

    def mixed(self, sources: Sources, step: int) -> Asked:
        """Captions, or, in its share of the steps, a look-up, half of it on the connector's own tokens."""
        if looks_up(step, self.share):
            return self.lookup.batch(self._rng(2, step), self.many * MADE_UP, 0.0, sources)
        rng, images = self._rng(3, step), sources.images
        batch = [images.unseen(rng) for _ in range(self.many * PASTED)]
        batch += [images.prototype(rng) for _ in range(self.many * PROTOTYPES)]
        cells = torch.stack([shown(rng, len(features)) for features, _ in batch])
        x_v = torch.stack([features[own] for (features, _), own in zip(batch, cells, strict=True)])
        return Asked(x_v, cells, [self._about(things, rng) for _, things in batch])

    def _about(self, things: list[Thing], rng: np.random.Generator) -> list[Branch]:
        """Caption, an attribute of each object where a colour dominates, presence of one object and of an absent name,
        and that one object carries no numbers."""
        vlm, here = self.vlm, [name for name, _ in things]
        rows = [captions.caption(vlm.encode, here, vlm.tokenizer.eos_token_id)]
        rows += [captions.attribute(vlm.encode, name, word) for name, word in things if word]
        rows.append(captions.presence(vlm.encode, here[rng.integers(len(here))], True))
        rows.append(captions.refusal(vlm.encode, vlm.locate_prompt, here[rng.integers(len(here))]))
        absent = self.names[rng.integers(len(self.names))]
        if is_absent(absent, here):
            rows.append(captions.presence(vlm.encode, absent, False))
        return rows

    def _rng(self, stage: int, step: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stage, step])


def looks_up(step: int, share: Fraction) -> bool:
    """Whether a step of the caption stage is of the `share` that are look-ups: they lie evenly among the others."""
    return (step + 1) * share // 1 > step * share // 1


@torch.no_grad()
def quiet_style(connector: Connector, images: Composites) -> None:
    """Start the style path on the directions in which features vary least, all but the LARGEST main ones.

    What they carry is then a faint noise to the language model, until training, or an insert, makes use of them.
    """
    sample = images.features[:: max(1, len(images.things) // 60)].to(connector.style.weight).flatten(0, 1)
    normed = connector.norm(sample)
    main = torch.linalg.eigh(torch.cov(normed.T)).eigenvectors[:, -LARGEST:]
    weight = connector.style.weight
    quiet = weight - (weight @ main) @ main.T
    weight.copy_(quiet * STYLE_NORM / (normed @ quiet.T).std(0).norm())


def train(args: argparse.Namespace) -> None:
    """Encode, train, resume, save, and write beside the weights what made them.

    Raises InputError for an --out, a --start or --images that do not do, and for files in --work that other settings
    made.
    """
    began, work, out = time.time(), Path(args.work), Path(args.out)
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out} must end in .safetensors: what made the weights is written to .json beside it.")
    if args.images < 2:
        raise InputError(f"--images {args.images} are too few: words are learnt on most, captions on the others.")
    for folder in (work, out.parent):
        folder.mkdir(parents=True, exist_ok=True)
    resumed = any((work / name).exists() for name in LEFT)
    torch.manual_seed(args.seed)
    vlm = DefaultVLM(device_for(args.device), trained=False)
    bank = ObjectBank.load() + ObjectBank.from_folder(args.extra) if args.extra else ObjectBank.load()
    grounds = Backgrounds.from_folder(args.backgrounds) if args.backgrounds else Backgrounds.load()
    settings = settings_of(args, bank, grounds)
    learner = begun(vlm, Path(args.start) if args.start else None)
    if not stages(learner, bank, grounds, args, settings):
        return
    learner.export(out)
    device = torch.cuda.get_device_name(vlm.device) if vlm.device.type == "cuda" else vlm.device.type
    made = {"settings": {**settings, **steps_of(args)}, "licences": bank.licences, "device": device, "resumed": resumed}
    record.write(out, {**made, "minutes": round((time.time() - began) / 60, 1)})


def settings_of(args: argparse.Namespace, bank: ObjectBank, grounds: Backgrounds) -> dict[str, Any]:
    """What every stage hangs on. Raises InputError for a --start that cannot be read."""
    start = record.digest(Path(args.start)) if args.start else None
    given = {"seed": args.seed, "many": args.many, "images": args.images, "start": start, "rate": args.rate}
    return {**given, "lookup share": str(args.lookup_share), **drawn_from(bank, grounds)}


def begun(vlm: DefaultVLM, start: Path | None) -> Learner:
    """The model with a LoRA and a float32 connector, as they begin, or as `start` has them."""
    learner = Learner(vlm)
    vlm.connector.float().requires_grad_(True)
    vlm.connector.register_forward_pre_hook(lambda _, a: (a[0].float(),))
    vlm.connector.register_forward_hook(lambda _, __, out: out.to(vlm.dtype))
    if start is not None:
        learner.load(start)
    return learner


def stages(
    learner: Learner, bank: ObjectBank, grounds: Backgrounds, args: argparse.Namespace, settings: dict[str, Any]
) -> bool:
    """Train in place; whether all stages are done. Raises InputError for checkpoints of other settings."""
    vlm, work = learner.vlm, Path(args.work)
    questions = Questions(vlm, bank.names, args.many, args.lookup_share, args.seed)
    if args.only != "words":
        learner.fit(questions.drill, args.lookup_steps, args.rate, 0, work / "lookup.pt", settings)
    if args.only == "lookup":
        return False
    images = Composites(vlm, bank, grounds, args.images, args.seed, work, bool(args.word_steps))
    fit_words(vlm, images, args.word_steps, args.seed, work / "words.pt", settings)
    if args.only == "words":
        return False
    if args.word_steps and not args.start:
        quiet_style(vlm.connector, images)
    mixed = partial(questions.mixed, Sources(images))
    learner.fit(mixed, args.steps, args.rate, STYLE, work / "captions.pt", {**settings, **steps_of(args)})
    return True


def steps_of(args: argparse.Namespace) -> dict[str, int]:
    """How many steps each stage has."""
    return {"lookup steps": args.lookup_steps, "word steps": args.word_steps, "steps": args.steps}


def share(text: str) -> Fraction:
    """What the command line has for a share, such as 3/4 or 0.75."""
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share: write 1/3, say.")
    return value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--extra", help="folder of further cut-outs")
    parser.add_argument("--backgrounds", help="folder of wallpapers")
    parser.add_argument("--start", help="go on from these weights; in a --work and with a --seed of its own")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--many", type=int, default=4, help="times as many images a step")
    parser.add_argument("--rate", type=float, default=1e-3, help="of the LoRA; steps of --many 1 want half of it")
    parser.add_argument("--lookup-share", type=share, default=Fraction(1, 2), help="of --steps, say 3/4")
    parser.add_argument("--images", type=int, default=60000)
    parser.add_argument("--word-steps", type=int, default=4000)
    parser.add_argument("--lookup-steps", type=int, default=3500)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--only", choices=("lookup", "words"), help="this stage alone; each can go beside the other")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, help="file of the weights, .safetensors")
    try:
        train(parser.parse_args())
    except WhereinError as error:
        raise SystemExit(f"error: {error}") from None
