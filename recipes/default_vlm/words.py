"""Second stage: teach the connector words, without the language model and without knowing where anything is.

Image-level multiple-instance learning on captions' nouns. Every named thing must be chosen somewhere (its ten best
cells count); a cell is either what the caption names, or nothing, or what the encoder took it for. Images without a
caption, bare backgrounds and prototypes, have to stay as the encoder sees them: that keeps in the connector what the
encoder knows of photographs, where the composites are clip art and emoji. No box, mask or position is read.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from composites import Composites
from torch import Tensor, nn

from wherein.vlm.default import DefaultVLM

PASTED, PLAIN, PROTOTYPES, BEST_CELLS = 48, 8, 16, 10
ALONE = 0.3  # a cell of a captioned image that is left alone counts this much beside a noun or nothing
RATE = 1e-3


def fit_words(vlm: DefaultVLM, images: Composites, steps: int, seed: int, path: Path) -> None:
    """Train `vlm.connector` (float32) in place, or load what an earlier call left in `path`."""
    connector = vlm.connector
    if path.exists():
        connector.load_state_dict(torch.load(path, weights_only=True))
        return
    entries = {name: vlm.entries(name) for name in dict.fromkeys(name for image in images.things for name, _ in image)}
    optimiser = torch.optim.Adam(connector.parameters())
    began, recent = time.time(), []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 20) * (0.02 + 0.49 * (1 + np.cos(np.pi * step / steps)))
        rng = np.random.default_rng([seed, 7, step])
        order = np.arange(step * PASTED, (step + 1) * PASTED) % len(images.things)
        batch = [images.pasted(int(i)) for i in order]
        batch += [(images.plain[i], []) for i in rng.integers(len(images.plain), size=PLAIN)]
        batch += [(images.prototype(rng)[0], []) for _ in range(PROTOTYPES)]
        x = torch.stack([features for features, _ in batch]).float()
        with torch.autocast("cpu", torch.bfloat16):
            chosen = connector.choices(x)
        seen = connector.seen(x).log_softmax(-1)
        missed, stray = losses(chosen, seen, [[entries[name] for name, _ in things] for _, things in batch])
        optimiser.zero_grad(set_to_none=True)
        (missed + stray).backward()
        nn.utils.clip_grad_norm_(connector.parameters(), 1.0)
        optimiser.step()
        recent = [*recent[-19:], [missed.item(), stray.item()]]
        if step % 10 == 0:
            means, pace = np.mean(recent, axis=0), (time.time() - began) / (step + 1)
            print(f"words {step}/{steps} missed {means[0]:.3f} stray {means[1]:.3f} {pace:.2f} s/step", flush=True)
    torch.save(connector.state_dict(), path)


def losses(chosen: Tensor, seen: Tensor, nouns: list[list[list[int]]]) -> tuple[Tensor, Tensor]:
    """(missed, stray) from log-probabilities float[B, N, E], the encoder's own, and the words of each caption's nouns.

    missed: -log of the mean probability of a noun in its ten best cells; stray: -log of the probability that a cell
    is a noun of the caption or nothing, or that it is left alone, exp(-KL(seen || chosen)).
    """
    left_alone = -(seen.exp() * (seen - chosen)).sum(-1)
    missed, stray = torch.zeros(()), torch.zeros(())
    for own, cells, alone in zip(nouns, chosen.unbind(0), left_alone.unbind(0), strict=True):
        if own:
            each = torch.stack([cells[:, entries].logsumexp(-1) for entries in own], dim=1)
            best = each.topk(BEST_CELLS, dim=0).values.logsumexp(0) - np.log(BEST_CELLS)
            missed = missed - best.sum() / sum(map(len, nouns))
            said = [*sorted({entry for entries in own for entry in entries}), cells.shape[-1] - 1]
            alone = torch.logaddexp(cells[:, said].logsumexp(-1), alone + np.log(ALONE))
        stray = stray - alone.mean() / len(nouns)
    return missed, stray
