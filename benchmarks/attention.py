"""Is grouped attention worth its file? The last line of stdout is JSON: median seconds, and grouped to the others.

Forward and backward of the built-in language model over eight sequences of 170 embeddings with a packed mask, as in a
training step, with each attention in turn. `largest_difference` is between the gradients of grouped and eager,
relative to the largest gradient (the model computes in bfloat16).
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median
from typing import Any

import torch
from torch import Tensor

from wherein.vlm.attention import NAME
from wherein.vlm.default import DefaultVLM
from wherein.vlm.packing import Branch, pack

KINDS = {"grouped": NAME, "eager": "eager", "sdpa": "sdpa"}
BATCH, IMAGE_TOKENS, BRANCHES, BRANCH = 8, 100, 4, 17  # 100 + 2 shared + 4 x 17 = 170 tokens


def inputs(model: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Random embeddings float[B, S, D], the mask float[B, 1, S, S] of packed branches, and positions int64[B, S]."""
    branches = [Branch(tuple(range(5)), tuple(range(BRANCH - 5)))] * BRANCHES
    packed = pack(IMAGE_TOKENS, (1, 2), [branches] * BATCH)
    dtype = model.dtype
    mask = torch.zeros(packed.mask.shape, dtype=dtype).masked_fill(~packed.mask, torch.finfo(dtype).min)
    generator = torch.Generator().manual_seed(0)
    embeds = torch.randn(BATCH, mask.shape[-1], model.config.hidden_size, generator=generator).to(dtype)
    return embeds, mask, packed.positions


def step(model: Any, kind: str, embeds: Tensor, mask: Tensor, positions: Tensor) -> tuple[float, Tensor]:
    """(seconds, gradient of the input) of one forward and backward."""
    model.set_attn_implementation(kind)
    leaf = embeds.clone().requires_grad_()
    began = time.perf_counter()
    hidden = model.get_decoder()(
        inputs_embeds=leaf, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    hidden.float().square().mean().backward()
    assert leaf.grad is not None
    return time.perf_counter() - began, leaf.grad


def main() -> None:
    """Parse, load, measure in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    model = DefaultVLM(trained=False).language_model
    prepared = inputs(model)
    gradients = {name: step(model, kind, *prepared)[1].float() for name, kind in KINDS.items()}  # and warm-up
    times: dict[str, list[float]] = {name: [] for name in KINDS}
    for _ in range(args.times):
        for name, kind in KINDS.items():
            times[name].append(step(model, kind, *prepared)[0])
    figures: dict[str, Any] = {name: round(median(values), 3) for name, values in times.items()}
    for name in ("eager", "sdpa"):
        ratio = median(ours / theirs for ours, theirs in zip(times["grouped"], times[name], strict=True))
        figures[f"grouped_to_{name}"] = round(ratio, 3)
    difference = (gradients["grouped"] - gradients["eager"]).abs().max() / gradients["eager"].abs().max()
    figures["largest_difference"] = round(float(difference), 4)
    print(json.dumps({**figures, "tokens": prepared[0].shape[1], "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
