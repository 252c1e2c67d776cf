"""PIN on a frozen VLM: add the insert at its seam, let the model write the box."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from wherein.errors import AdapterError, InputError
from wherein.geometry import Frame
from wherein.methods.base import register
from wherein.methods.insert import Inserted
from wherein.methods.pin.config import PinConfig
from wherein.methods.pin.module import PositionalInsert, table
from wherein.methods.pin.numbers import numbered
from wherein.vlm.base import FrozenVLM

NUMBERED = 1.5  # norm of the numbers each cell starts with, see `numbered`


@register
class Pin(Inserted):
    """A positional insert bound to a VLM (CVPR'24); answers as `Inserted` says."""

    name = "pin"
    config_class = PinConfig
    rates = {"default": 5e-6, "paper": 1e-3, "released": 1e-3, "split": 1e-3, "gated": 1e-3}
    insert: PositionalInsert

    def __init__(self, vlm: FrozenVLM, adapter: str | Path | None = None) -> None:
        super().__init__(vlm, adapter)
        self._pi = lru_cache(maxsize=2)(self._made)  # of a large picture, hundreds of megabytes each

    @classmethod
    def begin(cls, vlm: FrozenVLM, preset: str = "default") -> PositionalInsert:
        """As published at the features, or behind a connector that keeps cells apart from each cell's numbers."""
        if preset != "default":  # the network of the paper's preset is the released one
            variant = "released" if preset == "paper" else preset
            return PositionalInsert(PinConfig(*vlm.grid, vlm.feature_dim, variant), vlm.cells())
        if not vlm.keeps_cells:
            raise InputError(f"The connector of {vlm.name} does not keep cells apart: use the preset paper.")
        seam = "connector_tokens"
        insert = PositionalInsert(
            PinConfig(*vlm.grid, vlm.width(seam), code="2d", seam=seam, codec=vlm.codec), vlm.cells()
        )
        insert.start_from(NUMBERED * numbered(vlm))
        return insert

    @classmethod
    def build(cls, vlm: FrozenVLM, config: PinConfig) -> PositionalInsert:
        """See Inserted."""
        if (config.rows, config.columns, config.feature_dim) != (*vlm.grid, vlm.width(config.seam)):
            raise AdapterError(f"This PIN is for another grid or width than {vlm.name}'s.")
        return PositionalInsert(config)

    def pi(self, frame: Frame | None = None) -> Tensor:
        """The insert float[N, D_v] for an image with this Frame; None: for one of the model's own size."""
        return self._pi(None if frame is None else (frame.width, frame.height))

    @torch.inference_mode()
    def _made(self, size: tuple[int, int] | None) -> Tensor:
        code = table(self.insert.config, self.vlm.cells(None if size is None else self.vlm.frame_of(*size)))
        return self.insert(code.to(self.vlm.device)).to(self.vlm.dtype)  # type: ignore[no-any-return]

    @contextmanager
    def install(self, frame: Frame | None = None) -> Iterator[None]:
        """Insert pi, worked out once for images of one size, inside the block."""
        pi = self.pi(frame)
        with self.vlm.seam(self.insert.config.seam, lambda x: x + pi.to(x)):
            yield
