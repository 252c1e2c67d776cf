"""What latents are made of: attention rollout through each connector, against the obvious computation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wherein.errors import InputError
from wherein.vlm.mixing import Mixer, Mixing


def run(vlm: Any, seed: int = 0) -> tuple[Mixing, Tensor]:
    image = np.random.default_rng(seed).integers(0, 256, (70, 90, 3), np.uint8)
    pixels, frames = vlm.prepare([image])
    x_v = vlm.features(pixels)
    with torch.inference_mode(), vlm.mixing().watch() as mixing:
        vlm.prefix(x_v, frames, bare=True)
    return mixing, x_v


def test_every_row_is_a_share_of_all_patches(vlm: Any) -> None:
    if not vlm.latents:
        with pytest.raises(InputError, match="mixes no cells"):
            vlm.mixing()
        return
    mixing, x_v = run(vlm)
    latents = len(vlm.image_tokens(vlm.frame_of(90, 70)).positions)
    shares = mixing.shares(latents)
    assert shares.shape == (1, latents, x_v.shape[1])
    torch.testing.assert_close(shares.sum(-1), torch.ones(1, latents))
    assert (shares >= 0).all()
    assert not torch.allclose(shares, run(vlm, 1)[0].shares(latents))
    hooks = [len(m._forward_hooks) for mixer in vlm.mixers() for m in (mixer.query, mixer.key)]
    assert not any(hooks)


def test_weights_are_those_of_the_connectors_own_attention(vlm: Any) -> None:
    """Q-Former: against transformers' eager attention. Its perceivers do not give their weights away."""
    if vlm.family not in ("blip2", "instructblip"):
        pytest.skip("only a Q-Former returns its weights")
    modules = [layer.crossattention.attention for layer in vlm.connector.encoder.layer if layer.has_cross_attention]
    given: list[Tensor] = []
    before = vlm.connector.config._attn_implementation
    vlm.connector.config._attn_implementation = "eager"
    hooks = [m.register_forward_hook(lambda _, __, out: given.append(out[1].mean(1))) for m in modules]
    try:
        mixing, _ = run(vlm)
    finally:
        vlm.connector.config._attn_implementation = before
        for hook in hooks:
            hook.remove()
    cross = [w for mixer, w in zip(mixing.mixers, mixing.weights, strict=True) if mixer.sees == "patches"]
    assert given and len(given) == len(cross)
    for one, two in zip(given, cross, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


def rolled(weights: list[tuple[str, Tensor]], latents: int, patches: int) -> Tensor:
    """Row by row: what a latent held, and what it looks at, half each."""
    held = [torch.zeros(patches) for _ in range(latents)]
    for sees, w in weights:
        new = [h.clone() for h in held]
        for i in range(w.shape[0]):
            seen = torch.zeros(patches)
            for j in range(w.shape[1]):
                if sees == "patches" or (sees == "both" and j < patches):
                    seen[j] += w[i, j]
                else:
                    seen += w[i, j] * held[j - (patches if sees == "both" else 0)]
            new[i] = (held[i] + seen) / 2
        held = new
    return torch.stack([h / h.sum() for h in held])


@pytest.mark.parametrize("plan", [("patches", "latents", "patches"), ("both", "both"), ("latents", "patches")])
def test_the_rollout_is_the_obvious_one(plan: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    latents, patches, weights = 3, 5, []
    for sees in plan:
        keys = {"patches": patches, "latents": latents, "both": patches + latents}[sees]
        weights.append((sees, torch.rand(latents, keys).softmax(-1)))
    mixers = [Mixer(nn.Identity(), nn.Identity(), 1, sees) for sees, _ in weights]  # type: ignore[arg-type]
    mixing = Mixing(mixers, [w[None] for _, w in weights])
    torch.testing.assert_close(mixing.shares(latents)[0], rolled(weights, latents, patches))


def test_more_queries_than_latents_count_as_empty_until_they_look() -> None:
    """InstructBLIP's question stands behind the latents in the self-attention, and sees no patch itself."""
    cross, mixed = torch.rand(2, 4).softmax(-1), torch.rand(5, 5).softmax(-1)
    mixers = [Mixer(nn.Identity(), nn.Identity(), 1, sees) for sees in ("patches", "latents")]  # type: ignore[arg-type]
    shares = Mixing(mixers, [cross[None], mixed[None]]).shares(2)[0]
    held = torch.cat([cross / 2, torch.zeros(3, 4)])
    wanted = ((held + mixed @ held) / 2)[:2]
    torch.testing.assert_close(shares, wanted / wanted.sum(-1, keepdim=True))
