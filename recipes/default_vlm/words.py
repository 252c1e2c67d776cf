"""Second stage: teach the connector words, without the language model and without knowing where anything is.

Image-level multiple-instance learning on captions' nouns: each cell chooses among the bank's names and "nothing"
(softmax over token . name embedding). A cell may choose only what the caption names, and every named thing must be
chosen somewhere (its ten best cells count). No box, mask or position is read. Minutes on two cores, and the captions
then start from tokens that already look like words.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from composites import Composites
from torch import Tensor, nn

from wherein.vlm.default import DefaultVLM

PASTED, PROTOTYPES, BEST_CELLS = 48, 12, 10
RATE, SCALARS = 1e-3, 30  # the two scalars of the softmax need a rate of their own


def fit_words(vlm: DefaultVLM, images: Composites, steps: int, seed: int, path: Path) -> None:
    """Train `vlm.connector` (float32) in place, or load what an earlier call left in `path`."""
    connector = vlm.connector
    if path.exists():
        connector.load_state_dict(torch.load(path, weights_only=True))
        return
    index = {name: i for i, name in enumerate(vlm.vocabulary)}
    scalars = [connector.scale, connector.nothing]
    rest = [p for p in connector.parameters() if all(p is not s for s in scalars)]
    optimiser = torch.optim.Adam([{"params": rest, "base": RATE}, {"params": scalars, "base": SCALARS * RATE}])
    began, recent = time.time(), []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * min(1, (step + 1) / 20) * (0.02 + 0.49 * (1 + np.cos(np.pi * step / steps)))
        rng = np.random.default_rng([seed, 7, step])
        order = np.arange(step * PASTED, (step + 1) * PASTED) % len(images.things)
        batch = [images.pasted(int(i)) for i in order]
        batch += [images.prototype(rng) for _ in range(PROTOTYPES)]
        x = torch.stack([features for features, _ in batch]).float()
        with torch.autocast("cpu", torch.bfloat16):
            query = connector.query(x)
        chosen = connector.choices(query.float())
        missed, stray = losses(chosen, [[index[name] for name, _ in things] for _, things in batch])
        optimiser.zero_grad(set_to_none=True)
        (missed + stray).backward()
        nn.utils.clip_grad_norm_(rest, 1.0)
        optimiser.step()
        recent = [*recent[-19:], [missed.item(), stray.item()]]
        if step % 10 == 0:
            means, pace = np.mean(recent, axis=0), (time.time() - began) / (step + 1)
            print(f"words {step}/{steps} missed {means[0]:.3f} stray {means[1]:.3f} {pace:.2f} s/step", flush=True)
    torch.save(connector.state_dict(), path)


def losses(chosen: Tensor, nouns: list[list[int]]) -> tuple[Tensor, Tensor]:
    """(missed, stray) from log-probabilities float[B, N, V + 1] and the indices of each caption's nouns.

    missed: -log of the mean probability of a noun in its ten best cells; stray: -log of the probability that a cell
    chooses a noun of the caption or nothing.
    """
    allowed = torch.zeros(len(chosen), chosen.shape[-1], dtype=torch.bool)
    allowed[:, -1] = True
    missed = torch.zeros(())
    for i, (own, cells) in enumerate(zip(nouns, chosen.unbind(0), strict=True)):
        allowed[i, own] = True
        best = cells[:, own].topk(BEST_CELLS, dim=0).values.logsumexp(0) - np.log(BEST_CELLS)
        missed = missed - best.sum() / sum(map(len, nouns))
    return missed, -chosen.masked_fill(~allowed[:, None], -torch.inf).logsumexp(-1).mean()
