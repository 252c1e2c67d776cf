"""Train the default VLM's connector and LoRA, in three stages. See README.md for the command.

lookup: the LoRA alone, on made-up tokens. words: the connector alone, from the nouns of captions. captions: the LoRA
and the connector's style path, on captions of pasted composites and of prototypes; every third step is a look-up, on
made-up tokens and on the connector's own.
Composites are encoded once (the encoder is frozen). Each stage leaves a checkpoint in --work; the same command resumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import captions
import numpy as np
import torch
from composites import Composites, Thing
from learner import Learner
from lookup import Lookup
from torch import Tensor
from words import fit_words

from wherein.synth.backgrounds import Backgrounds
from wherein.synth.objects import ObjectBank
from wherein.vlm.branches import Branch
from wherein.vlm.connector import Connector
from wherein.vlm.default import DefaultVLM

PASTED, PROTOTYPES, CELLS = 10, 3, 60
LOOKUP_EVERY = 3  # of the caption steps, one is a look-up
ALIKE = 0.5  # in the lookup stage only: a model that has met it too often copies the smallest number as the largest
RATE = 1e-3
LOUD, STYLE_NORM = 300, 0.8  # main directions of 1,280; norm of the style path in a token, where a word's is about 2
STYLE = 0.06  # of the LoRA's rate in the caption stage, for the style path; the words stay as they are


def branches(things: list[Thing], names: tuple[str, ...], rng: np.random.Generator, vlm: DefaultVLM) -> list[Branch]:
    """Caption, an attribute of each object where a colour dominates, presence of one object and of an absent name, and
    that one object carries no numbers."""
    here = [name for name, _ in things]
    rows = [captions.caption(vlm.encode, here, vlm.tokenizer.eos_token_id)]
    rows += [captions.attribute(vlm.encode, name, word) for name, word in things if word]
    rows.append(captions.presence(vlm.encode, here[rng.integers(len(here))], True))
    rows.append(captions.refusal(vlm.encode, vlm.locate_prompt, here[rng.integers(len(here))]))
    absent = names[rng.integers(len(names))]
    if absent not in here:
        rows.append(captions.presence(vlm.encode, absent, False))
    return rows


def caption_loss(
    vlm: DefaultVLM, images: Composites, names: tuple[str, ...], rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """One step on images, each shown through CELLS of its cells drawn at random: half the cost, and a regulariser."""
    order = rng.integers(len(images.things), size=PASTED)
    batch = [images.pasted(int(i)) for i in order] + [images.prototype(rng) for _ in range(PROTOTYPES)]
    whole = vlm.grid[0] * vlm.grid[1]
    cells = torch.from_numpy(np.sort(np.stack([rng.permutation(whole)[:CELLS] for _ in batch]), axis=1))
    x_v = torch.stack([features[own] for (features, _), own in zip(batch, cells, strict=True)])
    rows = [branches(things, names, rng, vlm) for _, things in batch]
    return vlm.loss(vlm.prefix(x_v, cells=cells), rows)


def lookup_loss(
    vlm: DefaultVLM, lookup: Lookup, rng: np.random.Generator, alike: float, images: Composites | None = None
) -> tuple[Tensor, Tensor]:
    """One step on made-up images, their tokens put in the place of the connector's."""
    tokens, cells, rows = lookup.batch(rng, alike, images)
    with vlm.seam("connector_tokens", lambda _: tokens):
        prefix = vlm.prefix(torch.zeros(*cells.shape, vlm.feature_dim), cells=cells)
    return vlm.loss(prefix, rows)


@torch.no_grad()
def quiet_style(connector: Connector, images: Composites) -> None:
    """Start the style path on the directions in which features vary least, all but the LOUD main ones.

    What they carry is then a faint noise to the language model, until training, or an insert, makes use of them.
    """
    sample = images.features[:: max(1, len(images.things) // 60)].float().flatten(0, 1)
    normed = connector.norm(sample)
    main = torch.linalg.eigh(torch.cov(normed.T)).eigenvectors[:, -LOUD:]
    weight = connector.style.weight
    quiet = weight - (weight @ main) @ main.T
    weight.copy_(quiet * STYLE_NORM / (normed @ quiet.T).std(0).norm())


def train(args: argparse.Namespace) -> None:
    """Encode, train, resume, save."""
    torch.manual_seed(args.seed)
    work, vlm = Path(args.work), DefaultVLM(trained=False)
    bank = ObjectBank.load() + ObjectBank.from_folder(args.extra) if args.extra else ObjectBank.load()
    grounds = Backgrounds.from_folder(args.backgrounds) if args.backgrounds else Backgrounds.load()
    images = Composites(vlm, bank, grounds, args.images, args.seed, work)
    learner = Learner(vlm)
    vlm.connector.float().requires_grad_(True)
    vlm.connector.register_forward_pre_hook(lambda _, a: (a[0].float(),))
    vlm.connector.register_forward_hook(lambda _, __, out: out.to(torch.bfloat16))
    if args.start:
        learner.load(Path(args.start))
    lookup = Lookup(vlm)

    def rng(stage: int, step: int) -> np.random.Generator:
        return np.random.default_rng([args.seed, stage, step])

    learner.fit(lambda i: lookup_loss(vlm, lookup, rng(1, i), ALIKE), args.lookup_steps, RATE, 0, work / "lookup.pt")
    if args.word_steps:
        fit_words(vlm, images, args.word_steps, args.seed, work / "words.pt")
        quiet_style(vlm.connector, images)

    def mixed(step: int) -> tuple[Tensor, Tensor]:
        if step % LOOKUP_EVERY == LOOKUP_EVERY - 1:
            return lookup_loss(vlm, lookup, rng(2, step), 0.0, images)
        return caption_loss(vlm, images, bank.names, rng(3, step))

    learner.fit(mixed, args.steps, RATE, STYLE, work / "captions.pt")
    learner.export(Path(args.out))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--extra", help="folder of further cut-outs")
    parser.add_argument("--backgrounds", help="folder of wallpapers")
    parser.add_argument("--start", help="weights of an earlier run to go on from; --word-steps 0 keeps its connector")
    parser.add_argument("--images", type=int, default=24000)
    parser.add_argument("--word-steps", type=int, default=700)
    parser.add_argument("--lookup-steps", type=int, default=600)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True)
    train(parser.parse_args())
