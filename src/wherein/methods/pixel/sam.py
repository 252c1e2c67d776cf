"""SAM on smaller pictures than it was published for: its tables of positions, resized.

SAM knows where a patch is from a table of 64 x 64 places, and how far two are apart from tables of distances. At 384
pixels there are 24 x 24 patches: the places are resized bicubically, and the distances of the blocks that see the whole
picture linearly. Blocks that see windows keep theirs, and SAM's prompts are in shares of the picture anyway.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

PLACES = "pos_embed"
DISTANCES = ("rel_pos_h", "rel_pos_w")


def resized(published: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A SAM's weights by name with the tables in the shapes that they have among `wanted`; the rest as it is."""
    return {name: _table(name, weight, wanted.get(name)) for name, weight in published.items()}


def _table(name: str, weight: Tensor, wanted: Tensor | None) -> Tensor:
    last = name.rpartition(".")[2]
    if wanted is None or wanted.shape == weight.shape:
        return weight
    if last == PLACES:
        rows, columns = wanted.shape[1:3]
        places = F.interpolate(weight.permute(0, 3, 1, 2).float(), (rows, columns), mode="bicubic", antialias=True)
        return places.permute(0, 2, 3, 1).to(weight)
    if last in DISTANCES:
        distances = F.interpolate(weight.T[None].float(), wanted.shape[0], mode="linear")
        return distances[0].T.to(weight)
    return weight
