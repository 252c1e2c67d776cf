"""Second stage: teach the connector words, without the language model and without knowing where anything is.

Image-level multiple-instance learning on captions' nouns. Every named thing must be chosen somewhere (its best cells
count), and be what the image as a whole is likely to show; a cell is either what the caption names, or nothing, or
what the encoder took it for. Images without a caption, bare backgrounds and prototypes, have to stay as the encoder
sees them: that keeps in the connector what the encoder knows of photographs, where the composites are clip art and
emoji. No box, mask or position is read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import checkpoint
import numpy as np
import torch
from composites import Composites, Thing, shown
from torch import Tensor, nn

from wherein.vlm.connector import SHARE, likely
from wherein.vlm.default import DefaultVLM

PASTED, PLAIN, PROTOTYPES = 36, 6, 12
BEST = 0.08  # of the cells, which count for a noun: an object of a quarter of the side fills as many
ALONE = 0.3  # a cell of a captioned image that is left alone counts this much beside a noun or nothing
RATE = 8e-4


class Losses(NamedTuple):
    """float32[] each. missed: -log of the mean probability of a noun in its best cells · stray: -log of the probability
    that a cell is a noun of the caption or nothing, or that it is left alone, exp(-KL(seen || chosen)) · unlikely: -log
    of a noun's probability for the whole image; without a caption, KL of the encoder's own view and the connector's."""

    missed: Tensor
    stray: Tensor
    unlikely: Tensor


def fit_words(
    vlm: DefaultVLM, images: Composites, steps: int, seed: int, path: Path, settings: Mapping[str, Any]
) -> None:
    """Train `vlm.connector` (float32) in place.

    A checkpoint every minute and at the end goes to `path`, from which a later call of the same `settings` goes on; a
    stage of 0 steps reads and writes nothing. Raises InputError for a checkpoint of other settings.
    """
    if not steps:
        return
    connector, settings = vlm.connector, {**settings, "steps": steps}
    entries = {name: vlm.entries(name) for name in dict.fromkeys(name for image in images.things for name, _ in image)}
    optimiser = torch.optim.Adam(connector.parameters())
    first, recent = _restore(connector, optimiser, path, settings), list[Tensor]()
    began = saved = time.time()
    for step in range(first, steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 20) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))
        batch = _drawn(images, seed, step)
        x = torch.stack([features for features, _ in batch]).to(vlm.device).float()
        with torch.autocast(vlm.device.type, torch.bfloat16, enabled=vlm.dtype == torch.bfloat16):
            seen = connector.seen(x)
            evidence = seen + connector.learnt(x)
        found = losses(evidence.float(), seen.float(), [[entries[name] for name, _ in things] for _, things in batch])
        optimiser.zero_grad(set_to_none=True)
        sum(found).backward()
        nn.utils.clip_grad_norm_(connector.parameters(), 1.0)
        optimiser.step()
        recent = [*recent[-19:], torch.stack(found).detach()]
        if step % 10 == 0:
            means, pace = torch.stack(recent).mean(0).tolist(), (time.time() - began) / (step - first + 1)
            told = " ".join(f"{name} {value:.3f}" for name, value in zip(Losses._fields, means, strict=True))
            print(f"words {step}/{steps} {told} {pace:.3f} s/step", flush=True)
        if time.time() - saved > checkpoint.SAVE_AFTER or step + 1 == steps:
            states = {"connector": connector.state_dict(), "optimiser": optimiser.state_dict()}
            checkpoint.save(path, settings, step + 1, **states)
            saved = time.time()


def _drawn(images: Composites, seed: int, step: int) -> list[tuple[Tensor, list[Thing]]]:
    """The images of a step, some of their cells, and their nouns: composites in turn, and, without a noun, backgrounds
    and prototypes."""
    rng = np.random.default_rng([seed, 7, step])
    order = np.arange(step * PASTED, (step + 1) * PASTED) % len(images.known)
    batch = [images.pasted(int(i)) for i in order]
    batch += [(images.plain[i], []) for i in rng.integers(len(images.plain), size=PLAIN)]
    batch += [(images.prototype(rng)[0], []) for _ in range(PROTOTYPES)]
    return [(features[shown(rng, len(features))], things) for features, things in batch]


def _restore(connector: nn.Module, optimiser: torch.optim.Optimizer, path: Path, settings: Mapping[str, Any]) -> int:
    """Load the checkpoint if there is one; the steps done."""
    saved = checkpoint.restore(path, settings, next(connector.parameters()).device)
    if saved is None:
        return 0
    connector.load_state_dict(saved["connector"])
    optimiser.load_state_dict(saved["optimiser"])
    return int(saved["step"])


def losses(evidence: Tensor, seen: Tensor, nouns: list[list[list[int]]]) -> Losses:
    """Of the connector's evidence float32[B, N, W + 1], the encoder's own, and the words of each caption's nouns."""
    chosen, before = evidence.log_softmax(-1), seen.log_softmax(-1)
    alone = -(before.exp() * (before - chosen)).sum(-1)
    whole = likely(evidence[..., :-1], SHARE)
    flat = [(row, words) for row, own in enumerate(nouns) for words in own]
    captioned = torch.tensor([bool(own) for own in nouns], device=evidence.device)
    missed = unlikely = evidence.new_zeros(())
    if flat:
        rows, words, real = _table(flat, evidence.device)
        lost, cells = torch.where(real, 0.0, -torch.inf), torch.arange(chosen.shape[1], device=chosen.device)
        each = (chosen[rows[:, None, None], cells[:, None], words[:, None]] + lost[:, None]).logsumexp(-1)
        best = max(1, round(BEST * each.shape[1]))
        missed = -(each.topk(best, dim=1).values.logsumexp(1) - np.log(best)).mean()
        unlikely = -(whole[rows].gather(-1, words) + lost).logsumexp(-1).mean()
        said = torch.zeros(len(nouns), evidence.shape[-1], dtype=torch.bool, device=evidence.device)
        said[:, -1] = True
        said[rows[:, None].expand_as(words)[real], words[real]] = True
        named = chosen.masked_fill(~said[:, None], -torch.inf).logsumexp(-1)
        alone = torch.where(captioned[:, None], torch.logaddexp(named, alone + np.log(ALONE)), alone)
    if not captioned.all():
        own_view = likely(seen[~captioned][..., :-1], SHARE)
        unlikely = unlikely + (own_view.exp() * (own_view - whole[~captioned])).sum(-1).mean()
    return Losses(missed, -alone.mean(), unlikely)


def _table(flat: list[tuple[int, list[int]]], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The row of each noun int64[K], its words int64[K, M], and which of these are no filling bool[K, M]."""
    longest = max(len(words) for _, words in flat)
    words = torch.tensor([[*words, *[0] * (longest - len(words))] for _, words in flat], device=device)
    real = torch.arange(longest, device=device) < torch.tensor([[len(words)] for _, words in flat], device=device)
    return torch.tensor([row for row, _ in flat], device=device), words, real
