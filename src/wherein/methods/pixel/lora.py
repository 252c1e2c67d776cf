"""Low-rank updates inside the language model (Hu et al., 2021), as PixelLLM has them.

Notable choices:
- the scale multiplies the product as it is, with no division by the rank
- a layer with an update is still an `nn.Linear` with its weight under the old name: published weights load by name, and
  the rest of the model never notices
- the right factor starts at zero, so an untrained model is the language model it was, bit for bit
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wherein.errors import InputError


class LoraLinear(nn.Linear):
    """A frozen linear layer and a trained update of rank `rank` beside it, kept in float32."""

    def __init__(self, base: nn.Linear, rank: int, scale: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias, self.scale = base.weight, base.bias, scale
        self._is_hf_initialized = True  # or transformers would give the weight, which is another's, first values
        device = base.weight.device
        self.lora_down = nn.Parameter(torch.empty(rank, base.in_features, device=device))
        self.lora_up = nn.Parameter(torch.empty(base.out_features, rank, device=device))
        self.start()

    @torch.no_grad()
    def start(self) -> None:
        """Give the update its first values, with which it does nothing."""
        nn.init.normal_(self.lora_down, std=self.in_features**-0.5)
        nn.init.zeros_(self.lora_up)

    def forward(self, x: Tensor) -> Tensor:
        """float[..., in] -> float[..., out]."""
        update = F.linear(F.linear(x.to(self.lora_down), self.lora_down), self.lora_up)
        return super().forward(x) + (self.scale * update).to(x)


def add(model: nn.Module, targets: Sequence[str], rank: int, scale: float) -> None:
    """Put an update beside every linear layer of `model` whose name ends in one of `targets`; rank 0: beside none.

    Raises InputError where the model has no such layer.
    """
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in targets
    }
    if not found and rank:
        raise InputError(
            f"The language model has no linear layer called {' or '.join(targets)}: set lora_targets to the names of "
            "its query and value layers."
        )
    for name, module in found.items() if rank else ():
        path, _, last = name.rpartition(".")
        setattr(model.get_submodule(path), last, LoraLinear(module, rank, scale))
