"""Rows of several kinds, read by the language model of a pixel-aligned model in one pass.

On a GPU a step of training waits for kernels to be launched, of which one pass has a third of those of three. On a CPU,
where it is the filling up to one length that costs, each kind is better read on its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from wherein.methods.pixel.language import FILLER, IGNORED
from wherein.methods.pixel.losses import POINT_WEIGHT
from wherein.methods.pixel.model import PixelLM
from wherein.methods.pixel.prompts import Prompts


def losses_together(model: PixelLM, features: Sequence[Tensor], kinds: Sequence[Mapping[str, Any]]) -> list[Tensor]:
    """The loss float32[] of each of `kinds`, as `model(features=features, **kind).loss` has it, but for rounding.

    A kind is what `PixelLM.forward` takes: labels, text and tasks (but segment: no mask is drawn), and what it needs of
    rows, prompts, points and boxes, about whole pictures whose features float[B, N_i, C_i] are those of each encoder.
    Raises InputError as `forward` does.
    """
    side, device = float(model.config.side), model.device
    labels = [kind["labels"].to(device) for kind in kinds]
    visual = [_shown(model, features, kind, side) for kind in kinds]
    sizes = torch.full((sum(map(len, labels)), 2), side, device=device)
    texts = _filled([kind["text"].to(device) for kind in kinds], FILLER)
    _, logits, said = model.behind(torch.cat(visual), texts, _filled(labels, IGNORED), sizes)
    counts, found = [len(own) for own in labels], []
    for kind, own, behind, points in zip(
        kinds, labels, torch.split(logits, counts), torch.split(said, counts), strict=True
    ):
        taught = {name: kind[name] for name in ("tasks", "points", "boxes") if name in kind}
        text_loss, point_loss, _ = model.taught(behind[:, : own.shape[1]], points[:, : own.shape[1]], own, **taught)
        found.append(text_loss + POINT_WEIGHT * point_loss)
    return found


def _shown(model: PixelLM, features: Sequence[Tensor], kind: Mapping[str, Any], side: float) -> Tensor:
    """The visual tokens of a kind's rows: one a picture, of all of it, where it says nothing else."""
    rows = kind["rows"].to(model.device) if "rows" in kind else torch.arange(len(features[0]), device=model.device)
    whole = Prompts.whole(torch.full((len(rows), 2), side, device=model.device))
    return model.visual(features, rows, kind.get("prompts", whole))


def _filled(tables: Sequence[Tensor], filler: int) -> Tensor:
    """Tables int64[R_i, T_i], one below another, their rows filled up to one length."""
    longest = max(table.shape[1] for table in tables)
    return torch.cat([pad(table, (0, longest - table.shape[1]), value=filler) for table in tables])
